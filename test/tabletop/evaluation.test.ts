import { describe, expect, it } from 'vitest';
import { Demonstrator } from '../../bench/tabletop/demonstrator.ts';
import { type RecordedStep, recordingOf } from '../../bench/tabletop/episode-recorder.ts';
import { evaluateClosedLoop, type WorldPolicy } from '../../bench/tabletop/evaluation.ts';
import { simplePlacing, tasks } from '../../bench/tabletop/scene.ts';
import { TabletopWorld } from '../../bench/tabletop/world.ts';
import { demonstratorPolicy } from '../support/demonstrator-policy.ts';

const still: WorldPolicy = async (observations) =>
  observations.map(({ state }) => Float32Array.from({ length: 20 }, (_, i) => state[i % 4]));

describe('closed-loop evaluation', () => {
  it('gives the demonstrator at least 95 % success with the right object', async () => {
    const result = await evaluateClosedLoop(demonstratorPolicy(), { episodes: 20, executeSteps: 1 });
    expect(result.success).toBeGreaterThanOrEqual(0.95);
    expect(result.rightObject).toBeGreaterThanOrEqual(0.95);
    expect(result.episodes.length).toBe(20);
    for (const episode of result.episodes) {
      expect(episode.seed).toBeGreaterThanOrEqual(2 ** 31);
      expect(episode.steps).toBeLessThan(40);
    }
  });

  it('takes turns in kinds of scenes, and scores stages', async () => {
    const scenes = tasks.map((task) => ({ task, variation: 'rich' as const }));
    const result = await evaluateClosedLoop(demonstratorPolicy(), { episodes: 9, executeSteps: 1, scenes });
    expect(result.episodes.map(({ settings }) => settings)).toEqual([...scenes, ...scenes, ...scenes]);
    expect(result).toMatchObject({ success: 1, rightObject: 1, stageScore: 1 });
    const idle = await evaluateClosedLoop(still, { episodes: 3, maximumSteps: 5, scenes });
    expect(idle).toMatchObject({ success: 0, rightObject: 0 });
    expect(idle.stageScore).toBeLessThan(0.5);
  });

  it('calls the policy for all episodes at once, every executeSteps control steps', async () => {
    const calls: string[][] = [];
    const progress: [number, number][] = [];
    const policy: WorldPolicy = async (observations, worlds) => {
      calls.push(observations.map((observation) => observation.instruction));
      return still(observations, worlds);
    };
    const result = await evaluateClosedLoop(policy, {
      episodes: 3,
      maximumSteps: 12,
      executeSteps: 5,
      onProgress: (done, total) => progress.push([done, total]),
    });
    expect(calls.length).toBe(3);
    for (const call of calls) expect(call).toEqual(result.episodes.map((episode) => episode.instruction));
    expect(progress).toEqual(Array.from({ length: 12 }, (_, step) => [step + 1, 12]));
    expect(result).toMatchObject({ success: 0, rightObject: 0 });
    expect(result.episodes.map((episode) => episode.steps)).toEqual([12, 12, 12]);
  });

  it('reports every action with the observation before it', async () => {
    const seen = new Map<number, RecordedStep[]>();
    const demonstrator = demonstratorPolicy();
    const decoding: WorldPolicy = (observations, worlds, options) => {
      options?.onDecoded?.([true, false]);
      return demonstrator(observations, worlds);
    };
    const { episodes, decodes } = await evaluateClosedLoop(decoding, {
      episodes: 2,
      executeSteps: 1,
      onAction: (index, observation, action) => {
        seen.set(index, [...(seen.get(index) ?? []), { observation, action }]);
      },
    });
    // Chunks for an episode that is over do not count.
    expect(decodes).toEqual({ chunks: episodes[0].steps + episodes[1].steps, malformed: episodes[1].steps });
    expect(episodes[0].steps).not.toBe(episodes[1].steps);
    const world = await TabletopWorld.create();
    for (const [index, { seed, steps }] of episodes.entries()) {
      const { length, actions, states, images } = recordingOf(seen.get(index)!, {
        ...{ seed, settings: simplePlacing, instructions: [] },
      });
      expect(length).toBe(steps);
      world.reset(seed);
      for (let step = 0; step < length; step++) {
        const { state, image } = world.observe();
        expect(states.subarray(4 * step, 4 * step + 4)).toEqual(state);
        expect(images.subarray(step * image.pixels.length, (step + 1) * image.pixels.length)).toEqual(image.pixels);
        world.step(actions.subarray(4 * step, 4 * step + 4));
      }
      expect(world.success()).toBe(true);
    }
    world.delete();
  });

  it('counts an object that was lifted first and is not the named one as wrong', async () => {
    const stage = new Map<TabletopWorld, number>();
    const liftAnother: WorldPolicy = async (_, worlds) =>
      worlds.map((world) => {
        const other = world.scene.object === 0 ? 1 : 0;
        const [x, y] = world.objectPosition(other);
        const done = stage.get(world) ?? 0;
        stage.set(world, done + 1);
        const [height, opening] = [
          [0.12, 0.11],
          [0.025, 0.11],
          [0.025, 0.02],
          [0.12, 0.02],
        ][Math.min(done, 3)];
        return Float32Array.from({ length: 20 }, (_, i) => [x, y, height, opening][i % 4]);
      });
    const result = await evaluateClosedLoop(liftAnother, { episodes: 5, maximumSteps: 25 });
    expect([...stage.keys()].length).toBe(5);
    expect(result).toMatchObject({ success: 0, rightObject: 0 });
  });

  it('counts success as the right object, whatever was lifted before', async () => {
    const done = new Map<TabletopWorld, { steps: number; demonstrator: Demonstrator; liftedAnother?: boolean }>();
    const late: WorldPolicy = async (_, worlds) =>
      worlds.map((world) => {
        const own = done.get(world) ?? { steps: 0, demonstrator: new Demonstrator(world) };
        done.set(world, own);
        const stage = own.steps++;
        own.liftedAnother = world.firstMoved >= 0 && !world.rightObject();
        if (stage >= 24) return own.demonstrator.action();
        const [x, y] = world.objectPosition(world.scene.object === 0 ? 1 : 0);
        const [height, opening] = [
          [0.12, 0.11],
          [0.025, 0.11],
          [0.025, 0.02],
          [0.12, 0.02],
        ][Math.floor(stage / 6)];
        return Float32Array.of(x, y, height, opening);
      });
    const { episodes } = await evaluateClosedLoop(late, { episodes: 3, executeSteps: 1, maximumSteps: 90 });
    const all = [...done.values()];
    const both = episodes.filter(({ success }, i) => success && all[i].liftedAnother);
    expect(both.length).toBeGreaterThan(0);
    expect(both.every(({ rightObject }) => rightObject)).toBe(true);
  });

  it('stops when it is aborted', async () => {
    const abort = new AbortController();
    const reason = new Error('enough');
    const onProgress = () => abort.abort(reason);
    const options = { episodes: 1, onProgress, signal: abort.signal };
    await expect(evaluateClosedLoop(still, options)).rejects.toBe(reason);
  });

  it('is the same every time, and other scenes for another seed', async () => {
    const options = { episodes: 2, maximumSteps: 5 };
    const first = await evaluateClosedLoop(still, options);
    expect(await evaluateClosedLoop(still, options)).toEqual(first);
    const other = await evaluateClosedLoop(still, { ...options, seed: 1 });
    expect(other.episodes.map((episode) => episode.seed)).not.toEqual(first.episodes.map((episode) => episode.seed));
  });

  it('refuses a wrong option or chunk', async () => {
    await expect(evaluateClosedLoop(still, { executeSteps: 2.5 })).rejects.toThrow(
      '--execute-steps 2.5: it is no whole',
    );
    await expect(evaluateClosedLoop(still, { episodes: 1, executeSteps: 6 })).rejects.toThrow(
      '--execute-steps 6: a chunk of this policy has 5 actions',
    );
    await expect(evaluateClosedLoop(async () => [], { episodes: 1 })).rejects.toThrow('episode 0 has 0 numbers');
  });
});
