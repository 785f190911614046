import { existsSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { indexedImporter } from '../../model/data/import/indexed.ts';
import { leRobot1Importer } from '../../model/data/import/lerobot-1.ts';
import { filesFolder, namesOf, openSource, readEpisodes } from './sources.ts';
import { actionsFile, expectClear, type Files, message, replacingValues, rows, text } from './synthetic.ts';

const tables: Record<string, number[][]> = {
  'ep0/action': rows(3, 2),
  'ep0/state': rows(4, 3),
  'ep1/action': rows(5, 2, 100),
  'ep1/state': rows(5, 3, 100),
  'ep1/joint_velocity': rows(5, 1),
  'ep9/action': rows(1, 2),
};
const episodes = () => [
  { id: 'ep0', steps: 4, language: ' push it ', language_alternatives: 'push it. Move it to the left. push it.' },
  { id: 'ep1', steps: 5, language: null, language_alternatives: null, lab: 'one' },
];
const index = (change: object = {}, all: object = {}) => {
  const made = { control_hz: 5, actions: 'actions/made.safetensors', images: 'images/made', episodes: episodes() };
  return text({ format: 1, datasets: { made: { ...made, ...change }, other: {} }, ...all });
};
const columns = ['episode', 'step', 'camera', 'offset', 'length'];
const items = [
  ['ep0', 2, 'front', 4, 6],
  ['ep0', 0, 'front', 0, 4],
  ['ep1', 1, 'wrist', 10, 2],
];

let actions: Uint8Array;
beforeAll(async () => {
  actions = await actionsFile(tables);
});
const files = (change: Record<string, Uint8Array | null> = {}): Files => {
  const all: Record<string, Uint8Array | null> = {
    'index.json': index(),
    'actions/made.safetensors': actions,
    'images/made.json': text({ mime: 'image/jpeg', columns, items }),
    'images/made.pack': Uint8Array.from({ length: 12 }, (_, i) => i),
    ...change,
  };
  return new Map(Object.entries(all).filter((entry): entry is [string, Uint8Array] => entry[1] !== null));
};
const open = (all: Files, name = 'made') => openSource(indexedImporter, all, name);
/** Reads the fields that are of use: an episode may lack others. */
const read = async (all: Files) => {
  const source = await open(all);
  return readEpisodes({ ...source, fields: source.fields.filter(({ use }) => use !== null) });
};

describe('the importer of data folders with index.json', () => {
  test('fields, numbers, wordings and pictures where they lie', async () => {
    const source = await open(files({ 'index.json': index({ action_names: ['x', 'y'] }) }));
    expect([source.name, source.rate, source.count]).toEqual(['made', { stated: 5 }, 2]);
    expect(namesOf(source, 'action')).toEqual(['action']);
    expect(source.fields[0]).toMatchObject({ shape: [2], names: ['x', 'y'] });
    expect(source.fields.filter(({ use }) => use === 'camera').map(({ camera }) => camera)).toEqual(['front', 'wrist']);
    const left = source.fields.flatMap(({ name, use, reason }) => (use === null ? [[name, reason]] : []));
    expect(left).toEqual([
      ['joint_velocity', 'its name says no use: --map gives it one'],
      ['ep9/action', 'a tensor of no episode of the index'],
      ['episodes/lab', 'not read from the index'],
    ]);
    const all: Record<string, unknown>[] = [];
    for await (const episode of source.episodes(0)) {
      const { id, length } = episode;
      const [language, others] = [await episode.texts('language'), await episode.texts('language_alternatives')];
      const values = [await episode.numbers('action'), await episode.numbers('state')];
      all.push({ id, length, language, others, values, front: await episode.pictures('images/front') });
    }
    expect(all).toEqual([
      {
        id: 'ep0',
        length: 3,
        language: [['push it']],
        others: [['push it', 'Move it to the left', 'push it', '']],
        // Actions that are derived from the next state are one less.
        values: [tables['ep0/action'], tables['ep0/state'].slice(0, 3)].map((own) => Float32Array.from(own.flat())),
        front: {
          kind: 'ranges',
          file: 'images/made.pack',
          starts: Float64Array.of(0, 4),
          ends: Float64Array.of(4, 10),
          steps: Uint32Array.of(0, 2),
        },
      },
      {
        id: 'ep1',
        length: 5,
        language: [['']],
        others: [['']],
        values: [tables['ep1/action'], tables['ep1/state']].map((own) => Float32Array.from(own.flat())),
        front: null,
      },
    ]);
  });

  const changed = (change: object, all: object = {}) => files({ 'index.json': index(change, all) });
  const episode = (number: number, change: object) =>
    changed({ episodes: episodes().map((own, i) => (i === number ? { ...own, ...change } : own)) });
  test.each<[string, () => Files | Promise<Files>, string]>([
    ['no JSON', () => files({ 'index.json': text('{"format": 1') }), 'folder/index.json: not a JSON file, or cut off'],
    ['a list', () => files({ 'index.json': text([]) }), 'folder/index.json: "format": missing'],
    ['another format', () => changed({}, { format: 7 }), 'folder/index.json: "format": expected 1, got 7'],
    ['no data sets', () => files({ 'index.json': text({ format: 1 }) }), '"datasets": missing'],
    ['no rate', () => changed({ control_hz: undefined }), '"control_hz": missing'],
    ['no episodes', () => changed({ episodes: [] }), '"episodes": expected a list of at least one episode, got []'],
    ['no file', () => changed({ actions: undefined }), '"actions": missing'],
    ['wrong names', () => changed({ action_names: ['x'] }), '"action_names": expected 2 texts, got ["x"]'],
    ['twice', () => episode(1, { id: 'ep0' }), 'data set "made" lists an episode twice'],
    ['no id', () => episode(1, { id: null }), '"episodes[1].id": expected string, got null'],
    ['a number', () => episode(1, { language: 3 }), '"episodes[1].language": expected string, got 3'],
    ['no steps', () => episode(0, { steps: 0 }), '"episodes[0].steps": expected at least 1, got 0'],
    ['other steps', () => episode(1, { steps: 9 }), 'episode "ep1": it has 5 actions, the index says 9 steps'],
    [
      'no actions',
      () => files({ 'actions/made.safetensors': null }),
      'folder/actions/made.safetensors: cannot open it',
    ],
    [
      'cut off',
      () => files({ 'actions/made.safetensors': actions.subarray(0, actions.length - 1) }),
      'is cut off or out of range',
    ],
    [
      'an episode without actions',
      async () => files({ 'actions/made.safetensors': await actionsFile({ 'ep0/action': rows(4, 2) }) }),
      'tensor "ep1/action" is not in the file',
    ],
    [
      'fewer states',
      async () => files({ 'actions/made.safetensors': await actionsFile({ ...tables, 'ep1/state': rows(4, 3) }) }),
      'episode "ep1": it has 5 actions and 4 rows of "state"',
    ],
    ['no list', () => files({ 'images/made.json': null }), 'folder/images/made.json: cannot open it'],
    ['no pack', () => files({ 'images/made.pack': null }), 'folder/images/made.pack: cannot open it'],
    [
      'a pack that is cut off',
      () => files({ 'images/made.pack': new Uint8Array(11) }),
      'folder/images/made.pack: cut off: it has 11 bytes, and folder/images/made.json: item 2, ["ep1",1,"wrist",10,2] ends at 12',
    ],
    [
      'an unknown episode',
      () => files({ 'images/made.json': text({ mime: 'image/jpeg', columns, items: [['ep8', 0, 'front', 0, 1]] }) }),
      'item 0, ["ep8",0,"front",0,1] is not an image of an episode of the index',
    ],
  ])('%s', async (_, make, expected) => {
    expect(await message(read(await make()))).toContain(expected);
  });

  test('an unknown data set lists those that exist', async () => {
    expect(await message(open(files(), 'robot'))).toBe('folder/index.json: no data set "robot"; there are made, other');
    expect(await message(open(files(), 'toString'))).toContain('no data set "toString"');
    const unnamed = indexedImporter.open(filesFolder(files()), { frameSize: 224 });
    expect(await message(unnamed)).toContain('which data set? Name one with --dataset: made, other');
  });

  test('with any value in the JSON files, a data set opens or is refused in one line', async () => {
    for (const name of ['index.json', 'images/made.json']) await replacingValues(files(), name, read, 200);
  });

  test('with any byte in the actions file, a data set opens or is refused in one line', async () => {
    const property = fc.asyncProperty(fc.nat(actions.length - 1), fc.nat(255), fc.nat(60), async (place, byte, cut) => {
      const damaged = actions.slice(0, actions.length - Math.max(0, cut - 40));
      damaged[place] = byte;
      await read(files({ 'actions/made.safetensors': damaged })).catch((error) => expectClear(error, 'folder/'));
    });
    await fc.assert(property, { seed: 19, numRuns: 300 });
  });
});

test('Arrow files of LeRobot 1 are named, with the way to convert them', async () => {
  const all: Files = new Map([
    ['data-00000-of-00001.arrow', text('')],
    ['dataset_info.json', text('{}')],
  ]);
  expect(await leRobot1Importer.recognises(filesFolder(all))).toBe(true);
  expect(await leRobot1Importer.recognises(filesFolder(files()))).toBe(false);
  expect(await message(openSource(leRobot1Importer, all))).toContain(
    'convert the set with convert_dataset_v1_to_v2.py',
  );
});

const shared = join(import.meta.dirname, '../../../shared/data');
const there = existsSync(shared);
describe.skipIf(!there)(`real data sets${there ? '' : ' (skipped: ../shared is not there)'}`, () => {
  test.each([
    ['bridge', 5, 7, 25, 250, 3],
    ['aloha_sim', 50, 14, 4, 1700, 1],
    ['droid', 15, 8, 100, 32112, 2],
    ['gr1_sim', 20, 44, 5, 2096, 1],
    ['g1', 30, 26, 40, 14296, 1],
    ['adroit_door', 100, 28, 25, 6729, 0],
    ['pusht', 10, 2, 1, 161, 1],
    ['umi_cup', 10, 7, 1, 399, 1],
  ])('%s', async (name, rate, width, count, steps, cameras) => {
    const source = await openSource(indexedImporter, shared, name);
    expect([source.rate.stated, namesOf(source, 'camera').length]).toEqual([rate, cameras]);
    const all = await readEpisodes(source);
    expect([all.length, all.reduce((sum, { length }) => sum + length, 0)]).toEqual([count, steps]);
    for (const { length, numbers } of all) expect(numbers.action.length).toBe(length * width);
  });
});
