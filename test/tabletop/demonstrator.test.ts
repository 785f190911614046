import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Demonstrator } from '../../bench/tabletop/demonstrator.ts';
import { disturbance } from '../../bench/tabletop/disturbance.ts';
import { MAXIMUM_STEPS, recordEpisode } from '../../bench/tabletop/episode-recorder.ts';
import { episodeSeed, tasks } from '../../bench/tabletop/scene.ts';
import { TabletopWorld } from '../../bench/tabletop/world.ts';
import type { WorldTask } from '../../tokenizers/index.ts';

let world: TabletopWorld;
beforeAll(async () => {
  world = await TabletopWorld.create();
});
afterAll(() => world.delete());

describe('the demonstrator', () => {
  it('puts the named object into the named bin in at least 95 % of scenes, within 40 control steps', () => {
    const scenes = 60;
    let successes = 0;
    for (let index = 0; index < scenes; index++) {
      world.reset(episodeSeed('training', 3, index));
      const demonstrator = new Demonstrator(world);
      for (let step = 0; step < 40 && !world.success(); step++) world.step(demonstrator.action());
      if (world.success() && world.rightObject()) successes++;
    }
    expect(successes / scenes).toBeGreaterThanOrEqual(0.95);
  });

  it.each(
    tasks.flatMap((task) => [
      [task, 0, 0.97],
      [task, 0.012, 0.85],
    ]) as [WorldTask, number, number][],
  )('does "%s" in scenes of every kind, pushed by %d m, in at least %d of them', (task, pushes, least) => {
    // Variations of the look alone do not change what happens.
    const variations = ['simple', 'rich', 'pairs', 'distractors'] as const;
    const scenes = 48;
    let successes = 0;
    for (let index = 0; index < scenes; index++) {
      const seed = episodeSeed('training', 6, index);
      world.reset(seed, { task, variation: variations[index % variations.length] });
      const demonstrator = new Demonstrator(world);
      const pushed = disturbance(seed, pushes);
      for (let step = 0; step < MAXIMUM_STEPS && !world.success(); step++)
        world.step(pushed(demonstrator.action(), step));
      if (world.success()) {
        successes++;
        expect(world.stageScore()).toBe(1);
      }
    }
    expect(successes / scenes).toBeGreaterThanOrEqual(least);
  });

  it('leaves the other objects where they are', () => {
    for (let index = 0; index < 5; index++) {
      world.reset(episodeSeed('training', 4, index));
      const demonstrator = new Demonstrator(world);
      for (let step = 0; step < 40 && !world.success(); step++) world.step(demonstrator.action());
      for (const [i, object] of world.scene.objects.entries()) {
        if (i === world.scene.object) continue;
        const [x, y] = world.objectPosition(i);
        expect(Math.hypot(x - object.x, y - object.y)).toBeLessThan(0.005);
      }
    }
  });
});

describe('a demonstration', () => {
  const differences = (values: Float32Array, dimension: number) => {
    const track = Array.from({ length: values.length / 4 }, (_, step) => values[step * 4 + dimension]);
    return track.slice(1).map((value, step) => value - track[step]);
  };

  it('is smooth: bounded steps, and no jerk from one step to the next', () => {
    for (let index = 0; index < 5; index++) {
      const recording = recordEpisode(world, episodeSeed('training', 5, index), 0);
      for (let dimension = 0; dimension < 3; dimension++) {
        const steps = differences(recording!.actions, dimension);
        expect(Math.max(...steps.map(Math.abs))).toBeLessThan(0.0401);
        expect(Math.max(...steps.slice(1).map((step, i) => Math.abs(step - steps[i])))).toBeLessThan(0.0201);
      }
    }
  });

  it('holds an action, a state and a picture for every control step, and ends with success', () => {
    const recording = recordEpisode(world, episodeSeed('training', 5, 0), 0)!;
    expect(world.success()).toBe(true);
    expect(recording.length).toBeGreaterThan(10);
    expect(recording.length).toBeLessThanOrEqual(40);
    expect(recording.actions.length).toBe(recording.length * 4);
    expect(recording.states.length).toBe(recording.length * 4);
    expect(recording.images.length).toBe(recording.length * 64 * 64 * 3);
    // The first state is measured before the first action, at the start.
    for (let i = 0; i < 4; i++) expect(recording.states[i]).toBeCloseTo(world.scene.start[i], 6);
  });

  it('recovers from pushes, which are in the states and not in the actions', () => {
    const seed = episodeSeed('training', 5, 1);
    const calm = recordEpisode(world, seed, 0)!;
    const pushed = recordEpisode(world, seed, 0.004)!;
    expect(world.success()).toBe(true);
    const lag = ({ states, actions }: typeof calm) =>
      Math.max(...[0, 1, 2, 3, 4].map((step) => Math.abs(states[(step + 1) * 4] - actions[step * 4])));
    expect(lag(pushed)).toBeGreaterThan(lag(calm));
    expect(pushed.states).not.toEqual(calm.states);
  });
});
