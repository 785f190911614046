import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type AnyRun, runsOf, type StudyRun, timedArms, trainedArms } from '../bench/study/arms.ts';
import { armsOf, type Claim, type Test } from '../bench/study/claims/claim.ts';
import { claims } from '../bench/study/claims/index.ts';
import { conclusionOf, lackingOf, outcomeOf, runsByArm } from '../bench/study/conclusion.ts';
import { meanOverSteps } from '../bench/study/measures.ts';
import { differenceText, studyPage } from '../bench/study/page.ts';
import { performRun, performTimes } from '../bench/study/perform.ts';
import {
  fileOf,
  finishedRuns,
  performRuns,
  type SavedRun,
  savedSchema,
  type TrainedRun,
} from '../bench/study/saved.ts';
import { meanInterval, studentQuantile, verdictOf, verdicts, wholeVerdict } from '../bench/study/statistics.ts';
import { demonstrations } from '../bench/tabletop/demonstrations.ts';
import { askStart } from '../bench/tabletop/seeing-sets.ts';
import { study } from '../cli/study.ts';
import { readJsonFile } from '../engine/files/json-schema.ts';
import { InputError } from '../engine/index.ts';
import { Model } from '../model/architecture/model.ts';
import { expectRules } from '../model/training/parameter-rules.ts';
import { presetNamed } from '../model/training/presets.ts';
import { expectTokens, systemOf } from '../model/training/run-settings.ts';
import { openStart } from '../model/training/start.ts';
import { testDevice } from './support/devices.ts';
import { runCommand } from './support/run-command.ts';
import { quietListener } from './support/synthetic-dataset.ts';
import { seeingModel } from './support/vision-language.ts';

const preset = presetNamed('tiny');
const [FIRST, SECOND] = ['knowledge-insulation', 'pi0'];
const seeds = [0, 1, 2];
const sizes = { preset, seeds, scenes: 10 };
const runs = runsOf([FIRST, SECOND], sizes) as StudyRun[];
const base = {
  adapter: { description: 'a <test> adapter', software: true, features: [] },
  versions: { insula: '0', webgpu: '0', node: '20' },
  commit: '0123456789abcdef',
  modified: false,
  date: '2026-01-01T00:00:00.000Z',
};

/** A finished run: of its ten scenes the first `successes` succeed; its action error is `error` times the constant's. */
function finishedRun(run: StudyRun, successes: number, error = 0.5): TrainedRun {
  const outcome = (seed: number) => ({ seed, success: seed < successes, rightObject: seed <= successes });
  const episodes = Array.from({ length: 10 }, (_, seed) => ({ ...outcome(seed), stageScore: seed / 10, steps: 20 }));
  const measured = { observations: 8, oneSample: 2 * error, meanOfSeveral: null, bestConstant: 2 };
  return {
    ...{ format: 'insula study run 1', ...run, start: 'abc', ...base },
    objectives: [{ name: 'flow', title: 'flow loss', baseline: 'best constant velocity' }],
    heldOut: [{ step: 3, losses: { flow: error }, seconds: 9 }],
    baselines: { flow: 1 },
    acting: [100, 200, 300].map((step, i) => ({ step, seconds: 2 * i, oneSample: 3 - i + error, bestConstant: 1 })),
    ...{ openLoop: { ...measured, decodes: null }, firstChunks: measured, episodes, decodes: null, others: {} },
    questions: { start: null, trained: { objects: 9, near: 0.25, others: 9, tokens: 0.5 } },
    ...{ probes: null, seconds: { train: 10 } },
  };
}

const finishedAny = (run: AnyRun): SavedRun =>
  'settings' in run
    ? finishedRun(run, 4 + run.settings.seed)
    : {
        ...{ format: 'insula study times 1', ...run, ...base },
        rows: run.options.systems.map((system, i) => ({ system, times: [1 + i, 2 + i, 9 + i] })),
      };

let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'insula-study-test-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));
const note = () => {};
const never = () => false;

describe('statistics', () => {
  test("have Student's quantiles and intervals", () => {
    // Printed tables, as in Fisher and Yates.
    const table = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];
    for (const [i, quantile] of table.entries()) expect(studentQuantile(i + 1)).toBeCloseTo(quantile, 3);
    expect(studentQuantile(30)).toBeCloseTo(2.042, 3);
    expect(studentQuantile(10_000)).toBeCloseTo(1.96, 3);
    // Mean 2, deviation 1, so 4.303 / sqrt(3) on either side.
    const { mean, low, high } = meanInterval([1, 2, 3]);
    expect([mean, low, high].map((own) => Number(own.toFixed(3)))).toEqual([2, -0.484, 4.484]);
    expect(meanInterval([7])).toEqual({ mean: 7, low: -Infinity, high: Infinity });
  });

  test('give one verdict for each interval', () => {
    const given = (direction: Test['says'], low: number, high: number) =>
      verdictOf({ mean: (low + high) / 2, low, high }, { direction, margin: 0.1 });
    expect(given('higher', 0.01, 0.9)).toBe('reproduced');
    expect(given('lower', 0.01, 0.9)).toBe('opposite');
    expect(given('lower', -0.9, -0.01)).toBe('reproduced');
    expect(given('higher', -0.9, -0.01)).toBe('opposite');
    expect(given('higher', 0.01, 0.09)).toBe('small');
    expect(given('lower', -0.09, -0.01)).toBe('small');
    expect(given('lower', 0.01, 0.09)).toBe('opposed');
    for (const direction of ['higher', 'lower'] as const) {
      expect(given(direction, -0.05, 0.09)).toBe('none');
      expect(given(direction, -0.05, 0.11)).toBe('undecided');
    }
    expect(given('alike', -0.05, 0.09)).toBe('reproduced');
    expect(given('alike', 0.02, 0.2)).toBe('undecided');
    expect(given('alike', 0.11, 0.2)).toBe('unlike');
    expect(given('alike', -0.2, -0.11)).toBe('unlike');
  });
});

test('a claim has the verdict of its parts', () => {
  expect(wholeVerdict([])).toBe('not testable here');
  expect(wholeVerdict(['opposite'])).toBe(verdicts.opposite);
  expect(wholeVerdict(['undecided', 'undecided'])).toBe(verdicts.undecided);
  expect(wholeVerdict(['undecided', 'extreme'])).toBe(verdicts.undecided);
  expect(wholeVerdict(['reproduced', 'opposite', 'none'])).toBe(
    '1 of 3 parts reproduced; 1 opposite, 1 without a difference',
  );
  expect(wholeVerdict(['undecided', 'opposite', 'undecided'])).toBe(
    'none of 3 parts reproduced; 1 opposite, 2 not decided',
  );
  expect(wholeVerdict(['reproduced', 'small'])).toBe('2 of 2 parts reproduced; 1 of them below the margin');
  expect(wholeVerdict(['reproduced', 'unrun'])).toBe('1 of 2 parts reproduced; 1 not run');
});

describe('claims', () => {
  test('cover the nineteen of the papers, and compare arms that can be trained', () => {
    const numbers = new Set(claims.flatMap(({ number }) => (/^\d/.test(number) ? [Number.parseInt(number, 10)] : [])));
    expect([...numbers]).toEqual(Array.from({ length: 19 }, (_, i) => i + 1));
    expect(new Set(claims.map(({ name }) => name)).size).toBe(claims.length);
    const arms = [...trainedArms, ...timedArms];
    const names = arms.map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
    for (const { tests } of claims)
      for (const { arms: compared, measure, scenes } of tests)
        for (const own of compared) {
          const [name, system] = own.split(':');
          const arm = arms.find((one) => one.name === name)!;
          expect(arm, name).toBeDefined();
          expect('timed' in arm && arm.systems.includes(system)).toBe(measure === 'time');
          if (scenes) expect('others' in arm && arm.others).toContain(scenes);
          if (measure.startsWith('probe')) expect('probes' in arm && arm.probes).toBe(true);
        }
    expect(names.filter((name) => !claims.some((own) => armsOf(own).includes(name)))).toEqual([]);
    for (const run of runsOf(names, { preset, seeds: [0], scenes: 100 })) {
      if (!('settings' in run)) continue;
      systemOf(run.settings);
      expectTokens(run.settings);
      expectRules(run.settings, { images: true, state: true });
      expect(run.settings.steps % run.settings.actEvery!).toBe(0);
    }
  });

  const compared: Test = { arms: [FIRST, SECOND], measure: 'action error', says: 'lower', margin: 0.05, part: 'it' };
  const byErrors = (errors: readonly (readonly [number, number])[]) =>
    runsByArm(runs.map((run) => finishedRun(run, 5, errors[run.settings.seed][run.arm === FIRST ? 0 : 1])));

  test('are decided by paired differences over seeds', () => {
    // Differences -0.2, -0.3, -0.1: mean -0.2, half width 4.303 * 0.1 / sqrt(3) = 0.248.
    const wide = outcomeOf(compared, byErrors([[0.3, 0.5], [0.5, 0.8], [0.8, 0.9]]), seeds); // biome-ignore format: pairs
    expect(wide.interval!.mean).toBeCloseTo(-0.2, 9);
    expect(wide.interval!.high).toBeCloseTo(0.0484, 3);
    expect(wide.verdict).toBe('undecided');
    const clear = outcomeOf(compared, byErrors([[0.3, 0.5], [0.5, 0.72], [0.6, 0.79]]), seeds); // biome-ignore format: pairs
    expect(clear.verdict).toBe('reproduced');
    expect(clear.seeds.map(({ seed }) => seed)).toEqual([0, 1, 2]);
    const worse = byErrors([[1.5, 1.6], [1.6, 1.7], [1.7, 1.8]]); // biome-ignore format: pairs
    expect(outcomeOf(compared, worse, seeds).verdict).toBe('extreme');
    const two = runsByArm(runs.slice(0, 4).map((run) => finishedRun(run, 5)));
    expect(outcomeOf(compared, two, seeds).verdict).toBe('few');
  });

  test('about rates also have intervals over scenes, and guards', () => {
    const success: Test = { ...compared, measure: 'success', says: 'higher' };
    const rated = (first: number, second: number) =>
      outcomeOf(success, runsByArm(runs.map((run) => finishedRun(run, run.arm === FIRST ? first : second))), seeds);
    const { rates, interval, verdict } = rated(5, 2);
    expect(rates![0]).toMatchObject({ count: 15, of: 30 });
    // Wilson: centre 1/2, half width z / (1 + z^2 / 30) * sqrt(1 / 120 + z^2 / 3600), with z^2 = 3.8415: 0.1685
    expect(rates![0].low).toBeCloseTo(0.3315, 4);
    // The seeds agree, so that the paired scenes decide: 9 of 30 differ, deviation sqrt(9 * 21 / 30 / 29), quantile 2.045.
    expect(interval!.mean).toBeCloseTo(0.3, 9);
    expect(interval!.low).toBeCloseTo(0.3 - 2.0452 * Math.sqrt((9 * 21) / 30 / 29 / 30), 4);
    expect(verdict).toBe('reproduced');
    expect(rated(0, 0).verdict).toBe('extreme');
    expect(rated(10, 10).verdict).toBe('extreme');
    expect(rated(5, 5).verdict).toBe('none');
  });

  test('are decided by the seeds that were not known before', () => {
    const later = runsOf([FIRST, SECOND], { ...sizes, seeds: [0, 1, 2, 3, 4, 5] }) as StudyRun[];
    const difference = ({ arm, settings: { seed } }: StudyRun) => (arm === FIRST && seed < 3 ? -0.2 : seed / 100);
    const known = runsByArm(later.map((run) => finishedRun(run, 5, 0.5 + difference(run))));
    const claim: Claim = { ...claims[0], tests: [compared], firstSeed: 3 };
    const { verdict, outcomes } = conclusionOf(claim, known);
    expect(outcomes[0].seeds.map(({ seed }) => seed)).toEqual([3, 4, 5]);
    expect(verdict).toBe(verdicts.none);
    expect(outcomes[0].all!.count).toBe(6);
    expect(outcomes[0].all!.interval.mean).toBeCloseTo(-0.105, 9);
    const first = conclusionOf({ ...claim, firstSeed: undefined }, known);
    expect(first.outcomes[0].interval!.mean).toBeCloseTo(-0.21, 9);
    const four = conclusionOf(claim, known, [2, 3, 4, 5]).outcomes[0];
    expect(four.seeds).toHaveLength(4);
    expect(conclusionOf(claim, known, [0, 1, 2, 3, 4, 5]).outcomes[0].all).toBeNull();
  });

  test('about times compare medians in a process', () => {
    const timed = runsOf(['step-time'], sizes).map(finishedAny);
    const [first, , second] = timedArms[0].systems;
    const cost = { arms: [`step-time:${second}`, `step-time:${first}`], measure: 'time', says: 'alike' } as const;
    // Medians 4 and 2 in every process.
    const { interval } = outcomeOf({ ...cost, margin: 0.1, less: 0.2 }, runsByArm(timed), seeds);
    for (const bound of Object.values(interval!)) expect(bound).toBeCloseTo(0.8, 9);
    expect(differenceText({ ...cost, margin: 0.1 }, interval)).toBe('+80.0 (+80.0 to +80.0) %');
    // The claim names a fifth, which the difference has.
    expect(differenceText({ ...cost, margin: 0.1, less: 0.2 }, interval)).toContain('+100.0 (');
  });

  test('over a course have means by the trapezoidal rule', () => {
    const run = finishedRun(runs[0], 5, 0);
    // Errors 3, 2, 1 at steps 100, 200, 300.
    expect(meanOverSteps(run)).toBeCloseTo(2, 9);
    expect(meanOverSteps({ ...run, acting: null })).toBeNull();
  });

  test('say which runs were measured less than they need', () => {
    const claim: Claim = { ...claims[0], tests: [compared] };
    const [old, ...others] = runs.map((run) => finishedRun(run, 5));
    const known = runsByArm([{ ...old, openLoop: null }, ...others]);
    expect(lackingOf(claim, known).map(fileOf)).toEqual([fileOf(old)]);
    expect(conclusionOf(claim, known)).toMatchObject({ verdict: verdicts.few, outcomes: [{ seeds: { length: 2 } }] });
    expect(lackingOf({ ...claim, firstSeed: 1 }, known)).toEqual([]);
    expect(conclusionOf({ ...claim, tests: [] }, known).verdict).toBe('not testable here');
  });
});

describe('runs', () => {
  test('are performed seed by seed, a few at a time, and none twice', async () => {
    const performed: string[] = [];
    const perform = async (run: AnyRun) => {
      performed.push(fileOf(run));
      return finishedAny(run);
    };
    const own = join(folder, 'few');
    for (const most of [2, 3, undefined, undefined]) {
      const finished = await finishedRuns(own, runs, 'abc', never);
      expect([...finished.keys()]).toEqual(performed);
      expect(await performRuns(runs, finished, { folder: own, most, perform, note })).toEqual([]);
    }
    expect(performed).toEqual(runs.map(fileOf));
    expect(performed.slice(0, 3)).toEqual(['knowledge-insulation-0.json', 'pi0-0.json', 'knowledge-insulation-1.json']);
    const finished = await finishedRuns(own, runs, 'abc', never);
    expect([...finished.values()]).toEqual(runs.map(finishedAny));
  });

  test('lose the one in progress if they are interrupted; one that is refused keeps no other', async () => {
    const interrupted = new AbortController();
    const finished = new Map<string, SavedRun>();
    const own = join(folder, 'interrupted');
    const perform = async (run: AnyRun) => {
      if (finished.size === 2) interrupted.abort();
      interrupted.signal.throwIfAborted();
      return finishedAny(run);
    };
    await performRuns(runs, finished, { folder: own, note, signal: interrupted.signal, perform });
    expect((await readdir(own)).sort()).toEqual(runs.slice(0, 2).map(fileOf).sort());
    const refused = async (run: AnyRun) => {
      if (fileOf(run) === 'pi0-1.json') throw new InputError('it diverged');
      return finishedAny(run);
    };
    const failed = await performRuns(runs, finished, { folder: own, note, perform: refused });
    expect(failed).toEqual(['pi0-1.json: it diverged']);
    expect(finished.size).toBe(runs.length - 1);
    const lost = performRuns(runs, finished, { folder: own, note, perform: () => Promise.reject(new Error('lost')) });
    await expect(lost).rejects.toThrow('lost');
  });

  test('of other settings, of another start or damaged are refused, unless they are replaced', async () => {
    const own = join(folder, 'refused');
    await performRuns(runs, new Map(), { folder: own, note, perform: async (run) => finishedAny(run) });
    const refused = (all: readonly AnyRun[], start: string, reason: RegExp) =>
      expect(finishedRuns(own, all, start, never)).rejects.toThrow(reason);
    const advice = '; choose another folder with --out, or run it again with --overwrite$';
    const longer = runsOf([FIRST, SECOND], { ...sizes, steps: 7 });
    await refused(longer, 'abc', new RegExp(`insulation-0.json: settings.steps is 300 there, and now 7${advice}`));
    await refused(runs, 'abd', /insulation-0.json: start is "abc" there, and now "abd"; /);
    const fewer = runsOf([FIRST, SECOND], { ...sizes, preset: { ...preset, heldOutSteps: 3 } });
    await refused(fewer, 'abc', /settings.preset.heldOutSteps is 64 there, and now 3; /);
    await writeFile(join(own, 'pi0-1.json'), '{"format": 3}');
    await refused(runs, 'abc', /pi0-1.json: this is not a finished run of insula study: .*--overwrite$/);
    const left = await finishedRuns(own, runs, 'abc', ({ arm }) => arm === SECOND);
    expect(left.has('pi0-1.json')).toBe(false);
    // Words of a preset, and measurements between steps, change no result; a setting that came later has its default.
    const [run] = runs;
    const { gates: _, ...settings } = run.settings;
    const plain = { ...run, settings: { ...run.settings, gates: null } };
    const old = {
      ...finishedRun(run, 4),
      settings: { ...settings, actEvery: null, preset: { ...preset, description: '' } },
    };
    await writeFile(join(own, fileOf(run)), JSON.stringify(old));
    expect((await finishedRuns(own, [plain], 'abc', never)).size).toBe(1);
    await refused([run], 'abc', /settings.gates is null there, and now 1;/);
  });

  test('that are kept are whole', async () => {
    const kept = new URL('../bench/results/study/runs/', import.meta.url).pathname;
    const arms = [...trainedArms, ...timedArms].map(({ name }) => name);
    const all = runsOf(arms, { preset, seeds: [0, 1, 2, 3, 4, 5], scenes: 100 });
    const files = await readdir(kept);
    const { start } = await readJsonFile(join(kept, 'pi0-0.json'), savedSchema, 'a run').then(
      (own) => own as TrainedRun,
    );
    expect((await finishedRuns(kept, all, start!, never)).size).toBe(files.length);
  });
});

test('the page has every claim, its tests and the raw numbers', async () => {
  const names = [...trainedArms, ...timedArms].map(({ name }) => name);
  const all = runsOf(names, { ...sizes, seeds: [0, 1, 2, 3, 4, 5] });
  const finished = all.map(finishedAny);
  const conclusions = claims.map((claim) => conclusionOf(claim, runsByArm(finished)));
  const page = await studyPage({
    command: 'insula study <x>',
    conclusions,
    finished,
    missing: all.slice(0, 1),
    lacking: [],
  });
  for (const { claim } of conclusions) expect(page).toContain(`<section id="${claim.name}">`);
  for (const run of all) expect(page).toContain(`<a href="runs/${fileOf(run)}" title="commit 0123456789; 2026-01-01; `);
  expect(page).toContain('insula study &lt;x&gt;');
  expect(page).toContain(`<dt>Missing</dt><dd>${all[0].arm}</dd>`);
  expect(page).toContain('not testable here');
  expect(page).toContain('all 6 seeds: ');
  const drawn = conclusions.flatMap(({ outcomes }) => outcomes.filter(({ seeds }) => seeds.length > 0));
  const parts = drawn.flatMap(({ test: { part } }) => part ?? []);
  expect(parts.length).toBeGreaterThan(20);
  const figure = page.slice(page.indexOf('aria-label="Differences of all claims'), page.indexOf('<table>'));
  for (const part of parts) expect(figure).toContain(part.replaceAll("'", '&#39;'));
  expect(page).not.toMatch(/<script|NaN|undefined|sss/);
  const none = claims.map((claim) => conclusionOf(claim, new Map()));
  const empty = await studyPage({ command: '', conclusions: none, finished: [], missing: [], lacking: [] });
  expect(empty).toContain(verdicts.unrun);
  expect(empty).not.toContain('<figure>');
  expect(empty).not.toMatch(/NaN|Infinity|undefined/);
});

test('the command lists claims, computes again what is there, and refuses bad input in one line', async () => {
  const refused = (values: object, words: string[], reason: RegExp) =>
    expect(runCommand(study, values, { names: words })).rejects.toThrow(reason);
  await refused({}, ['convergance'], /^study: there is no claim "convergance"; did you mean convergence\?$/);
  await refused({ only: ['pi1'] }, ['convergence'], /^study: --only: there is no arm "pi1"; .*pi0/);
  await refused({ only: ['pi0'] }, ['masks'], /^study: --only: no test of masks has the arm pi0$/);
  const own = join(folder, 'command');
  await performRuns(runs, new Map(), { folder: join(own, 'runs'), note, perform: async (run) => finishedAny(run) });
  await refused(
    { out: own, report: true },
    [],
    /knowledge-insulation-0.json: scenes is 10 there, and now 100; .*--overwrite$/,
  );
  await refused({ scenes: 10, out: own, report: true }, [], /knowledge-insulation-0.json: start is "abc" there/);
  const { lines } = await runCommand(study, {});
  expect(lines.filter((line) => /^\d/.test(line)).length).toBeGreaterThanOrEqual(19);
  const other = join(folder, 'new');
  const nothing = await runCommand(study, { report: true, out: other }, { names: ['cost'] });
  expect(nothing.json).toMatchObject({ missing: { length: 3 }, page: join(other, 'index.html') });
  expect(await readFile(join(other, 'index.html'), 'utf8')).toContain('<section id="cost">');
  const later = await runCommand(study, { report: true, out: other, seeds: 1 }, { names: ['places'] });
  expect(later.json).toMatchObject({ missing: expect.arrayContaining(['knowledge-insulation-places-3.json']) });
});

test('a run measures a policy, and the start with its weights', async () => {
  const device = await testDevice('normal');
  const small = { ...preset, batch: 2, heldOutSteps: 2, finalHeldOutSteps: 2 };
  const [own] = runsOf(['knowledge-insulation-places'], {
    preset: small,
    seeds: [0],
    steps: 2,
    scenes: 1,
  }) as StudyRun[];
  const arm = trainedArms.find(({ name }) => name === own.arm)!;
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
    const { signal } = new AbortController();
    const saved = (await performRun(
      device,
      own,
      { ...arm, others: ['other object'], probes: true },
      {
        ...{ start, hash: 'abc', answers, signal },
        dataset: () => demonstrations({ episodes: 4, seed: 0 }),
        coTraining: async () => undefined,
        listener: { ...quietListener(), closedLoop() {} },
      },
    )) as TrainedRun;
    expect(saved.heldOut.map(({ step }) => step)).toEqual([0, 2]);
    expect(saved.acting!.map(({ step }) => step)).toEqual([2]);
    expect(saved.episodes).toHaveLength(1);
    expect(Object.keys(saved.others!)).toEqual(['other object']);
    expect(saved.others!['other object'][0].original).toBeTypeOf('boolean');
    expect(saved.firstChunks!.observations).toBe(1);
    expect(saved.probes!.trained.map(({ question }) => question)).toContain('shape');
    expect(saved.questions.trained).toMatchObject({ objects: answers.objects, others: answers.others });
    const at = join(folder, 'real');
    await performRuns([own], new Map(), { folder: at, perform: async () => saved, note });
    expect((await finishedRuns(at, [own], 'abc', never)).get(fileOf(own))).toEqual(saved);
  } finally {
    await start.close();
  }
});

test('systems are timed in turn', async () => {
  const device = await testDevice('normal');
  const timed = { preset: 'nano', timed: 'step', systems: ['pi0', 'pi05'], batch: 1 } as const;
  const { signal } = new AbortController();
  const run = { arm: 'step-time', seed: 0, options: timed };
  const saved = await performTimes(device, run, { signal, rounds: 2 });
  expect('rows' in saved && saved.rows.map(({ system }) => system)).toEqual(timed.systems);
});
