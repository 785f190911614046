import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { demonstrations } from '../../bench/tabletop/demonstrations.ts';
import { recordEpisode } from '../../bench/tabletop/episode-recorder.ts';
import { makeScene } from '../../bench/tabletop/make-scene.ts';
import { episodeSeed, nameOf, type SceneSettings, tasks } from '../../bench/tabletop/scene.ts';
import { inWorkers } from '../../bench/tabletop/workers.ts';
import { TabletopWorld } from '../../bench/tabletop/world.ts';
import type { Dataset } from '../../model/data/dataset.ts';

async function temporaryFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'insula-tabletop-'));
  onTestFinished(() => rm(folder, { recursive: true }));
  return folder;
}

function warnings(): string[] {
  const lines: string[] = [];
  const spy = vi.spyOn(console, 'warn').mockImplementation((line) => lines.push(String(line)));
  onTestFinished(() => spy.mockRestore());
  return lines;
}

/** Everything in a data set, as plain values. */
async function contents(dataset: Dataset): Promise<unknown> {
  const episodes = dataset.episodes.map(async (episode) => {
    const steps = Array.from({ length: episode.length }, (_, step) => episode.image('front', step));
    const images = (await Promise.all(steps)).map((image) => Buffer.from(image!.pixels).toString('base64'));
    const { id, length, instructions, cameras } = episode;
    return { id, length, instructions, cameras, actions: [...episode.actions], states: [...episode.states!], images };
  });
  const { name, rate, actionDimension, stateDimension, cameras } = dataset;
  return { name, rate, actionDimension, stateDimension, cameras, episodes: await Promise.all(episodes) };
}

describe('demonstrations', () => {
  it('stop when they are aborted, and leave no cache', async () => {
    const cacheFolder = await temporaryFolder();
    const abort = new AbortController();
    const reason = new Error('enough');
    const onProgress = () => abort.abort(reason);
    const options = { episodes: 50, cacheFolder, onProgress, signal: abort.signal };
    await expect(demonstrations(options)).rejects.toBe(reason);
    expect(await readdir(cacheFolder)).toEqual([]);
  });

  it('made in a worker are those made here', async () => {
    const progress: [number, number][] = [];
    const dataset = await demonstrations({ episodes: 2, onProgress: (done, total) => progress.push([done, total]) });
    expect(progress).toEqual([
      [1, 2],
      [2, 2],
    ]);
    expect(dataset).toMatchObject({
      name: 'tabletop',
      rate: 10,
      actionDimension: 4,
      stateDimension: 4,
      cameras: ['front'],
    });
    const world = await TabletopWorld.create();
    onTestFinished(() => world.delete());
    const here = recordEpisode(world, episodeSeed('training', 0, 1), 0)!;
    const episode = dataset.episodes[1];
    expect(episode).toMatchObject({ length: here.length, instructions: here.instructions, cameras: ['front'] });
    expect(episode.actions).toEqual(here.actions);
    expect(episode.states).toEqual(here.states);
    const last = await episode.image('front', here.length - 1);
    expect(last).toMatchObject({ width: 64, height: 64 });
    expect(Buffer.compare(last!.pixels, here.images.subarray(-64 * 64 * 3))).toBe(0);
    expect(await episode.image('front', 1000)).toEqual(last);
    const subtasks = Array.from({ length: episode.length }, (_, step) => episode.subtask!(step)!);
    const inOrder = subtasks.filter((words, step) => words !== subtasks[step - 1]);
    const [, object, bin] = /put the (.*) in the (.*)/.exec(episode.instructions[0])!;
    expect(inOrder).toEqual([`reach for the ${object}`, `bring it to the ${bin}`, 'let go']);
    expect(await episode.image('front', -1)).toBeNull();
    expect(await episode.image('wrist', 0)).toBeNull();
  });

  it('are the same, in the same order, by one thread and by several', async () => {
    const scenes = tasks.map((task) => ({ task, variation: 'rich' as const }));
    // So strong pushes make some attempts fail.
    const settings = { seed: 2, pushes: 0.025, scenes };
    const made = (threads: number) => inWorkers('attempt', settings, 4, {}, threads);
    const [alone, together] = await Promise.all([1, 3].map(made));
    expect(alone.length).toBe(4);
    expect(alone[3].seed).not.toBe(episodeSeed('training', 2, 3));
    expect(together).toEqual(alone);
  });

  it('of a worker that fails are an error in one line', async () => {
    const scenes = [{ task: 'juggle', variation: 'simple' }] as unknown as SceneSettings[];
    const made = inWorkers('attempt', { seed: 0, scenes }, 2, {}, 2);
    await expect(made).rejects.toThrow(/^a worker of the tabletop world: .+$/);
  });

  it('take turns in kinds of scenes, with subtasks of their own, and are kept so', async () => {
    const cacheFolder = await temporaryFolder();
    const scenes = (['press', 'open'] as const).map((task) => ({ task, variation: 'simple' as const }));
    const inOrder = async () => {
      const { episodes } = await demonstrations({ episodes: 2, scenes, cacheFolder });
      return episodes.map(({ length, subtask }) => {
        const all = Array.from({ length }, (_, step) => subtask!(step)!);
        return all.filter((words, step) => words !== all[step - 1]);
      });
    };
    const made = await inOrder();
    const [button, drawer] = scenes.map((settings, index) => {
      const { fixtures, fixture } = makeScene(episodeSeed('training', 0, index), settings);
      return nameOf(fixtures[fixture]);
    });
    expect(made).toEqual([
      [`reach for the ${button}`, 'press it'],
      [`reach for the ${drawer}`, 'pull it open', 'let go'],
    ]);
    expect(await inOrder()).toEqual(made);
  });

  it('are found again in the cache, and made again if the cache is damaged or of other settings', async () => {
    const cacheFolder = join(await temporaryFolder(), 'cache');
    const warned = warnings();
    const made = await contents(await demonstrations({ episodes: 2, cacheFolder }));
    const [name, ...others] = await readdir(cacheFolder);
    expect(others).toEqual([]);
    const file = join(cacheFolder, name);
    const bytes = await readFile(file);

    expect(await contents(await demonstrations({ episodes: 2, cacheFolder }))).toEqual(made);
    expect(warned).toEqual([]);

    const flipped = Buffer.from(bytes);
    flipped[Math.floor(bytes.length / 2)] ^= 16;
    for (const damaged of [flipped, bytes.subarray(0, bytes.length - 100), Buffer.alloc(0)]) {
      await writeFile(file, damaged);
      expect(await contents(await demonstrations({ episodes: 2, cacheFolder }))).toEqual(made);
      expect(warned.splice(0)).toEqual([expect.stringMatching(/the cached demonstrations cannot be read .*again$/)]);
      expect((await readFile(file)).equals(bytes)).toBe(true);
    }

    await demonstrations({ episodes: 1, seed: 1, cacheFolder });
    expect((await readdir(cacheFolder)).length).toBe(2);
  });

  it('are made even if the cache cannot be written, with a warning', async () => {
    const folder = await temporaryFolder();
    const cacheFolder = join(folder, 'a file');
    await writeFile(cacheFolder, '');
    const warned = warnings();
    const dataset = await demonstrations({ episodes: 1, cacheFolder });
    expect(dataset.episodes.length).toBe(1);
    expect(warned).toContainEqual(expect.stringContaining('demonstrations are not cached'));
  });
});
