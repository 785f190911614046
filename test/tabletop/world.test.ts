import { describe, expect, it, onTestFinished } from 'vitest';
import { makeScene } from '../../bench/tabletop/make-scene.ts';
import { actionRange, episodeSeed } from '../../bench/tabletop/scene.ts';
import { TabletopWorld, WORLD_HASH } from '../../bench/tabletop/world.ts';
import { worldInstructions } from '../../tokenizers/world-language.ts';
import { worldHash } from '../support/world-hash.ts';

async function makeWorld(): Promise<TabletopWorld> {
  const world = await TabletopWorld.create();
  onTestFinished(() => world.delete());
  return world;
}

describe('scenes', () => {
  const seeds = Array.from({ length: 300 }, (_, index) => episodeSeed('training', 7, index));
  const scenes = seeds.map((seed) => makeScene(seed));

  it('name one object and one bin that nothing else in the scene fits', () => {
    for (const scene of scenes) {
      expect(new Set(scene.objects.map((object) => object.colour)).size).toBe(scene.objects.length);
      expect(new Set(scene.fixtures.map((bin) => bin.colour)).size).toBe(2);
      const { colour, noun } = scene.objects[scene.object];
      for (const instruction of scene.instructions) {
        expect(instruction).toContain(`the ${colour} ${noun} `);
        expect(instruction.endsWith(`the ${scene.fixtures[scene.fixture].colour} bin`)).toBe(true);
      }
    }
  });

  it('vary in everything that language must distinguish', () => {
    const different = (of: (scene: (typeof scenes)[number]) => unknown) => new Set(scenes.map(of)).size;
    expect(different((scene) => scene.objects.length)).toBe(2);
    expect(different((scene) => scene.object)).toBe(3);
    expect(different((scene) => scene.fixture)).toBe(2);
    expect(different((scene) => scene.paraphrase)).toBe(3);
    expect(different((scene) => scene.objects[scene.object].noun)).toBe(3);
    expect(different((scene) => `${scene.objects[scene.object].colour} ${scene.fixtures[scene.fixture].colour}`)).toBe(
      16,
    );
  });

  it('leave room for the gripper between the objects, and between the bins', () => {
    const gap = (places: readonly { x: number }[]) =>
      Math.min(...places.flatMap((a, i) => places.slice(i + 1).map((b) => Math.abs(a.x - b.x))));
    for (const scene of scenes) {
      expect(gap(scene.objects)).toBeGreaterThan(0.09);
      expect(gap(scene.fixtures)).toBeGreaterThan(0.13);
    }
  });

  it('speak the language that the default vocabulary was trained on', () => {
    const known = new Set(worldInstructions());
    for (const scene of scenes) for (const instruction of scene.instructions) expect(known).toContain(instruction);
  });

  it('of training and of evaluation never share a seed', () => {
    for (let index = 0; index < 300; index++) {
      expect(episodeSeed('training', 7, index)).toBeLessThan(2 ** 31);
      expect(episodeSeed('evaluation', 7, index)).toBeGreaterThanOrEqual(2 ** 31);
      expect(episodeSeed('evaluation', 7, index)).toBeLessThan(2 ** 32);
    }
    expect(new Set(seeds).size).toBe(seeds.length);
  });
});

describe('the tabletop world', () => {
  it('makes the same episodes to the last bit in every JavaScript engine', async () => {
    expect(await worldHash()).toBe(WORLD_HASH);
  });

  it('depends on its own seed and actions only, whatever other worlds do beside it', async () => {
    const alone = await makeWorld();
    const actions = Array.from({ length: 8 }, (_, i) => [0.02 * i - 0.1, 0.01 * i, 0.12 - 0.01 * i, 0.11 - 0.01 * i]);
    alone.reset(5);
    for (const action of actions) alone.step(action);
    const expected = alone.positions();

    const first = await makeWorld();
    const second = await makeWorld();
    first.reset(99);
    first.step(actions[0]);
    first.reset(5);
    second.reset(6);
    for (const action of actions) {
      first.step(action);
      first.observe();
      second.step(action);
    }
    expect(first.positions()).toEqual(expected);
    expect(second.positions()).not.toEqual(expected);
  });

  it('begins at the start of the scene and follows actions closely', async () => {
    const world = await makeWorld();
    world.reset(11);
    const { scene } = world;
    const { image, state, instruction } = world.observe();
    for (let i = 0; i < 4; i++) expect(state[i]).toBeCloseTo(scene.start[i], 6);
    expect(instruction).toBe(scene.instructions[scene.paraphrase]);
    expect([image.width, image.height, image.pixels.length]).toEqual([64, 64, 64 * 64 * 3]);
    for (const [index, object] of scene.objects.entries()) {
      const [x, y] = world.objectPosition(index);
      expect([x, y]).toEqual([object.x, object.y]);
    }
    const target = [0.05, 0.02, 0.15, 0.06];
    for (let i = 0; i < 5; i++) world.step(target);
    for (const [i, value] of world.state().entries()) expect(Math.abs(value - target[i])).toBeLessThan(0.001);
  });

  it('moves targets beyond its range onto the border', async () => {
    const world = await makeWorld();
    world.reset(11);
    world.step([9, -9, 9, 9]);
    const { low, high } = actionRange;
    expect(world.command()).toEqual([high[0], low[1], high[2], high[3]]);
  });

  it('refuses a wrong action or seed, and an episode that was never begun', async () => {
    const world = await makeWorld();
    expect(() => world.step([0, 0, 0.1, 0])).toThrow('call reset(seed) first');
    expect(() => world.observe()).toThrow('call reset(seed) first');
    expect(() => world.scene).toThrow('call reset(seed) first');
    expect(() => world.reset(-1)).toThrow('seed -1');
    world.reset(1);
    expect(() => world.step([0, 0, 0.1])).toThrow('tabletop action of 3 numbers: it needs 4');
    expect(() => world.step([0, Number.NaN, 0.1, 0])).toThrow('was given NaN for y, dimension 1 of an action');
  });
});
