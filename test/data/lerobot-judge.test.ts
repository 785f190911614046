import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { decodeImage } from '../../model/data/image-files.ts';
import { imageTypeOf } from '../../model/data/image-header.ts';
import { leRobot } from '../../model/data/import/lerobot.ts';
import { writeLeRobot } from '../../model/data/lerobot/writer.ts';
import { source as ownSet } from './lerobot-files.ts';
import { ffmpegHere, fieldsOf, listedFolder, picturesOf, readSource } from './sources.ts';

// INSULA_LEROBOT names a Python with LeRobot (pip install "lerobot[dataset]"), which judges what is written and read here.
const python = process.env.INSULA_LEROBOT;
const program = fileURLToPath(new URL('lerobot-judge.py', import.meta.url));
const run = (...args: string[]) =>
  promisify(execFile)(python!, [program, ...args], { env: { ...process.env, HF_HUB_OFFLINE: '1' } });

interface Frame {
  readonly [field: string]: number[];
}

/** A data set as LeRobot's loader gives it: numbers and tasks, and the picture of each camera, frame by frame. */
async function asLeRobot(folder: string, out: string) {
  await run('read', folder, out);
  const { cameras, frames } = JSON.parse(await readFile(`${out}.json`, 'utf8')) as {
    cameras: string[];
    frames: Frame[];
  };
  const bytes = await readFile(`${out}.bin`);
  let at = 0;
  return frames.map((frame) => {
    const pictures = cameras.map((camera) => {
      const [height, width] = frame[camera];
      at += height * width * 3;
      return [camera, bytes.subarray(at - height * width * 3, at)] as const;
    });
    return { frame, task: frame.task as unknown as string, pictures: Object.fromEntries(pictures) };
  });
}

const distance = (a: Uint8Array, b: Uint8Array) =>
  a.reduce((sum, value, i) => sum + Math.abs(value - b[i]), 0) / a.length;

/** Compares every frame of a data set as it is read here with LeRobot's; returns the mean differences of video frames. */
async function compare(path: string, out: string, videos: readonly string[]): Promise<number[]> {
  const expected = await asLeRobot(path, out);
  const folder = listedFolder(path);
  const { source, episodes, notes } = await readSource(leRobot, folder, { frameSize: 4096 });
  expect(notes).toEqual([]);
  const fields = fieldsOf(source);
  const differences: number[] = [];
  let row = 0;
  for (const episode of episodes) {
    const own = expected.slice(row, row + episode.length);
    row += episode.length;
    for (const field of ['action', 'observation.state', 'timestamp'])
      expect([...(await episode.numbers(field))]).toEqual(own.flatMap(({ frame }) => frame[field]));
    const texts = await episode.texts('task_index');
    own.forEach(({ task }, step) => {
      expect((texts[step] ?? texts[0])[0] ?? 'no instruction').toBe(task);
    });
    for (const camera of Object.keys(own[0].pictures)) {
      expect(fields[camera]).toMatchObject({ kind: 'pictures', use: 'camera' });
      const { pictures } = (await picturesOf(folder, source, episode, camera))!;
      expect(pictures).toHaveLength(episode.length);
      for (const [step, file] of pictures.entries()) {
        const { pixels } = await decodeImage(file, imageTypeOf(file), camera);
        const far = own.map((other) => distance(pixels, other.pictures[camera]));
        if (videos.includes(camera)) {
          expect(far.indexOf(Math.min(...far))).toBe(step);
          differences.push(far[step]);
        } else expect(far[step]).toBe(0);
      }
    }
  }
  expect(row).toBe(expected.length);
  return differences;
}

describe.skipIf(!python)(
  `LeRobot itself as the judge${python ? '' : ' (skipped: INSULA_LEROBOT names no Python)'}`,
  () => {
    let folder: string;
    beforeAll(async () => {
      folder = await mkdtemp(join(tmpdir(), 'insula-judge-'));
    });
    afterAll(() => rm(folder, { recursive: true }));

    test.skipIf(!ffmpegHere)('reads what LeRobot writes, frame for frame', { timeout: 300_000 }, async () => {
      const path = join(folder, 'theirs');
      await run('write', path);
      const differences = await compare(path, join(folder, 'theirs-read'), ['observation.images.top']);
      expect(differences).toHaveLength(28);
      expect(Math.max(...differences)).toBeLessThan(3); // of 255: JPEG, and another conversion from YUV
      const { source, episodes } = await readSource(leRobot, listedFolder(path));
      expect(fieldsOf(source).pressure).toMatchObject({ kind: 'numbers', shape: [1], use: null });
      expect([...(await episodes[1].numbers('grid'))].slice(6, 12)).toEqual([1, 2, 3, 4, 5, 6]);
      expect((await episodes[2].texts('task_index')).flat().filter((text) => text === 'second half')).toHaveLength(5);

      await run('annotate', path);
      const annotated = await readSource(leRobot, listedFolder(path));
      const [first, second] = annotated.episodes;
      const times = (text: string, count: number) => Array.from({ length: count }, () => [text]);
      expect(await first.texts('language_persistent/subtask')).toEqual([...times('reach', 3), ...times('grasp', 9)]);
      expect((await first.texts('language_persistent/task_aug'))[11]).toEqual(['do it', 'go on']);
      expect((await second.texts('language_persistent/subtask')).flat()).toEqual([]);
      expect(await second.texts('subtask_index')).toEqual([...times('a', 5), ...times('b', 2)]);
      expect([...(await second.numbers('action'))].slice(0, 3)).toEqual([1, 0, 0]);
      const uses = Object.values(fieldsOf(annotated.source)).filter(
        ({ use }) => use === 'subtask' || use === 'language',
      );
      expect(uses.map(({ name }) => name).sort()).toEqual([
        'language_persistent/subtask',
        'language_persistent/task_aug',
        'subtask_index',
        'task_index',
      ]);
    });

    test('LeRobot reads what is written here, frame for frame', { timeout: 300_000 }, async () => {
      const path = join(folder, 'ours');
      await writeLeRobot(path, ownSet());
      await compare(path, join(folder, 'ours-read'), []);
    });
  },
);
