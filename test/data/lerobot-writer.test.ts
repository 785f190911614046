import { encode as encodePng } from 'fast-png';
import { describe, expect, test } from 'vitest';
import type { Dataset, Episode, Image } from '../../model/data/dataset.ts';
import { decodeImage, ImageCache } from '../../model/data/image-files.ts';
import { imageTypeOf } from '../../model/data/image-header.ts';
import { ParquetFile } from '../../model/data/import/parquet.ts';
import { instructionsAt, openDataset } from '../../model/data/index.ts';
import { leRobotFiles } from '../../model/data/lerobot/writer.ts';
import { filesOf, jsonOf, source } from './lerobot-files.ts';
import { encodeJpeg, type Files, folderOf, gradientImage, message } from './synthetic.ts';

const DATA = 'data/chunk-000/file-000.parquet';

/** Counts the occurrences of some bytes in others. */
function occurrences(bytes: Uint8Array, part: ArrayLike<number>): number {
  return (
    Buffer.from(bytes)
      .toString('latin1')
      .split(Buffer.from(Uint8Array.from(part)).toString('latin1')).length - 1
  );
}

/** Makes `source()` with a camera "top" that has a new frame every three steps; `images` supplies pixels or files. */
function slowCamera(images: (cache: ImageCache, frame: (step: number) => number) => Partial<Episode>): Dataset {
  const { episodes, ...rest } = source();
  const cache = new ImageCache(2 ** 20);
  const slow = episodes.map((episode, e) => {
    const shown = images(cache, (step) => 10 * e + Math.floor(Math.min(step, episode.length - 1) / 3));
    return { ...episode, cameras: ['top'], ...shown };
  });
  return { ...rest, cameras: ['top'], episodes: slow };
}

const asFiles = (make: (frame: number) => Promise<Uint8Array<ArrayBuffer>>) =>
  slowCamera((cache, frame) => ({
    image: (_, step) =>
      cache.get(frame(step), async () => {
        const bytes = await make(frame(step));
        return decodeImage(bytes, imageTypeOf(bytes), 'an image');
      }),
    imageFile: (_, step) => make(frame(step)),
  }));

/** Expects the images of `expected` at every step of every episode. */
async function expectFrames(files: Files, expected: Dataset): Promise<void> {
  const { episodes } = await openDataset(folderOf(files));
  for (const [e, { length }] of episodes.entries())
    for (let step = 0; step < length; step++)
      expect(await episodes[e].image('top', step)).toEqual(await expected.episodes[e].image('top', step));
}

/** The number of frames of `slowCamera`: two, two and one in episodes of 4, 6 and 3 steps. */
const FRAMES = 5;

describe('a frame that several steps show', () => {
  test('is stored once, as the file that the source keeps', async () => {
    const jpegs = new Map<number, Promise<Uint8Array<ArrayBuffer>>>();
    const jpeg = (frame: number) => {
      const own = jpegs.get(frame) ?? encodeJpeg({ ...gradientImage(8, 6), pixels: new Uint8Array(144).fill(frame) });
      jpegs.set(frame, own);
      return own;
    };
    const dataset = asFiles(jpeg);
    const files = await filesOf(dataset);
    expect(jpegs.size).toBe(FRAMES);
    for (const own of jpegs.values()) expect(occurrences(files.get(DATA)!, await own)).toBe(1);
    await expectFrames(files, dataset);
    const table = await ParquetFile.open(folderOf(files), DATA);
    const cells = await table.lists(table.leaf('observation.images.top', 'bytes'), 0, 13);
    for (const [row, frame] of [0, 0, 0, 1, 10, 10, 10, 11, 11, 11, 20, 20, 20].entries())
      expect(cells[row]).toEqual([await jpeg(frame)]);
  });

  test('is stored once, as a PNG of its pixels, though every step has its own copy', async () => {
    const dataset = slowCamera((_, frame) => ({
      image: async (_camera, step): Promise<Image> => ({
        ...gradientImage(8, 6),
        pixels: new Uint8Array(144).fill(frame(step)),
      }),
    }));
    const files = await filesOf(dataset);
    expect(occurrences(files.get(DATA)!, [0x89, 0x50, 0x4e, 0x47])).toBe(FRAMES);
    await expectFrames(files, dataset);
  });

  test('is written as a PNG if decoders could read its file differently, or its size is not that of the first', async () => {
    const grey = asFiles(async (frame) => {
      const data = new Uint8Array(48).fill(frame);
      return new Uint8Array(encodePng({ width: 8, height: 6, data, channels: 1 }));
    });
    const pngs = await filesOf(grey);
    expect(jsonOf(pngs, 'meta/info.json').features['observation.images.top'].shape).toEqual([6, 8, 3]);
    await expectFrames(pngs, grey);
    const table = await ParquetFile.open(folderOf(pngs), DATA);
    const [[cell]] = await table.lists(table.leaf('observation.images.top', 'bytes'), 0, 1);
    expect((cell as Uint8Array)[25]).toBe(2);

    const growing = asFiles((frame) => encodeJpeg(gradientImage(8 + frame, 6)));
    const { episodes } = await openDataset(folderOf(await filesOf(growing)));
    for (const episode of episodes) {
      const { width, height } = (await episode.image('top', 2))!;
      expect([width, height]).toEqual([8, 6]);
    }
  });
});

test('a data file is handed out episode by episode, so that no more is held in memory', async () => {
  const paths: string[] = [];
  for await (const { path } of leRobotFiles(source())) paths.push(path);
  const meta = ['meta/episodes/chunk-000/file-000.parquet', 'meta/tasks.parquet', 'meta/stats.json', 'meta/info.json'];
  expect(paths).toEqual([DATA, DATA, DATA, DATA, ...meta]);
});

describe('data that LeRobot has no place for', () => {
  const changed = (changes: readonly Partial<Episode>[]): Dataset => ({
    ...source(),
    episodes: source().episodes.map((episode, e) => ({ ...episode, instructions: ['told'], ...changes[e] })),
  });
  const written = async (dataset: Dataset, requireImages = false) => {
    const notes: string[] = [];
    const files = await filesOf(dataset, { requireImages, note: (line) => notes.push(line) });
    const { cameras, episodes } = await openDataset(folderOf(files));
    return { cameras, lengths: episodes.map(({ length }) => length), notes };
  };

  test('cameras that some episodes lack are left out by name', async () => {
    expect(await written(changed([{ cameras: ['top'] }, {}, { cameras: ['top'] }]))).toEqual({
      cameras: ['top'],
      lengths: [4, 6, 3],
      notes: [
        'camera "wrist" is left out: 2 of 3 episodes have no image of it; --require-images leaves out the episodes instead',
      ],
    });
    const none = changed([{ cameras: [] }, { cameras: [] }, { cameras: [] }]);
    expect((await written(none)).notes).toEqual([
      'camera "top" is left out: no episode has an image of it',
      'camera "wrist" is left out: no episode has an image of it',
    ]);
  });

  test('episodes without an image of a camera are left out where images are required', async () => {
    expect(await written(changed([{ cameras: ['top'] }, {}, { cameras: [] }]), true)).toEqual({
      cameras: ['top', 'wrist'],
      lengths: [6],
      notes: ['2 of 3 episodes are left out: they have no image of one of the cameras "top", "wrist"'],
    });
    expect(await written(changed([]), true)).toEqual({
      cameras: ['top', 'wrist'],
      lengths: [4, 6, 3],
      notes: ['all 3 episodes have images of the cameras "top", "wrist": none is left out'],
    });
    const apart = changed([{ cameras: ['top'] }, { cameras: ['wrist'] }, { cameras: [] }]);
    expect(await message(written(apart, true))).toBe(
      'data set "own": none of 3 episodes has images of all its cameras, "top", "wrist": require none, or name fewer cameras',
    );
    expect(await message(written({ ...source(), cameras: [] }, true))).toBe(
      'data set "own" has no cameras: no image can be required',
    );
  });

  test('steps without an instruction have a task that says so, and is read back as none', async () => {
    const { at: instructionAt, ...told } = {
      at: (step: number) => (step < 2 ? [] : ['task 1']),
      instructions: ['task 1'],
    };
    const dataset = changed([
      { instructions: [' '] },
      { ...told, instructionsAt: instructionAt },
      { instructions: [] },
    ]);
    const notes: string[] = [];
    const files = await filesOf(dataset, { note: (line) => notes.push(line) });
    expect(notes).toEqual([
      '3 of 3 episodes have no instruction at some step: LeRobot needs a task there, so it is "no instruction", which is read back as none',
    ]);
    const tasks = await ParquetFile.open(folderOf(files), 'meta/tasks.parquet');
    expect(await tasks.lists(tasks.leaf('task'), 0, 2)).toEqual([['no instruction'], ['task 1']]);
    const { episodes } = await openDataset(folderOf(files));
    expect(episodes.map(({ instructions }) => instructions)).toEqual([[], ['task 1'], []]);
    expect([1, 2].map((step) => instructionsAt(episodes[1], step))).toEqual([[], ['task 1']]);
    notes.length = 0;
    await filesOf(changed([]), { note: (line) => notes.push(line) });
    expect(notes).toEqual([]);
  });

  test('numbers of another width, or none, are refused', async () => {
    expect(await message(filesOf(changed([{ states: null }])))).toBe(
      'episode "own 0" has no state, others have: write them apart',
    );
    expect(await message(filesOf(changed([{ actions: new Float32Array(8) }])))).toBe(
      'episode "own 0" has 2 numbers a step as "action", 3 were expected: write each robot apart',
    );
    expect(await message(filesOf({ ...source(), episodes: [] }))).toBe('data set "own" has no episodes to write');
  });
});
