import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { memorySource } from '../../engine/files/bytes.ts';
import { InputError } from '../../engine/files/errors.ts';
import { crc32c } from '../../model/data/checksum.ts';
import { checkRecord, ExampleReader, masked, readRecords } from '../../model/data/import/tfrecord.ts';
import { loadEpisode, openDataset } from '../../model/data/index.ts';
import { encodeJpeg, type Files, folderOf, gradientImage, message, replacingValues, rows, text } from './synthetic.ts';

const join8 = (...parts: ArrayLike<number>[]) => Uint8Array.from(parts.flatMap((part) => Array.from(part)));
function varint(value: number): number[] {
  return value < 128 ? [value] : [(value % 128) + 128, ...varint(Math.floor(value / 128))];
}
const field = (number: number, body: ArrayLike<number>) => join8([number * 8 + 2], varint(body.length), body);
const utf8 = (words: string) => new TextEncoder().encode(words);
const floats = (values: number[], packed = true) => {
  const bytes = new Uint8Array(Float32Array.from(values).buffer);
  if (packed) return field(2, field(1, bytes));
  return field(2, join8(...values.map((_, i) => join8([13], bytes.subarray(4 * i, 4 * i + 4)))));
};
const integers = (values: number[]) => field(3, field(1, values.flatMap(varint)));
const byteList = (values: Uint8Array[]) => field(1, join8(...values.map((value) => field(1, value))));
const example = (features: Record<string, Uint8Array>) =>
  field(
    1,
    join8(...Object.entries(features).map(([key, value]) => field(1, join8(field(1, utf8(key)), field(2, value))))),
  );
function writeRecord(body: Uint8Array): Uint8Array {
  const head = new DataView(new ArrayBuffer(12));
  head.setBigUint64(0, BigInt(body.length), true);
  head.setUint32(8, masked(crc32c(new Uint8Array(head.buffer, 0, 8))), true);
  const tail = new DataView(new ArrayBuffer(4));
  tail.setUint32(0, masked(crc32c(body)), true);
  return join8(new Uint8Array(head.buffer), body, new Uint8Array(tail.buffer));
}

describe('RLDS', () => {
  let jpegs: Uint8Array[];
  beforeAll(async () => {
    jpegs = await Promise.all([8, 16, 24].map((width) => encodeJpeg(gradientImage(width, 8))));
  });
  const steps = (e: number, packed = true): Record<string, Uint8Array> => ({
    'steps/action': floats(rows(3, 2, 10 * e).flat(), packed),
    'steps/observation/state': floats(rows(3, 4, e).flat()),
    'steps/observation/image': byteList(jpegs),
    'steps/observation/words': byteList([utf8('no image'), utf8(''), utf8('')]),
    'steps/is_first': integers([1, 0, 0]),
    'steps/language_instruction': byteList([utf8('push it'), utf8('push it'), utf8(`task ${e} `)]),
    'episode_metadata/file_path': byteList([utf8('x'.repeat(9000))]),
  });
  const info = (change: object = {}, split: object = {}) =>
    text({
      name: 'made',
      fileFormat: 'tfrecord',
      splits: [
        {
          name: 'train',
          filepathTemplate: '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}',
          shardLengths: ['2', '1'],
          ...split,
        },
      ],
      ...change,
    });
  const first = 'made-train.tfrecord-00000-of-00002';
  const files = (): Files =>
    new Map([
      ['dataset_info.json', info()],
      [first, join8(writeRecord(example(steps(0))), writeRecord(example(steps(1, false))))],
      ['made-train.tfrecord-00001-of-00002', writeRecord(example(steps(2)))],
    ]);
  const open = (all: Files, name?: string, options = {}) => openDataset(folderOf(all), name, { rate: 5, ...options });

  test('numbers, packed or not, instructions and images', async () => {
    const dataset = await open(files());
    expect(dataset.description).toBe('RLDS data set, split train: 3 episodes, 9 steps at 5 Hz, cameras image');
    expect([dataset.name, dataset.actionDimension, dataset.stateDimension]).toEqual(['made', 2, 4]);
    for (const [e, episode] of dataset.episodes.entries()) {
      expect(episode.actions).toEqual(Float32Array.from(rows(3, 2, 10 * e).flat()));
      expect(episode.states).toEqual(Float32Array.from(rows(3, 4, e).flat()));
      expect(episode.instructions).toEqual(['push it', `task ${e}`]);
      expect(await Promise.all([0, 2, 7].map(async (step) => (await episode.image('image', step))!.width))).toEqual([
        8, 24, 24,
      ]);
      expect(await episode.imageFile!('image', 1)).toEqual(jpegs[1]);
      expect([await episode.image('image', -1), await episode.image('other', 0)]).toEqual([null, null]);
    }
    expect((await open(files(), 'made')).name).toBe('made');
    expect((await open(files(), undefined, { cameras: [] })).cameras).toEqual([]);
  });

  test('an instruction that is empty, or only white space, is none', async () => {
    const untold = { ...steps(0), 'steps/language_instruction': byteList([utf8(''), utf8(' '), utf8('\n')]) };
    const { 'steps/language_instruction': _, ...without } = steps(1);
    const all = files().set(first, join8(writeRecord(example(untold)), writeRecord(example(without))));
    const { episodes } = await open(all);
    expect(episodes.map(({ instructions }) => instructions)).toEqual([[], [], ['push it', 'task 2']]);
  });

  test('numbers beyond the memory allowed are loaded episode by episode', async () => {
    const { episodes } = await open(files(), undefined, { memory: 80 });
    expect(episodes.map(({ load }) => load !== undefined)).toEqual([true, true, true]);
    expect(() => episodes[1].actions).toThrow('"train_1" are on disk');
    const loaded = await loadEpisode(episodes[2]);
    expect(loaded.actions).toEqual(Float32Array.from(rows(3, 2, 20).flat()));
    expect((await loaded.image('image', 1))!.width).toBe(16);
  });

  test.each<[string, (all: Files) => unknown, string, object?]>([
    [
      'no rate',
      () => {},
      'folder: its files (RLDS data set, split train) do not say at how many Hz they were recorded',
      { rate: undefined },
    ],
    ['no split', (f) => f.set('dataset_info.json', info({ splits: [] })), 'no split "train"; there are '],
    ['a path outside', (f) => f.set('dataset_info.json', info({ name: '../made' })), 'is not read here'],
    [
      'a shard missing',
      (f) => f.delete('made-train.tfrecord-00001-of-00002'),
      'made-train.tfrecord-00001-of-00002: cannot open it',
    ],
    [
      'other counts',
      (f) => f.set('dataset_info.json', info({}, { shardLengths: ['3', '1'] })),
      '2 records, dataset_info.json says 3',
    ],
    ['cut off', (f) => f.set(first, f.get(first)!.slice(0, -5)), `${first}: cut off: record 1 has`],
    [
      'a damaged length',
      (f) => f.get(first)!.fill(9, 3, 4),
      `${first}: record 0 at byte 0: damaged, or not a TFRecord file`,
    ],
    ['a camera that is not there', () => {}, 'has no camera "side"; it has image', { cameras: ['side'] }],
    [
      'no action',
      (f) =>
        f.set(first, join8(writeRecord(example({ 'steps/is_first': integers([1]) })), writeRecord(example(steps(1))))),
      'no feature "steps/action", which other episodes have',
    ],
    [
      'uneven actions',
      (f) =>
        f.set(
          first,
          join8(writeRecord(example({ ...steps(0), 'steps/action': floats([1, 2]) })), writeRecord(example(steps(1)))),
        ),
      'feature "steps/action" has 2 values, which do not fit its 3 steps',
    ],
    [
      'NaN',
      (f) =>
        f.set(
          first,
          join8(
            writeRecord(example({ ...steps(0), 'steps/action': floats([1, 2, Number.NaN]) })),
            writeRecord(example(steps(1))),
          ),
        ),
      'episode "train_0": "steps/action", step 2, dimension 0 is NaN',
    ],
    [
      'another kind',
      (f) =>
        f.set(
          first,
          join8(
            writeRecord(example({ ...steps(0), 'steps/action': integers([1, 2, 3]) })),
            writeRecord(example(steps(1))),
          ),
        ),
      'episode "train_1": "steps/action" has 2 numbers a step, in the episodes before it 1',
    ],
    [
      'other dimensions',
      (f) =>
        f.set(
          first,
          join8(
            writeRecord(example({ ...steps(0), 'steps/action': floats([1, 2, 3]) })),
            writeRecord(example(steps(1))),
          ),
        ),
      'episode "train_1": "steps/action" has 2 numbers a step, in the episodes before it 1',
    ],
  ])('%s', async (_, change, expected, options = {}) => {
    const all = files();
    change(all);
    expect(await message(open(all, undefined, options))).toContain(expected);
  });

  test('damage is found when the set is opened', async () => {
    const all = files();
    const damaged = all.get(first)!.slice();
    damaged[Math.floor(damaged.length / 4)] ^= 1;
    all.set(first, damaged);
    const complaint = `folder/${first}: the record at byte 0 is damaged (checksum): fetch the file again`;
    expect(await message(open(all))).toBe(complaint);
  });

  test('with any value in dataset_info.json, a data set opens or is refused in one line', async () => {
    await replacingValues(files(), 'dataset_info.json', open, 200);
  });

  test('the checksum of the format, and damaged records', async () => {
    expect(crc32c(utf8('123456789'))).toBe(0xe3069283);
    expect(masked(0xe3069283)).toBe((((0xe3069283 >>> 15) | (0xe3069283 << 17)) + 0xa282ead8) >>> 0);
    const whole = join8(writeRecord(example(steps(0))));
    const [record] = await readRecords(memorySource(whole, 'a.tfrecord'));
    await checkRecord(memorySource(whole, 'a.tfrecord'), record);
    await fc.assert(
      fc.asyncProperty(fc.nat(whole.length - 13), fc.nat(255), fc.nat(600), async (place, byte, second) => {
        const damaged = whole.slice();
        damaged[12 + place] = byte;
        damaged[12 + (second % (whole.length - 13))] ^= 65;
        const source = memorySource(damaged, 'a.tfrecord');
        if (!damaged.every((own, i) => own === whole[i]))
          expect(await message(checkRecord(source, record))).toBe(
            'a.tfrecord: the record at byte 0 is damaged (checksum): fetch the file again',
          );
        // A faulty program may write this with a right checksum.
        await new ExampleReader(source, record).features().catch((error) => expect(error).toBeInstanceOf(InputError));
      }),
      { seed: 6, numRuns: 300 },
    );
  });
});
