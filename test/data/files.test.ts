import { existsSync } from 'node:fs';
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { File, type Group, ready } from 'h5wasm/node';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { decodeImage, openDataset } from '../../model/data/index.ts';
import { encodeJpeg, gradientImage, message, rows } from './synthetic.ts';

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
    expect(await holding('a.arrow', 'dataset_info.json')).toContain('Arrow files such as a.arrow, of LeRobot 1');
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
    expect(await message(openDataset(join(folder, 'other.h5')))).toContain('"action", step 1, dimension 0 is NaN');
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
});
