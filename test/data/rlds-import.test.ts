import { existsSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { gzipSync, zlibSync } from 'fflate';
import { describe, expect, test } from 'vitest';
import { crc32c } from '../../engine/files/checksum.ts';
import { rldsImporter } from '../../model/data/import/rlds.ts';
import { masked } from '../../model/data/import/tfrecord.ts';
import { openDataset } from '../../model/data/index.ts';
import { filesFolder, namesOf, openSource, readEpisodes } from './sources.ts';
import {
  encodeJpeg,
  expectClear,
  type Files,
  folderOf,
  gradientImage,
  message,
  replacingValues,
  rows,
  text,
} from './synthetic.ts';
import {
  byteList,
  datasetInfo,
  example,
  floats,
  integers,
  join8,
  shard,
  texts,
  utf8,
  writeRecord,
} from './tfrecord-files.ts';

const first = 'made-train.tfrecord-00000-of-00002';
const second = 'made-train.tfrecord-00001-of-00002';
const jpeg = (...rest: number[]) => Uint8Array.of(0xff, 0xd8, 0xff, ...rest);
/** The head of a PNG file of a bit depth and a type of colour (0 grey, 2 RGB). */
const png = (depth: number, colour: number) =>
  join8([0x89], utf8('PNG\r\n\u001a\n'), new Uint8Array(16), [depth, colour, 0, 0, 0]);

const steps = (e: number, packed = true): Record<string, Uint8Array> => ({
  'steps/action': floats(rows(3, 2, 10 * e).flat(), packed),
  'steps/is_first': integers([1, 0, 0], packed),
  'steps/observation/state': floats(rows(3, 4, e).flat()),
  'steps/observation/count': integers([-1, 2 ** 40 + e, -(2 ** 52)], packed),
  'steps/observation/images/top': byteList([jpeg(1), jpeg(2, e), jpeg(3)]),
  'steps/observation/wrist.left': byteList([utf8(''), png(8, 2), utf8('')]),
  'steps/observation/far': byteList([png(16, 0), png(16, 0), png(16, 0)]),
  'steps/observation/depth_map': byteList([png(8, 0), png(8, 0), png(8, 0)]),
  'steps/observation/mask': byteList([Uint8Array.of(0, 255), Uint8Array.of(1), Uint8Array.of(2)]),
  'steps/observation/natural_language_instruction': texts('a', 'b', 'c'),
  'steps/language_embedding': floats(rows(3, 5).flat()),
  'steps/language_instruction': texts('reach', 'reach', `grasp ${e}`),
  'steps/language_instruction_2': texts('', '', ''),
  'steps/reward': floats([0, 0, 1]),
  'episode_metadata/file.path': texts('x'.repeat(9000)),
  'episode_metadata/episode_id': integers([e]),
});
const files = (): Files =>
  new Map([
    ['dataset_info.json', datasetInfo(['2', '1'])],
    [first, shard(steps(0), steps(1, false))],
    [second, shard(steps(2))],
    ['statistics.json', text('{}')],
  ]);
const open = (all: Files, name?: string) => openSource(rldsImporter, all, name);
const read = async (all: Files) => readEpisodes(await open(all));
/** The files with other features in the first episode; an absent one is left out. */
const changed = (change: Record<string, Uint8Array | undefined>) => {
  const all = Object.entries({ ...steps(0), ...change }).filter((entry): entry is [string, Uint8Array] => !!entry[1]);
  return files().set(first, shard(Object.fromEntries(all), steps(1)));
};

describe('the importer of RLDS', () => {
  test('a camera or a text that episodes or steps lack is said', async () => {
    const notes: string[] = [];
    const all = changed({
      'steps/observation/images/top': byteList([]),
      'steps/language_instruction': texts('', '', ''),
    });
    const options = { frameSize: 224, note: (line: string) => notes.push(line) };
    const source = await rldsImporter.open(filesFolder(all), options);
    for await (const { length } of source.episodes(0)) expect(length).toBe(3);
    expect(notes).toEqual([
      'steps/language_instruction: 2 of 3 episodes have it',
      'steps/observation/images/top: 2 of 3 episodes have it',
      'steps/observation/wrist.left: 6 of 9 steps have no picture of their own',
    ]);
  });

  test('every feature is a field with a use or a reason', async () => {
    const source = await open(files());
    expect([source.kind, source.name, source.rate.usual, source.count]).toEqual([
      'RLDS data set, split train',
      'made',
      undefined,
      3,
    ]);
    expect(source.fields.map(({ name }) => name)).toEqual([...Object.keys(steps(0)).sort(), 'statistics.json']);
    expect(namesOf(source, 'action')).toEqual(['steps/action']);
    expect(namesOf(source, 'state')).toEqual(['steps/observation/state']);
    expect(namesOf(source, 'camera')).toEqual(['steps/observation/images/top', 'steps/observation/wrist.left']);
    expect(namesOf(source, 'language')).toEqual(['steps/language_instruction']);
    expect(source.fields.filter(({ use, reason }) => use === null && !reason)).toEqual([]);
    const of = (name: string) => source.fields.find((field) => field.name.endsWith(name))!;
    expect(of('action').shape).toEqual([2]);
    expect([of('far').kind, of('depth_map').kind, of('mask').kind]).toEqual(['depth', 'depth', 'other']);
    expect(of('mask').reason).toBe('bytes that are neither a picture nor text');
    expect(of('embedding').reason).toBe('an embedding, not the words themselves');
    expect(of('natural_language_instruction').reason).toBe('steps/language_instruction is taken as the language');
    expect(of('language_instruction_2').reason).toBe('it is empty, or missing, in every episode');
  });

  test('values, packed or not, texts by step, and pictures where they lie', async () => {
    const all = files();
    const episodes = await read(all);
    expect(episodes.map(({ id, length }) => [id, length])).toEqual([0, 1, 2].map((e) => [`train_${e}`, 3]));
    expect(episodes[2].where).toBe(`folder/${second}, record 0`);
    for (const [e, { numbers, texts, pictures }] of episodes.entries()) {
      expect(numbers['steps/action']).toEqual(Float32Array.from(rows(3, 2, 10 * e).flat()));
      expect(numbers['steps/observation/state']).toEqual(Float32Array.from(rows(3, 4, e).flat()));
      expect(numbers['steps/observation/count']).toEqual(Float64Array.of(-1, 2 ** 40 + e, -(2 ** 52)));
      expect(numbers['episode_metadata/episode_id']).toEqual(Float64Array.of(e, e, e));
      expect(texts['steps/language_instruction']).toEqual([['reach'], ['reach'], [`grasp ${e}`]]);
      expect(texts['episode_metadata/file.path']).toEqual([['x'.repeat(9000)]]);
      const top = pictures['steps/observation/images/top']!;
      if (top.kind !== 'ranges') throw new Error(`pictures are ${top.kind}`);
      const bytes = Array.from(top.starts, (start, i) => all.get(top.file)!.subarray(start, top.ends[i]));
      expect([bytes, top.steps]).toEqual([[jpeg(1), jpeg(2, e), jpeg(3)], undefined]);
      expect(pictures['steps/observation/wrist.left']!.steps).toEqual(Uint32Array.of(1));
    }
    expect((await readEpisodes(await open(all), 2)).map(({ id }) => id)).toEqual(['train_2']);
  });

  test('a state of two arms, and of DROID; an action that is a dictionary', async () => {
    const { 'steps/observation/state': state, 'steps/action': action, ...rest } = steps(0);
    const uses = async (features: Record<string, Uint8Array>) => {
      const all = files().set('dataset_info.json', datasetInfo(['1']));
      return open(all.set('made-train.tfrecord-00000-of-00001', shard({ ...rest, ...features })));
    };
    const arms = await uses({ 'steps/observation/state/left': state, 'steps/observation/state/right': state });
    expect(namesOf(arms, 'state')).toEqual(['steps/observation/state/left', 'steps/observation/state/right']);
    const droid = { 'steps/observation/gripper_position': state, 'steps/observation/joint_position': state };
    expect(namesOf(await uses(droid), 'state')).toEqual(Object.keys(droid).reverse());
    const dictionary = await uses({ 'steps/action/world_vector': action, 'steps/action/gripper': action });
    expect(namesOf(dictionary, 'action')).toEqual([]);
    expect(dictionary.fields.find(({ name }) => name === 'steps/action/gripper')).toMatchObject({
      kind: 'numbers',
      use: null,
      reason: 'a part of an action that is a dictionary: choose the parts and their order with --map',
    });
  });

  test('features.json says what values alone do not', async () => {
    const tensor = (dtype: string, encoding = 'none', ...dimensions: string[]) => ({
      tensor: { dtype, encoding, shape: dimensions.length > 0 ? { dimensions } : {} },
    });
    const dictionary = (features: object) => ({ featuresDict: { features } });
    const observation = dictionary({
      state: tensor('float32', 'none', '4'),
      mask: tensor('float32', 'zlib', '2', '2'),
      images: dictionary({
        top: { image: { dtype: 'uint8', encodingFormat: 'jpeg', shape: { dimensions: ['8', '16', '3'] } } },
      }),
      'wrist.left': { image: { dtype: 'float32', shape: {} } },
    });
    const own = {
      observation,
      action: tensor('float32', 'none', '2'),
      is_first: tensor('bool'),
      late: tensor('int32'),
    };
    const features = (change: object) => text(dictionary({ steps: { sequence: { feature: dictionary(change) } } }));
    const all = files().set('features.json', features(own));
    const source = await open(all);
    const of = (name: string) => source.fields.find((field) => field.name.endsWith(name))!;
    expect(of('top')).toMatchObject({ kind: 'pictures', shape: [8, 16, 3] });
    expect([of('wrist.left').kind, of('mask').reason]).toEqual(['depth', 'numbers (float32) packed as bytes']);
    expect(of('late').reason).toBe('it is empty, or missing, in every episode');
    all.set('features.json', features({ ...own, action: tensor('float32', 'none', '7') }));
    expect(await message(read(all))).toBe(
      `folder/${first}, record 0: episode train_0: feature "steps/action" has 6 values, which do not fit its 3 steps of shape [7]`,
    );
    await replacingValues(all.set('features.json', features(own)), 'features.json', read, 100);
  });

  test('a feature that some episodes lack, or only some have', async () => {
    const all = changed({ 'steps/language_instruction': undefined, 'steps/observation/images/top': undefined });
    const source = await open(all);
    const names = ['steps/language_instruction', 'steps/observation/images/top'];
    const [own, next] = await readEpisodes(source);
    expect([own.texts[names[0]], own.pictures[names[1]]]).toEqual([[[]], null]);
    expect(next.texts[names[0]].length).toBe(3);
    expect(await message(read(changed({ 'steps/observation/state': undefined })))).toBe(
      `folder/${first}, record 0: episode train_0: it has no feature "steps/observation/state", which other episodes have`,
    );
    const { 'steps/language_instruction_2': _, ...full } = steps(0);
    const late = files().set('dataset_info.json', datasetInfo(['2']));
    late.set('made-train.tfrecord-00000-of-00001', shard(full, { ...full, 'steps/late': floats([1, 2, 3]) }));
    expect(await message(read(late))).toContain(
      'train_1: it has a feature "steps/late", which the first episode has not',
    );
  });

  test('steps are counted without marks, too', async () => {
    const all = (features: Record<string, Uint8Array>) =>
      new Map([
        ['dataset_info.json', datasetInfo(['1'])],
        ['made-train.tfrecord-00000-of-00001', shard(features)],
      ]);
    const { 'steps/is_first': _, ...rest } = steps(0);
    expect((await read(all(rest)))[0].length).toBe(3);
    expect(await message(open(all({ 'steps/action': floats([1, 2]) })))).toContain(
      'no feature of it says its steps, such as steps/is_first, steps/is_last, steps/is_terminal',
    );
  });

  const withInfo = (shardLengths: unknown, change: object = {}) =>
    files().set('dataset_info.json', datasetInfo(shardLengths as string[], change));
  const without = (path: string) => {
    const all = files();
    all.delete(path);
    return all;
  };
  test.each<[string, Files, string]>([
    ['no split', withInfo([], { splits: [] }), 'folder/dataset_info.json: no split "train"; there are '],
    ['a path outside', withInfo(['1'], { name: '../made' }), 'is not read here'],
    [
      'another format',
      withInfo(['1'], { fileFormat: 'array_record' }),
      'of the format "array_record", and only "tfrecord"',
    ],
    ['a shard missing', without(second), `${second}: cannot open it`],
    ['other counts', withInfo(['3', '1']), `folder/${first}: 2 records, dataset_info.json says 3`],
    [
      'cut off',
      files().set(first, shard(steps(0)).slice(0, -5)),
      `folder/${first}: record 0 has 10000 bytes: cut off, 9999 of it`,
    ],
    ['gzip', files().set(first, gzipSync(shard(steps(0)))), `folder/${first}: it is compressed (gzip)`],
    ['zlib', files().set(first, zlibSync(shard(steps(0)))), `folder/${first}: it is compressed (zlib)`],
    ['no TFRecord', files().set(first, utf8('no such file at all')), 'record 0 at byte 0: damaged, or not a TFRecord'],
    ['no steps', changed({ 'steps/is_first': integers([]) }), 'episode train_0: no feature of it says its steps'],
    [
      'uneven',
      changed({ 'steps/action': floats([1, 2]) }),
      '"steps/action" has 2 values, which do not fit its 3 steps',
    ],
    ['texts', changed({ 'steps/language_instruction': texts('a') }), 'has 1 value, which do not fit its 3 steps'],
    ['another kind', changed({ 'steps/action': texts('a', 'b', 'c') }), 'holds numbers, bytes were expected'],
    [
      'no UTF-8',
      changed({ 'steps/language_instruction': byteList([utf8('a'), utf8('a'), Uint8Array.of(255)]) }),
      '"steps/language_instruction", value 2 is not text in UTF-8',
    ],
  ])('%s', async (_, all, expected) => {
    expect(await message(read(all))).toContain(expected);
  });

  test('with any value in dataset_info.json, a data set opens or is refused in one line', async () => {
    await replacingValues(files(), 'dataset_info.json', read, 200);
  });

  test('the checksum of the format', () => {
    expect(crc32c(utf8('123456789'))).toBe(0xe3069283);
    expect(masked(0xe3069283)).toBe((((0xe3069283 >>> 15) | (0xe3069283 << 17)) + 0xa282ead8) >>> 0);
  });

  test('the store decodes the pictures and trims the instructions', async () => {
    const jpegs = await Promise.all([8, 16, 24].map((width) => encodeJpeg(gradientImage(width, 8))));
    const one = { 'steps/observation/images/top': byteList(jpegs), 'steps/language_instruction': texts('a ', ' ', '') };
    const dataset = await openDataset(folderOf(changed(one)), undefined, { rate: 5 });
    expect(dataset.description).toBe(
      'RLDS data set, split train: 3 episodes, 9 steps at 5 Hz, cameras top, wrist.left',
    );
    const [episode] = dataset.episodes;
    expect([episode.instructions, episode.actions]).toEqual([['a'], Float32Array.from(rows(3, 2).flat())]);
    const widths = await Promise.all([0, 1, 7].map(async (step) => (await episode.image('top', step))!.width));
    expect(widths).toEqual([8, 16, 24]);
  });

  test('no damage changes a value', async () => {
    const all = files();
    const whole = await read(all);
    const bytes = all.get(first)!;
    const property = fc.asyncProperty(fc.nat(bytes.length - 1), fc.nat(255), fc.nat(60), async (place, byte, cut) => {
      const damaged = bytes.slice(0, bytes.length - Math.max(0, cut - 40));
      damaged[place] = byte;
      await read(new Map(all).set(first, damaged)).then(
        (episodes) => expect(episodes).toEqual(whole),
        (error) => expectClear(error, `folder/${first}`),
      );
    });
    await fc.assert(property, { seed: 6, numRuns: 200 });
  });

  test('a record with any bytes and a right checksum is read, or refused in one line', async () => {
    const { 'episode_metadata/file.path': _, ...features } = steps(0);
    const body = example(features);
    const whole = files();
    const property = fc.asyncProperty(fc.nat(body.length - 1), fc.nat(255), async (place, byte) => {
      const damaged = body.slice();
      damaged[place] = byte;
      await read(new Map(whole).set(second, writeRecord(damaged))).catch((error) => expectClear(error, 'folder/'));
    });
    await fc.assert(property, { seed: 7, numRuns: 200 });
  });
});

const shared = join(import.meta.dirname, '../../../shared');
const there = existsSync(shared);
describe.skipIf(!there)(`RLDS of other programs${there ? '' : ' (skipped: ../shared is not there)'}`, () => {
  test('cases of public bug reports', async () => {
    const read = async (name: string) => {
      const source = await openSource(rldsImporter, join(shared, 'cases', name));
      return { source, episodes: await readEpisodes(source) };
    };
    const droid = await read('50-rlds-droid-three-languages');
    const words = namesOf(droid.source, 'language').map((name) => droid.episodes[0].texts[name][0][0]);
    expect(words).toEqual(['put the cup away', 'store the cup']);
    const changing = await read('55-rlds-lang-changes');
    const [language] = namesOf(changing.source, 'language');
    expect(changing.episodes[0].texts[language].map(([own]) => own)).toEqual([
      'reach',
      'reach',
      'reach',
      'grasp',
      'grasp',
    ]);
    const nested = await read('59-rlds-nested-obs');
    expect(namesOf(nested.source, 'camera')).toEqual(['steps/observation/images/top']);
    expect(nested.episodes[0].pictures['steps/observation/images/top']!.kind).toBe('ranges');
  });

  test('Bridge, as TensorFlow wrote it', async () => {
    const source = await openSource(rldsImporter, join(shared, 'data/original/bridge_debug_tfrecord'));
    expect([source.rate.usual, source.count, namesOf(source, 'camera').length]).toEqual([5, 25, 4]);
    expect(source.fields.at(-1)).toMatchObject({ name: 'split val', use: null });
    const episodes = await readEpisodes(source);
    expect(episodes.length).toBe(25);
    expect(new Set(episodes.map(({ numbers }) => numbers['steps/action'].length))).toEqual(new Set([70]));
    const other = openSource(rldsImporter, join(shared, 'data/original/bridge_debug_tfrecord'), 'test');
    expect(await message(other)).toContain('no split "test"; there are "train", "val"');
  });
});
