import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { studies } from '../bench/study/index.ts';
import { insulation } from '../bench/study/insulation.ts';
import { studyPage } from '../bench/study/page.ts';
import { performRun } from '../bench/study/perform.ts';
import { fileOf, finishedRuns, performRuns, type SavedRun } from '../bench/study/saved.ts';
import { runsOf, type Study, type StudyRun } from '../bench/study/study.ts';
import { cellsOf, markdownOf, tableOf } from '../bench/study/table.ts';
import { demonstrations } from '../bench/tabletop/demonstrations.ts';
import { simplePlacing } from '../bench/tabletop/scene.ts';
import { askStart } from '../bench/tabletop/seeing-sets.ts';
import { study } from '../cli/study.ts';
import { Model } from '../model/architecture/model.ts';
import { expectRules } from '../model/training/parameter-rules.ts';
import { presetNamed } from '../model/training/presets.ts';
import { expectTokens, systemOf } from '../model/training/run-settings.ts';
import { openStart } from '../model/training/start.ts';
import { testDevice } from './support/devices.ts';
import { runCommand } from './support/run-command.ts';
import { quietListener } from './support/synthetic-dataset.ts';
import { seeingModel } from './support/vision-language.ts';

const small: Study = {
  ...insulation,
  variants: [
    { name: 'first', meaning: 'the first of them', settings: {} },
    { name: 'first-short', meaning: 'a shorter horizon', settings: { horizon: 5 }, beside: 'first' },
    { name: 'second', meaning: 'a flow alone', settings: { system: 'pi05' } },
  ],
  seeds: 2,
};
const runs = runsOf(small, presetNamed('tiny'));

/** A finished run: of every ten scenes the first `successes` succeed, and one more has the right object. */
function finishedRun(run: StudyRun, successes: number): SavedRun {
  const seconds = run.settings.seed === 0 ? 10 : 20;
  const losses = (step: number) => ({ flow: 1 / (1 + step), ...(run.variant !== 'second' && { token: 0.3 + step }) });
  const objective = (name: string) => ({ name, title: `${name} loss`, baseline: 'mean chunk' });
  return {
    format: 'insula study run 1',
    ...run,
    start: 'abc',
    adapter: { description: 'a <test> adapter', software: true, features: [] },
    versions: { insula: '0', webgpu: '0', node: '20' },
    commit: '0123456789abcdef',
    modified: false,
    date: '2026-01-01T00:00:00.000Z',
    objectives: Object.keys(losses(0)).map(objective),
    heldOut: [0, 3].map((step) => ({ step, losses: losses(step), seconds: (step * seconds) / 3 })),
    baselines: { flow: 0.2501, token: 3 },
    episodes: Array.from({ length: 10 }, (_, seed) => {
      return { seed, success: seed < successes, rightObject: seed <= successes, stageScore: seed / 10, steps: 20 };
    }),
    questions: {
      start: { objects: 9, near: 0.5, others: 9, tokens: 0.9996 },
      trained: run.variant === 'second' ? null : { objects: 9, near: 0.25, others: 9, tokens: 0.5 },
    },
    seconds: { train: seconds },
  };
}

let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'insula-study-test-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));
const note = () => {};
const never = () => false;
const perform = async (run: StudyRun) => finishedRun(run, 4);
const names = runs.map(fileOf);

test('every variant of every study can be trained', () => {
  for (const own of studies) {
    const all = runsOf(own, presetNamed('tiny'));
    expect(new Set(all.map(fileOf)).size).toBe(own.variants.length * own.seeds);
    for (const { settings } of all) {
      systemOf(settings);
      expectTokens(settings);
      expectRules(settings, { images: true, state: true });
      expect([settings.from, settings.steps]).toEqual(['tiny', own.steps]);
    }
    const known = own.variants.map(({ name }) => name);
    for (const { beside = known[0] } of own.variants) expect(known).toContain(beside);
  }
});

describe('the runs of a study', () => {
  test('are performed seed by seed, a few at a time, and none twice', async () => {
    const performed: string[] = [];
    const watched = async (run: StudyRun) => {
      performed.push(fileOf(run));
      return perform(run);
    };
    for (const most of [2, 3, undefined, undefined]) {
      const finished = await finishedRuns(folder, runs, 'abc', never);
      expect([...finished.keys()]).toEqual(performed);
      await performRuns(runs, finished, { folder, most, perform: watched, note });
    }
    expect(performed).toEqual(names);
    expect(performed.slice(0, 4)).toEqual(['first-0.json', 'first-short-0.json', 'second-0.json', 'first-1.json']);
    expect((await readdir(folder)).sort()).toEqual(names.toSorted());
    const finished = await finishedRuns(folder, runs, 'abc', never);
    expect([...finished.values()]).toEqual(runs.map((run) => finishedRun(run, 4)));
  });

  test('lose the one in progress if they are interrupted', async () => {
    const interrupted = new AbortController();
    const finished = new Map<string, SavedRun>();
    const own = join(folder, 'interrupted');
    await performRuns(runs, finished, {
      ...{ folder: own, note, signal: interrupted.signal },
      perform: async (run) => {
        if (finished.size === 2) interrupted.abort();
        interrupted.signal.throwIfAborted();
        return perform(run);
      },
    });
    expect(await readdir(own)).toEqual(names.slice(0, 2));
    const failing = performRuns(runs, finished, {
      folder: own,
      note,
      perform: () => Promise.reject(new Error('lost')),
    });
    await expect(failing).rejects.toThrow('lost');
  });

  test('are refused with other settings, another start or damaged, unless they are replaced', async () => {
    const refused = async (all: readonly StudyRun[], start: string, reason: RegExp) => {
      await expect(finishedRuns(folder, all, start, never)).rejects.toThrow(reason);
      const left = await finishedRuns(folder, all, start, (run) => run.variant !== 'second').catch(() => null);
      return left && [...left.keys()];
    };
    const longer = runsOf({ ...small, steps: 7 }, presetNamed('tiny'));
    const advice = '; choose another folder with --out, or run it again with --overwrite$';
    await refused(
      longer,
      'abc',
      new RegExp(`first-0.json: settings.steps is ${small.steps} there, and now 7${advice}`),
    );
    await refused(runs, 'abd', /first-0.json: start is "abc" there, and now "abd"; /);
    const fewer = runsOf(small, { ...presetNamed('tiny'), heldOutSteps: 3 });
    await refused(fewer, 'abc', /settings.preset.heldOutSteps is 64 there, and now 3; /);
    await writeFile(join(folder, 'first-1.json'), '{"format": 3}');
    expect(
      await refused(runs, 'abc', /first-1.json: this is not a finished run of insula study: .*--overwrite$/),
    ).toEqual(names.filter((name) => name !== 'first-1.json'));
    await writeFile(join(folder, 'first-1.json'), '{"format');
    await refused(runs, 'abc', /first-1.json: .*--overwrite$/);
  });

  test('of a version without a setting have its default', async () => {
    const [run] = runs;
    const { gates: _, ...settings } = run.settings;
    const plain = { ...run, settings: { ...run.settings, gates: null } };
    await writeFile(join(folder, fileOf(run)), JSON.stringify({ ...finishedRun(run, 4), settings }));
    expect((await finishedRuns(folder, [plain], 'abc', never)).size).toBe(1);
    await expect(finishedRuns(folder, [run], 'abc', never)).rejects.toThrow(/settings.gates is null there, and now 1;/);
  });
});

describe('the table', () => {
  const finished = runs.slice(0, 5).map((run, i) => finishedRun(run, i === 0 ? 4 : 6));
  const results = tableOf(small, finished);

  test('has intervals over the scenes of all seeds', () => {
    const { rows } = results;
    expect(rows.map(({ runs: own }) => own)).toEqual([2, 2, 1]);
    // 10 of 20: centre 1/2, half width z / (1 + z^2 / 20) * sqrt(1 / 80 + z^2 / 1600), with z^2 = 3.8415: 0.2007
    const [{ success, rightObject }] = rows;
    expect(success).toMatchObject({ count: 10, of: 20, seeds: { mean: 0.5, low: 0.4, high: 0.6 } });
    expect(success!.low).toBeCloseTo(0.2993, 4);
    expect(success!.high).toBeCloseTo(0.7007, 4);
    expect(rightObject).toMatchObject({ count: 12, of: 20 });
    expect(rows[0].stageScore!.mean).toBeCloseTo(0.45, 9);
    expect(rows[0].seconds).toEqual({ mean: 15, low: 10, high: 20 });
    expect(rows[2]).toMatchObject({ near: null, tokens: null, losses: { token: { loss: null } } });
  });

  test('never makes a loss above its baseline equal to it', () => {
    const { head, lines } = cellsOf(results);
    expect(lines[0].slice(0, 4)).toEqual(['first', '2', '50.0 (29.9 to 70.1); 40.0 to 60.0', '60.0 (38.7 to 78.1)']);
    expect(lines[0].slice(7, 9)).toEqual(['0.250; 0.9996 ×', '3.30; 1.10 × (worse)']);
    expect(head[6]).toBe('other tokens, %, start 99.9');
    expect(lines[2].slice(5, 9)).toEqual(['–', '–', '0.250; 0.9996 ×', '–']);
    expect(markdownOf(results)).toHaveLength(5);
    expect(cellsOf(tableOf(small, [])).lines[0].slice(1, 4)).toEqual(['0', '–', '–']);
  });

  test('stands on a page with curves of every run and what is missing', async () => {
    const page = await studyPage({
      study: small,
      command: 'insula study <x>',
      runs: finished,
      results,
      missing: ['a-1.json'],
    });
    for (const { name, meaning } of small.variants)
      expect(page).toMatch(new RegExp(`<dt>${name}</dt><dd>${meaning}</dd>`));
    expect(page).toContain('<dt>Missing</dt><dd>a-1.json</dd>');
    expect(page).toContain('insula study &lt;x&gt;');
    expect(page.match(/<figcaption>/g)).toHaveLength(4);
    expect(page).toContain('Held-out token loss over seconds');
    const marks = page.match(/class="mark-line/g)!;
    expect(marks).toHaveLength(2 * 5 + 2 * 4);
    expect(page).not.toMatch(/<script|NaN|Infinity|undefined|sss/);
  });
});

test('bad input is refused in one line', async () => {
  const refused = (values: object, words: string[], reason: RegExp) =>
    expect(runCommand(study, values, { names: words })).rejects.toThrow(reason);
  await refused({}, ['insulate'], /^study: there is no study "insulate"; did you mean insulation\?$/);
  await refused({ only: ['pi1'] }, ['insulation'], /^study: --only: insulation has no variant "pi1"; .*pi0/);
  await writeFile(join(folder, 'pi0-0.json'), '[]');
  await refused(
    { out: folder },
    ['insulation'],
    /pi0-0\.json: this is not a finished run of insula study: .*--overwrite$/,
  );
  const { lines } = await runCommand(study, {});
  expect(lines[0]).toContain(insulation.question);
  const empty = await runCommand(study, { runs: 0, seeds: 1, out: join(folder, 'new') }, { names: ['insulation'] });
  expect(empty.json).toMatchObject({ missing: { length: insulation.variants.length }, page: null });
  const own = { runs: 0, seeds: 1, out: join(folder, 'own'), data: ['DATA'] };
  const plain = insulation.variants.flatMap(({ name }) => (name.endsWith('places') ? [] : [`${name}-0.json`]));
  expect((await runCommand(study, own, { names: ['insulation'] })).json).toMatchObject({ missing: plain });
});

test('a run measures a policy, and the start with its weights', async () => {
  const device = await testDevice('normal');
  const preset = { ...presetNamed('tiny'), batch: 2, heldOutSteps: 2, finalHeldOutSteps: 2 };
  const all = runsOf({ ...insulation, steps: 2, seeds: 1, scenes: 2 }, preset);
  const own = { ...all.find(({ variant }) => variant === 'knowledge-insulation-places')!, questionScenes: 1 };
  const start = await openStart('tiny');
  try {
    const answers = (await askStart(device, start, 1))!;
    expect(answers.near).toBeGreaterThan(0.5);
    using untrained = new Model(device, start.configuration);
    untrained.initialise(0);
    expect((await askStart(device, start, 1, undefined, untrained))!.near).toBe(0);
    const statistics = { ...start.encoding.statistics, states: null };
    const abroad = Object.create(start, { encoding: { value: { ...start.encoding, statistics } } });
    expect(await askStart(device, abroad, 1)).toBeNull();
    using smaller = seeingModel(device);
    expect(await askStart(device, start, 1, undefined, smaller)).toBeNull();
    const saved = await performRun(device, own, {
      ...{ start, hash: 'abc', answers, signal: new AbortController().signal },
      dataset: () => demonstrations({ episodes: 4, seed: 0 }),
      scenes: () => [simplePlacing],
      listener: { ...quietListener(), closedLoop() {} },
    });
    expect(saved.heldOut.map(({ step }) => step)).toEqual([0, 2]);
    expect(saved.episodes).toHaveLength(2);
    expect(saved.questions.trained).toMatchObject({ objects: answers.objects, others: answers.others });
    const at = join(folder, 'real');
    await performRuns([own], new Map(), { folder: at, perform: async () => saved, note });
    expect((await finishedRuns(at, [own], 'abc', never)).get(fileOf(own))).toEqual(saved);
    expect(JSON.parse(await readFile(join(at, fileOf(own)), 'utf8'))).toEqual(saved);
  } finally {
    await start.close();
  }
});
