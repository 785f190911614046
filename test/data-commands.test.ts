import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { act } from '../cli/act.ts';
import { convert } from '../cli/convert.ts';
import { chooseData, type DataChoice, readParaphrasing } from '../cli/data.ts';
import { evaluate } from '../cli/evaluate.ts';
import { readOptions } from '../cli/options.ts';
import { Progress } from '../cli/progress.ts';
import { showData } from '../cli/show-data.ts';
import type { ActResult } from '../cli/text.ts';
import { printable, quote } from '../engine/files/errors.ts';
import { mixDatasets, openDataset, ownSlotMap, writeLeRobot } from '../model/data/index.ts';
import { html } from '../model/report/markup.ts';
import { openCheckpoint } from '../model/training/checkpoint.ts';
import { differences } from '../model/training/same-run.ts';
import { actionsFile, message, rows } from './data/synthetic.ts';
import { runCommand } from './support/run-command.ts';
import { minutePreset, syntheticDataset } from './support/synthetic-dataset.ts';
import { trainRun } from './support/train-run.ts';

let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'insula-mixture-'));
  const datasets: Record<string, unknown> = {};
  for (const [name, width, rate] of [
    ['seven', 7, 5],
    ['three', 3, 5],
    ['fast', 3, 10],
  ] as const) {
    const tables = ['action', 'state'].map((kind, i) => [`ep0/${kind}`, rows(6, width, i)]);
    await writeFile(join(folder, `${name}.safetensors`), await actionsFile(Object.fromEntries(tables)));
    datasets[name] = { control_hz: rate, actions: `${name}.safetensors`, episodes: [{ id: 'ep0', steps: 6 }] };
  }
  await writeFile(join(folder, 'index.json'), JSON.stringify({ format: 1, datasets }));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

class Silent extends Progress {
  override note(): void {}
}
const choose = (choice: DataChoice, usual?: readonly string[]) =>
  chooseData({ data: [folder], ...choice }, { episodes: 1, seed: 0, usual }, new Silent());

describe('data sets with commas between', () => {
  test('are one where a path with a comma is there', async () => {
    const path = join(folder, 'with,comma');
    const given = () => readOptions('convert', convert, ['--data', path, '--out', 'x']).values.data;
    expect(given()).toEqual([join(folder, 'with'), 'comma']);
    await mkdir(path);
    expect(given()).toEqual([path]);
  });

  test('are a mixture of robots, wherever each lies', async () => {
    for (const mixed of [
      await choose({ dataset: ['seven', 'three'] }),
      await choose({ data: [folder, folder], dataset: ['seven', 'three'] }),
      await choose({}, ['seven', 'three']),
    ]) {
      expect(mixed).toMatchObject({ name: 'seven,three', rate: 5, actionDimension: 7, stateDimension: 7 });
      expect(mixed.episodes.map(({ robot }) => robot)).toEqual(['seven', 'three']);
      expect(mixed.robots!.three.actions.map(({ slot }) => slot)).toEqual([0, 1, 2]);
      expect(mixed.episodes[1].actions.length).toBe(6 * 3);
    }
  });

  test('weights by hand', async () => {
    expect((await choose({ dataset: ['seven', 'three'], weights: [2, 0.5] })).weights).toEqual({
      seven: 2,
      three: 0.5,
    });
    expect((await choose({ dataset: ['seven', 'three'] })).weights).toBeUndefined();
  });

  test('robots by name: their slots, and one robot of two data sets', async () => {
    const one = await choose({ dataset: ['seven'], robot: ['ur5e'] });
    expect(one).toMatchObject({ name: 'seven', actionDimension: 32 });
    expect(Object.keys(one.robots!)).toEqual(['ur5e']);
    const twice = await choose({ dataset: ['seven', 'seven'], robot: ['ur5e'] });
    expect(twice.episodes.map(({ robot }) => robot)).toEqual(['ur5e', 'ur5e']);
    const plain = await choose({ dataset: ['seven'] });
    expect(plain.robots).toBeUndefined();
  });

  test.each<[DataChoice, string]>([
    [{ dataset: ['seven', 'three'], weights: [1] }, '--weights: 1 given for 2 data sets'],
    [
      { dataset: ['seven'], weights: [1] },
      '--weights: 1 given for 1 data set; it takes one for each of several data sets',
    ],
    [{ dataset: ['seven', 'three'], weights: [1, 0] }, 'mixture: the weight of "three" is not a number above 0'],
    [{ dataset: ['three', 'three'] }, 'three is named twice'],
    [{ dataset: ['seven', 'fast'] }, '"seven" has 5 Hz, "fast" 10: a chunk would last another time in each'],
    [{ dataset: ['seven', 'three'], robot: ['ur5e'] }, 'slot map "ur5e": 7 action slots, data set "three" has 3'],
    [{ dataset: ['seven', 'three'], robot: ['ur5e', 'droid', 'arx'] }, '--robot: 3 for 2 data sets'],
    [{ dataset: ['seven'], robot: ['r2d2'] }, 'no slot map of robot "r2d2"'],
  ])('what does not fit is one line: %o', async (options, words) => {
    expect(await message(choose(options))).toContain(words);
  });
});

describe('insula data', () => {
  test('shows what every field becomes, and refuses more than one place', async () => {
    const { json, lines } = await runCommand(showData, { dataset: ['seven'] }, { names: [folder] });
    expect(json).toMatchObject({
      ...{ name: 'seven', rate: 5, actionDimension: 7, stateDimension: 7, cameras: [] },
      episodes: { count: 1, steps: 6, shortest: 6, longest: 6 },
      instructions: { different: 0, changing: 0, untold: 1, examples: [] },
    });
    expect(lines.join('\n')).toMatch(/action +numbers +\[7\] +actions 0 to 6\n/);
    expect(await message(runCommand(showData, {}, { names: [] }))).toContain('name one folder or file');
  });

  test('a set without a known action is shown with the fields that a map can name', async () => {
    const place = join(folder, 'none');
    const table = { 'ep0/joints': rows(6, 7, 0) };
    await mkdir(place);
    await writeFile(join(place, 'none.safetensors'), await actionsFile(table));
    const episodes = [{ id: 'ep0', steps: 6 }];
    const datasets = { none: { control_hz: 5, actions: 'none.safetensors', episodes } };
    await writeFile(join(place, 'index.json'), JSON.stringify({ format: 1, datasets }));
    const { json, lines, status } = await runCommand(showData, {}, { names: [place] });
    expect(json).toMatchObject({ fields: [{ name: 'joints', shape: [7], use: null }, {}, {}] });
    expect(lines.join('\n')).toMatch(/joints +numbers +\[7\] +nothing: /);
    expect(lines.at(-1)).toContain(
      'no field is known to be the action; fields with numbers are joints [7]: say which with --map',
    );
    expect(status).toBe(1);
  });

  test('a map is read with the option, and one that is wrong is one line', async () => {
    const path = join(folder, 'map.json');
    const read = async (contents: string) => {
      await writeFile(path, contents);
      return readOptions('data', showData, [folder, '--dataset', 'seven', '--map', path]).values;
    };
    const values = await read('{ "action": ["state", "action"], "state": [] }');
    const { json } = await runCommand(showData, values, { names: [folder] });
    expect(json).toMatchObject({ actionDimension: 14, stateDimension: 0 });
    const wrong = (contents: string) => message(read(contents));
    expect(await wrong('{ "actions": ["state"] }')).toContain('map.json: "actions": unknown field; the keys');
    expect(await wrong('{ "action": "state" }')).toContain('map.json: "action": expected a list of fields');
    expect(await wrong('{')).toContain('map.json: not a JSON file, or cut off');
    const [given, others] = [{ map: [{ state: [] }] }, { map: null }];
    expect(differences({ settings: others }, { settings: given })).toEqual([
      '--map {"state":[]}: the run was begun without it; leave it out, or begin anew with --out',
    ]);
  });

  test('control characters of names are written out', () => {
    expect(printable('a\u001b[31m\u202eb\u009b\tc\n')).toBe('a\\u001b[31m\\u202eb\\u009b\tc\n');
    expect(html`${'a\u001b<'}`.text).toBe('a\\u001b&lt;');
    expect(quote('\u009b')).toBe('"\\u009b"');
  });
});

describe('paraphrases from a file', () => {
  const words = async (paraphrases: unknown) => {
    const path = join(folder, 'words.json');
    await writeFile(path, JSON.stringify(paraphrases));
    const notes: string[] = [];
    const progress = new Progress();
    progress.note = (line) => notes.push(line);
    const paraphrased = await readParaphrasing(path, progress);
    const { episodes } = paraphrased(syntheticDataset({ episodes: 1 }));
    return { instructions: episodes[0].instructions, notes };
  };

  test('are added to those of the data', async () => {
    const { instructions, notes } = await words({ 'put the red cube in the blue bin': ['red to blue'], other: ['x'] });
    expect(instructions).toEqual([...syntheticDataset().episodes[0].instructions, 'red to blue']);
    expect(notes).toEqual([`${join(folder, 'words.json')}: paraphrases of 1 of 2 instructions`]);
  });

  test('of other instructions are refused', async () => {
    await expect(words({ other: ['x'] })).rejects.toThrow(
      /words\.json: it has no paraphrases of any instruction of "synthetic", such as "put the red cube/,
    );
  });
});

describe('insula convert', () => {
  test('writes the first episodes as LeRobot', async () => {
    const out = join(folder, 'lerobot');
    const { json, lines } = await runCommand(convert, {
      ...{ data: [folder], dataset: ['seven'], out, type: 'ur5e', episodes: 1 },
    });
    expect(json).toEqual({ folder: out, source: 'seven', episodes: 1, steps: 6 });
    expect(lines).toEqual([`${out}: LeRobot 3.0, 1 episodes, 6 steps at 5 Hz of "seven"`]);
    const [written, read] = [await choose({ dataset: ['seven'] }), await openDataset(out)];
    expect(read.description).toContain('(ur5e)');
    expect(read.episodes[0].actions).toEqual(written.episodes[0].actions);
    expect(read.episodes[0].states).toEqual(written.episodes[0].states);
    expect(await message(runCommand(convert, { data: [folder], dataset: ['seven'], out }))).toBe(
      `${out}: a LeRobot data set is there already; choose another folder`,
    );
    expect(await message(runCommand(convert, { data: [folder] }))).toBe(
      'convert: name a folder for the data set with --out',
    );
  });

  test('writes a policy of its own sizes for LeRobot, and reads it again', async () => {
    const [checkpoint, out] = [join(folder, 'own.safetensors'), join(folder, 'own-lerobot')];
    const preset = { ...minutePreset, stateBins: 256 };
    const { policy } = await trainRun(checkpoint, { system: 'pi05', preset, steps: 1 });
    policy.model.dispose();
    const to = { checkpoint, format: 'lerobot', out };
    expect(await message(runCommand(convert, to))).toMatch(/its backbone is .* alone; --any-sizes writes it all the/);
    await runCommand(convert, { ...to, 'any-sizes': true });
    const back = join(folder, 'own-back.safetensors');
    await runCommand(convert, { checkpoint: out, rate: 10, out: back });
    const [own, again] = [await openCheckpoint(checkpoint), await openCheckpoint(back)];
    const { experts, vision, heads, kvHeads, headDimension } = own.settings.configuration;
    expect(again.settings.configuration).toMatchObject({ experts, heads, kvHeads, headDimension });
    expect(again.settings.configuration.vision!.towers).toEqual(vision!.towers);
    await own.close();
    await again.close();
  });

  test('writes a vision-language model for transformers alone', async () => {
    const out = join(folder, 'paligemma');
    const to = (format?: string) => runCommand(convert, { checkpoint: 'tiny', ...(format && { format }), out });
    expect(await message(to())).toBe('tiny: a vision-language model does not act: give --format paligemma');
    expect(await message(to('lerobot'))).toMatch(
      /^openpi and LeRobot have no such policy: its prompt and the ids of its action/,
    );
    expect(existsSync(out)).toBe(false);
    const { lines } = await to('paligemma');
    expect(lines).toEqual([`${out}: a folder for transformers, of tiny at step 8000`]);
    expect(existsSync(join(out, 'config.json'))).toBe(true);
  });
});

test('a policy of a mixture acts on one of its data sets by itself', async () => {
  const dataset = await choose({ dataset: ['seven', 'three'] });
  const checkpoint = join(folder, 'mixture.safetensors');
  const { policy } = await trainRun(checkpoint, { system: 'pi0-fast', dataset, seed: 0, steps: 1, horizon: 2 });
  policy.model.dispose();
  const notes: string[] = [];
  const progress = Object.assign(new Silent(), { note: (line: string) => notes.push(line) });
  const options = { checkpoint, data: [folder], dataset: ['three'] };
  const [mixed, alone] = [
    await runCommand(act, { ...options, dataset: ['seven', 'three'], episode: '1' }),
    await runCommand(act, options, { progress }),
  ].map(({ json }) => json as ActResult);
  expect(alone.predicted).toEqual(mixed.predicted);
  expect(alone.demonstrated).toEqual(mixed.demonstrated);
  expect(notes.filter((line) => line.includes('not what'))).toEqual([]);
  const measured = (given: object) => message(runCommand(evaluate, { ...options, ...given }));
  expect(await measured({ episodes: 2 })).toContain('--episodes: the policy was trained on data');
  expect(await measured({ execution: 'open-loop' })).toContain('--execution: the policy was trained on data');
  expect(await message(runCommand(evaluate, { checkpoint, delay: 20 }))).toContain(
    '--delay 20: a chunk of this policy has 2 actions, so that the delay is at most 1',
  );
  expect(await message(runCommand(evaluate, { checkpoint, execution: 'real-time-chunking', delay: 20 }))).toContain(
    '--execution real-time-chunking: pi0-fast does not act by a flow',
  );
  expect(await measured({ seed: 2 })).toContain('give --seed only with --record');
  expect(await message(runCommand(act, { ...options, dataset: ['fast'] }))).toContain(
    '"fast" is not one of the robots that the policy was trained on (seven, three)',
  );
});

test('a policy of a robot with slots is told which of its cameras the data lack', async () => {
  const seenBy = (cameras: string[]) => {
    const own = syntheticDataset({ episodes: 2 });
    const episodes = own.episodes.map((one) => ({
      ...one,
      cameras,
      image: (_: string, i: number) => one.image('front', i),
    }));
    return { ...own, cameras, episodes };
  };
  const dataset = seenBy(['front', 'wrist']);
  const checkpoint = join(folder, 'slots.safetensors');
  const trained = mixDatasets([{ dataset, slots: ownSlotMap(dataset) }]);
  (await trainRun(checkpoint, { dataset: trained, steps: 1 })).policy.model.dispose();
  const notes: string[] = [];
  const progress = Object.assign(new Silent(), { note: (line: string) => notes.push(line) });
  const acting = async (...cameras: string[]) => {
    const data = join(folder, `seen-by-${cameras.join('-')}`);
    await writeLeRobot(data, seenBy(cameras));
    return runCommand(act, { checkpoint, data: [data] }, { progress });
  };
  await expect(acting('side')).rejects.toThrow(
    /no camera front, wrist, which .* it has side; --map gives them other names/,
  );
  await acting('side', 'wrist');
  expect(notes.filter((line) => line.includes('masked'))).toEqual([expect.stringContaining('no camera front, which')]);
});
