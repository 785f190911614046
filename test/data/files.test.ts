import { existsSync } from 'node:fs';
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { float32, int64, list, tableFromArrays, tableToIPC } from '@uwdata/flechette';
import fc from 'fast-check';
import { zipSync } from 'fflate';
import { File, type Group, ready } from 'h5wasm/node';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { memorySource } from '../../engine/files/bytes.ts';
import { decodeImage, openDataFile, openDataset } from '../../model/data/index.ts';
import { encodeJpeg, expectClear, gradientImage, message, rows } from './synthetic.ts';

// --- Arrow

describe('Arrow', () => {
  const arrow = (change: Record<string, unknown[]> = {}) => {
    const columns = {
      action: rows(5, 2),
      'observation.state': rows(5, 3, 7),
      episode_index: [0, 0, 0, 4, 4],
      timestamp: [0, 0.1, 0.2, 0, 0.1],
      ...change,
    };
    const types = {
      action: list(float32()),
      'observation.state': list(float32()),
      episode_index: int64(),
      timestamp: float32(),
    };
    const known = Object.fromEntries(Object.entries(columns).filter(([, values]) => values.length > 0));
    return tableToIPC(tableFromArrays(known, { types }), { format: 'stream' })!;
  };
  const read = (bytes: Uint8Array) => openDataFile(memorySource(bytes, 'made.arrow'));

  test('episodes by their index', async () => {
    const dataset = await read(arrow());
    expect([dataset.name, dataset.rate, dataset.actionDimension, dataset.stateDimension]).toEqual(['made', 10, 2, 3]);
    expect(dataset.episodes.map(({ id, length }) => [id, length])).toEqual([
      ['episode_000000', 3],
      ['episode_000004', 2],
    ]);
    expect(dataset.episodes[1].actions).toEqual(Float32Array.from(rows(5, 2).slice(3).flat()));
    expect(dataset.episodes[1].states).toEqual(Float32Array.from(rows(5, 3, 7).slice(3).flat()));
  });

  test('a rate beside its own is refused', async () => {
    expect(await message(openDataFile(memorySource(arrow(), 'made.arrow'), undefined, { rate: 50 }))).toBe(
      'data set "made" says 10 Hz itself; leave --rate out',
    );
  });

  test('bad files', async () => {
    expect(await message(read(arrow({ action: [] })))).toBe(
      'made.arrow: no column "action"; there are observation.state, episode_index, timestamp',
    );
    expect(await message(read(arrow({ timestamp: [0, 0.1, 0.2, 0, 0.5] })))).toContain('episode 4 has 2 Hz, others 10');
    expect(await message(read(arrow({ timestamp: [0, 0, 0, 0, 0] })))).toContain('does not go forward in rows 0 to 2');
    expect(await message(read(arrow({ action: [[1, 2], [1], [1, 2], [1, 2], [1, 2]] })))).toContain(
      'column "action" does not hold 2 numbers in row 1',
    );
    expect(await message(read(arrow({ action: rows(5, 2).map(() => [1, Number.NaN]) })))).toContain(
      'step 0, dimension 1 is NaN',
    );
    expect(await message(read(utf8('no table')))).toContain('made.arrow: ');
  });

  test('a file with wrong counts, lengths and offsets is read, or refused in one line', async () => {
    const bytes = arrow();
    expect(await message(read(bytes.slice(0, -8)))).toContain('(cut off: the mark at its end is missing)');
    const word = fc.oneof(fc.integer(), fc.constantFrom(-(2 ** 31), -8, -4, -1, 0, 7, 2 ** 16, 2 ** 31 - 1));
    const end = fc.option(fc.nat(bytes.length), { nil: bytes.length, freq: 3 });
    await fc.assert(
      fc.asyncProperty(end, fc.nat(bytes.length - 4), word, fc.boolean(), async (end, place, value, whole) => {
        const damaged = bytes.slice(0, end);
        const view = new DataView(damaged.buffer);
        if (place + 4 > end) return;
        if (whole) view.setInt32(place - (place % 4), value, true);
        else view.setInt8(place, value);
        await read(damaged).catch((error) => expectClear(error, 'made.arrow: '));
      }),
      { seed: 8, numRuns: 1500 },
    );
  });
});

// --- npz

const utf8 = (words: string) => new TextEncoder().encode(words);
const join8 = (...parts: ArrayLike<number>[]) => Uint8Array.from(parts.flatMap((part) => Array.from(part)));

function npy(values: Float32Array | Float64Array | BigInt64Array, shape: number[], header?: string): Uint8Array {
  const type = values instanceof Float32Array ? '<f4' : values instanceof Float64Array ? '<f8' : '<i8';
  const words = header ?? `{'descr': '${type}', 'fortran_order': False, 'shape': (${shape.join(', ')},), }`;
  const line = `${words.padEnd(117)}\n`;
  return join8([0x93, 78, 85, 77, 80, 89, 1, 0, line.length, 0], utf8(line), new Uint8Array(values.buffer));
}

describe('npz', () => {
  const archive = (change: Record<string, Uint8Array> = {}) =>
    zipSync({
      'action.npy': npy(Float64Array.from(rows(5, 2).flat()), [5, 2]),
      'state.npy': npy(Float32Array.from(rows(5, 3).flat()), [5, 3]),
      'episode_ends.npy': npy(BigInt64Array.of(2n, 5n), [2]),
      ...change,
    });
  const read = (bytes: Uint8Array, rate: number | undefined = 10) =>
    openDataFile(memorySource(bytes, 'made.npz'), undefined, { rate });

  test('episodes by their ends', async () => {
    const dataset = await read(archive());
    expect(dataset.description).toBe('npz file: 2 episodes, 5 steps at 10 Hz, no cameras');
    expect(dataset.episodes[1].actions).toEqual(Float32Array.from(rows(5, 2).slice(2).flat()));
    expect(dataset.episodes[1].states).toEqual(Float32Array.from(rows(5, 3).slice(2).flat()));
  });

  test('bad files', async () => {
    const values = Float64Array.from(rows(5, 2).flat());
    expect(await message(openDataFile(memorySource(archive(), 'made.npz')))).toContain('do not say at how many Hz');
    expect(await message(read(zipSync({ 'x.npy': npy(values, [10]) })))).toContain(
      'no array "action"; there are x.npy',
    );
    expect(await message(read(archive({ 'action.npy': npy(values, [5, 3]) })))).toContain(
      'of shape [5,3] needs 120 bytes, it has 80',
    );
    expect(
      await message(
        read(
          archive({ 'action.npy': npy(values, [4, 2], "{'descr': '<c8', 'fortran_order': False, 'shape': (5, 2)}") }),
        ),
      ),
    ).toContain('holds "<c8"; <f4, <f8');
    expect(
      await message(
        read(archive({ 'action.npy': npy(values, [], "{'descr': '<f8', 'fortran_order': True, 'shape': (5, 2)}") })),
      ),
    ).toContain('Fortran order');
    expect(await message(read(archive({ 'state.npy': npy(values, [10]) })))).toContain(
      'array "state" has shape [10], 5 rows of numbers were expected',
    );
    expect(await message(read(archive({ 'action.npy': npy(values, [5, 1, 2]) })))).toContain(
      'has shape [5,1,2], 5 rows',
    );
    expect(await message(read(archive({ 'episode_ends.npy': npy(BigInt64Array.of(2n, 2n, 5n), [3]) })))).toContain(
      '"episode_ends" has 2 in place 1',
    );
    expect(await message(read(archive({ 'episode_ends.npy': npy(BigInt64Array.of(2n, 4n), [2]) })))).toContain(
      '"episode_ends" has 4 at its end',
    );
    expect(await message(read(archive().slice(0, 200)))).toContain('made.npz: cut off, or no zip archive');
    expect(await message(read(zipSync({ 'x\n\u001b[2J.npy': npy(values, [10]) })))).toContain('there are x [2J.npy');
  });

  test('no damage changes a number', async () => {
    const whole = await read(archive());
    const bytes = archive();
    await fc.assert(
      fc.asyncProperty(fc.nat(bytes.length - 1), fc.nat(255), fc.nat(60), async (place, byte, cut) => {
        const damaged = bytes.slice(0, bytes.length - Math.max(0, cut - 40));
        damaged[place] = byte;
        await read(damaged).then(
          ({ episodes }) =>
            expect(episodes.map(({ actions }) => actions)).toEqual(whole.episodes.map(({ actions }) => actions)),
          (error) => expectClear(error, 'made.npz: '),
        );
      }),
      { seed: 18, numRuns: 500 },
    );
  });
});

// --- HDF5

describe('HDF5', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'insula-hdf5-'));
    await ready;
    const jpegs = await Promise.all([0, 1, 2].map((i) => encodeJpeg(gradientImage(8 + i, 8))));
    const longest = Math.max(...jpegs.map(({ length }) => length));
    await mkdir(join(folder, 'aloha'));
    for (const e of [2, 10]) {
      const file = new File(join(folder, `aloha/episode_${e}.hdf5`), 'w');
      file.create_dataset({ name: 'action', data: Float32Array.from(rows(3, 2, e).flat()), shape: [3, 2] });
      file
        .create_group('observations')
        .create_dataset({ name: 'qpos', data: Float64Array.from(rows(3, 2).flat()), shape: [3, 2] });
      const images = file.create_group('observations/images');
      images.create_dataset({
        name: 'top',
        data: Uint8Array.from({ length: 3 * 4 * 5 * 3 }, (_, i) => i),
        shape: [3, 4, 5, 3],
      });
      const padded = new Uint8Array(3 * longest);
      for (const [i, jpeg] of jpegs.entries()) padded.set(jpeg, i * longest);
      images.create_dataset({ name: 'wrist', data: padded, shape: [3, longest] });
      file.close();
    }
    const file = new File(join(folder, 'libero.hdf5'), 'w');
    const data = file.create_group('data');
    data.create_attribute('problem_info', JSON.stringify({ language_instruction: 'open the drawer' }));
    for (const k of [10, 0]) {
      const demo = data.create_group(`demo_${k}`);
      demo.create_dataset({ name: 'actions', data: Float64Array.from(rows(2, 7, k).flat()), shape: [2, 7] });
      const obs = demo.create_group('obs');
      obs.create_dataset({ name: 'ee_states', data: Float64Array.from(rows(2, 6).flat()), shape: [2, 6] });
      obs.create_dataset({ name: 'gripper_states', data: Float64Array.of(8, 9, 8, 9), shape: [2, 2] });
      obs.create_dataset({ name: 'agentview_rgb', data: new Uint8Array(2 * 12).fill(k), shape: [2, 2, 2, 3] });
    }
    file.close();
  });
  afterAll(() => rm(folder, { recursive: true }));

  test('a folder of ACT, by number', async () => {
    const dataset = await openDataset(join(folder, 'aloha'));
    expect(dataset.description).toBe('HDF5 files of ACT (ALOHA): 2 episodes, 6 steps at 50 Hz, cameras top, wrist');
    const [first, second] = dataset.episodes;
    expect([first.id, second.id, dataset.name]).toEqual(['episode_2', 'episode_10', 'aloha']);
    expect(second.actions).toEqual(Float32Array.from(rows(3, 2, 10).flat()));
    expect(first.states).toEqual(Float32Array.from(rows(3, 2).flat()));
    const image = await second.image('top', 1);
    expect([image!.width, image!.height, image!.pixels[0]]).toEqual([5, 4, 60]);
    expect((await second.image('wrist', 2))!.width).toBe(10);
    const file = (await second.imageFile!('wrist', 2))!;
    expect(await decodeImage(file, 'image/jpeg', 'the file')).toEqual(await second.image('wrist', 2));
    expect([...file.subarray(-2)]).toEqual([0xff, 0xd9]); // without the zeros of padding
    expect([await second.imageFile!('top', 1), await second.imageFile!('side', 0)]).toEqual([null, null]);
    expect(await message(openDataset(join(folder, 'aloha'), undefined, { cameras: ['top', 'side'] }))).toBe(
      'data set "aloha" has no camera "side"; it has top, wrist',
    );
    expect(await message(openDataset(join(folder, 'aloha'), 'nonsense'))).toContain(
      'aloha: it holds one data set, "aloha", and none named "nonsense"; --dataset is for folders of several',
    );
    const mobile = new File(join(folder, 'mobile.hdf5'), 'w');
    mobile.create_dataset({ name: 'action', data: Float32Array.of(1, 2, 3, 4), shape: [2, 2] });
    mobile.create_dataset({ name: 'base_action', data: Float32Array.of(5, 6), shape: [2, 1] });
    mobile.close();
    expect([...(await openDataset(join(folder, 'mobile.hdf5'))).episodes[0].actions]).toEqual([1, 2, 5, 3, 4, 6]);
  });

  test.each(['aloha', 'libero.hdf5'])(
    'numbers beyond the memory given are read when they are needed: %s',
    async (place) => {
      const [whole, lazy] = await Promise.all(
        [{}, { memory: 0, cameras: [] }].map((o) => openDataset(join(folder, place), undefined, o)),
      );
      for (const [i, listed] of lazy.episodes.entries()) {
        expect(() => listed.actions).toThrow('on disk: load() the episode first');
        const { actions, states, length, cameras } = await listed.load!();
        const expected = whole.episodes[i];
        expect([actions, states, length, cameras]).toEqual([expected.actions, expected.states, expected.length, []]);
      }
    },
  );

  test('a file of LIBERO', async () => {
    const dataset = await openDataset(join(folder, 'libero.hdf5'), undefined, { rate: 10 });
    const [first, second] = dataset.episodes;
    expect([dataset.rate, first.id, second.id, second.instructions]).toEqual([
      10,
      'demo_0',
      'demo_10',
      ['open the drawer'],
    ]);
    expect([...first.states!.subarray(0, 8)]).toEqual([...rows(1, 6).flat(), 8, 9]);
    expect((await second.image('agentview_rgb', 0))!.pixels[3]).toBe(10);
    await copyFile(join(folder, 'libero.hdf5'), join(folder, 'untold.hdf5'));
    const untold = new File(join(folder, 'untold.hdf5'), 'a');
    const untoldData = untold.get('data') as Group;
    untoldData.delete_attribute('problem_info');
    untoldData.create_attribute('problem_info', JSON.stringify({ language_instruction: ' ' }));
    untold.close();
    expect((await openDataset(join(folder, 'untold.hdf5'))).episodes[0].instructions).toEqual([]);
    await mkdir(join(folder, 'tasks'));
    for (const task of ['close', 'open'])
      await copyFile(join(folder, 'libero.hdf5'), join(folder, `tasks/${task}.hdf5`));
    const { episodes } = await openDataset(join(folder, 'tasks'));
    expect(episodes.map(({ id }) => id)).toEqual(['close/demo_0', 'close/demo_10', 'open/demo_0', 'open/demo_10']);
  });

  test('the message about a folder depends on its files', async () => {
    const place = join(folder, 'place');
    const holding = async (...paths: string[]) => {
      await rm(place, { recursive: true, force: true });
      for (const path of paths) {
        await mkdir(dirname(join(place, path)), { recursive: true });
        await writeFile(join(place, path), '');
      }
      return message(openDataset(place));
    };
    expect(await holding('refs/main', 'snapshots/1/meta/info.json')).toContain(
      "name the folder inside its 'snapshots'",
    );
    expect(await holding('info.json', 'episode_000000.parquet')).toContain(
      'name the folder that holds meta/ and data/',
    );
    expect(await holding('a.arrow', 'b.arrow')).toContain('several data sets are here');
    expect(await holding('data-00000-of-00002.arrow', 'data-00001-of-00002.arrow', 'dataset_info.json')).toContain(
      'the data set lies in several Arrow files',
    );
    expect(await holding('data-00000-of-00001.arrow', 'dataset_info.json', 'state.json')).toContain('.arrow: ');
    expect(await holding('a.npz')).toContain('a.npz: ');
    expect(await holding('a.txt')).toContain('no known data set lies here');
    expect(await message(openDataset('~/none'))).toContain('~/none: there is no such file or folder: "~"');
  });

  test('bad files', async () => {
    const cut = join(folder, 'cut.h5');
    await writeFile(cut, (await readFile(join(folder, 'libero.hdf5'))).subarray(0, 2000));
    expect(await message(openDataset(cut))).toMatch(/cut\.h5: cannot be opened, is damaged, or no HDF5 file \(.+\)$/);
    expect(await message(openDataset(join(folder, 'none.h5')))).toContain('none.h5: there is no such file or folder');
    const file = new File(join(folder, 'other.h5'), 'w');
    file.create_dataset({ name: 'action', data: Float32Array.of(1, Number.NaN), shape: [2, 1] });
    file.close();
    expect(await message(openDataset(join(folder, 'other.h5')))).toContain('actions, step 1, dimension 0 is NaN');
  });
});

// --- files of other programs

const original = join(import.meta.dirname, '../../../shared/data/original');
const there = existsSync(original);
describe.skipIf(!there)(`files of other programs${there ? '' : ' (skipped: ../shared is not there)'}`, () => {
  test('Bridge, as TensorFlow wrote it', async () => {
    const dataset = await openDataset(join(original, 'bridge_debug_tfrecord'));
    const own = await openDataset(join(original, '..'), 'bridge');
    expect([dataset.rate, dataset.episodes.length]).toEqual([5, 25]);
    for (const [i, episode] of dataset.episodes.entries()) {
      expect(episode.actions).toEqual(own.episodes[i].actions);
      expect(episode.states).toEqual(own.episodes[i].states);
      expect(episode.instructions).toEqual(own.episodes[i].instructions);
    }
    expect(await dataset.episodes[3].image('image_1', 5)).toEqual(await own.episodes[3].image('image_1', 5));
    expect(await message(openDataset(join(original, 'bridge_debug_tfrecord'), 'test'))).toContain(
      'no split "test"; there are "train", "val"',
    );
  });

  test('PushT and ALOHA, as Hugging Face wrote them', async () => {
    const pusht = await openDataset(join(original, 'pusht_arrow/pusht_image.arrow'));
    const own = await openDataset(join(original, '..'), 'pusht');
    expect(pusht.episodes[0].actions).toEqual(own.episodes[0].actions);
    expect(await pusht.episodes[0].image('image', 9)).toEqual(await own.episodes[0].image('top', 9));
    expect(await pusht.episodes[0].imageFile!('image', 9)).toEqual(await own.episodes[0].imageFile!('top', 9));
    const aloha = await openDataset(join(original, 'aloha_sim_arrow/aloha_sim_insertion_human.arrow'));
    expect(aloha.description).toMatch(
      /\(top left out: video is not read from Arrow files\): 1 episodes, 500 steps at 50 Hz/,
    );
  });
});
