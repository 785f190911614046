import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { decodeImage } from '../../model/data/image-files.ts';
import { imageTypeOf } from '../../model/data/image-header.ts';
import { leRobot } from '../../model/data/import/lerobot.ts';
import { openDataset } from '../../model/data/index.ts';
import { ffmpegHere, fieldsOf, listedFolder, picturesOf, readSource } from './sources.ts';

const cases = fileURLToPath(new URL('../../../shared/cases', import.meta.url));
const given = (name: string, possible = true) => test.skipIf(!possible || !existsSync(`${cases}/${name}`));
const open = (name: string) => readSource(leRobot, listedFolder(`${cases}/${name}`));

async function firstPixels(name: string, episode: number, field: string) {
  const { source, episodes } = await open(name);
  const found = await picturesOf(listedFolder(`${cases}/${name}`), source, episodes[episode], field);
  const images = await Promise.all(found!.pictures.map((bytes) => decodeImage(bytes, imageTypeOf(bytes), name)));
  return images.map(({ pixels }) => pixels[0]);
}

describe('properties of public bug reports (skipped where ../shared/cases is missing)', () => {
  given('01-tasks-edited-v30')('the tasks table decides, not its old copy in the list of episodes', async () => {
    const { episodes } = await open('01-tasks-edited-v30');
    for (const episode of episodes)
      expect(await episode.texts('task_index')).toEqual([['put the red mug on the shelf']]);
  });

  given('03-tasks-string-or-missing')('tasks as a text, or missing', async () => {
    const { episodes } = await open('03-tasks-string-or-missing');
    expect(await Promise.all(episodes.map((episode) => episode.texts('task_index')))).toEqual([
      [['lift the block']],
      [['drop the block']],
    ]);
  });

  given('07-image-path-only')('pictures in files that only the column names', async () => {
    const pixels = await firstPixels('07-image-path-only', 0, 'observation.images.top');
    expect(pixels).toEqual(Array.from({ length: 12 }, (_, step) => step * 10));
  });

  given('09-action-float16')('actions of type float16', async () => {
    const { episodes } = await open('09-action-float16');
    const expected = JSON.parse(readFileSync(`${cases}/09-action-float16/expected.json`, 'utf8'));
    const rows = (Array.isArray(expected) ? expected : Object.values(expected)[0]) as number[][];
    const actions = await episodes[0].numbers('action');
    expect([...actions.slice(0, rows.flat().length)]).toEqual(rows.flat());
  });

  given('10-null-in-list')('an empty place in a list is named', async () => {
    const { episodes } = await open('10-null-in-list');
    await expect(episodes[0].numbers('action')).rejects.toThrow(
      /episode_000000\.parquet: column "action" has an empty place in row \d+, place \d of 7/,
    );
  });

  given('27-video-one-frame-short', ffmpegHere)('the last frame is missing in a joined video', async () => {
    const name = '27-video-one-frame-short';
    const { source, episodes, notes } = await open(name);
    const folder = listedFolder(`${cases}/${name}`);
    const values = [];
    for (const episode of episodes) {
      const { pictures } = (await picturesOf(folder, source, episode, 'observation.images.top'))!;
      const images = await Promise.all(pictures.map((bytes) => decodeImage(bytes, 'image/jpeg', name)));
      values.push(images.map(({ pixels }) => pixels[3 * (32 * 64 + 32)]));
    }
    expect(values.map(({ length }) => length)).toEqual([10, 13]);
    expect(Math.abs(values[0][9] - 68)).toBeLessThan(6);
    expect(Math.abs(values[1][0] - 150)).toBeLessThan(6);
    expect(notes.join()).toMatch(/episode 0.*lacks the frames of steps 9;/);
  });

  given('44-robot-type-empty')('empty optional fields', async () => {
    expect((await open('44-robot-type-empty')).source.kind).toBe('LeRobot data set, version 2.1');
  });

  given('45-empty-task-v21')('an empty instruction is none', async () => {
    const { episodes } = await open('45-empty-task-v21');
    const texts = await Promise.all(episodes.map(async (episode) => (await episode.texts('task_index'))[0].length));
    expect(texts.sort()).toEqual([0, 1]);
  });

  given('64-split-action-columns')('actions of other names are fields', async () => {
    const { source, episodes } = await open('64-split-action-columns');
    expect(fieldsOf(source)['actions.joint.position']).toMatchObject({ kind: 'numbers', shape: [7], use: null });
    expect(await episodes[0].numbers('actions.joint.position')).toHaveLength(episodes[0].length * 7);
  });

  given('68-camera-name-collision')('cameras whose short names are the same', async () => {
    const { cameras } = await openDataset(listedFolder(`${cases}/68-camera-name-collision`));
    expect(cameras).toEqual(['images.top', 'top']);
    const names = ['observation.images.top', 'observation.top'];
    const pixels = await Promise.all(names.map((name) => firstPixels('68-camera-name-collision', 0, name)));
    expect(pixels.map(([first]) => first)).toEqual([10, 200]);
  });

  given('69-depth-image-unflagged')('a depth map is no camera', async () => {
    const { source } = await open('69-depth-image-unflagged');
    expect(fieldsOf(source)['observation.images.depth']).toMatchObject({ kind: 'depth', use: null });
  });
});
