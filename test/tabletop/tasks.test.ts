import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Demonstrator } from '../../bench/tabletop/demonstrator.ts';
import { makeScene } from '../../bench/tabletop/make-scene.ts';
import {
  dimensions,
  episodeSeed,
  heldOutPairs,
  nameOf,
  type Scene,
  tasks,
  type Variation,
} from '../../bench/tabletop/scene.ts';
import { stages } from '../../bench/tabletop/stages.ts';
import { TabletopWorld } from '../../bench/tabletop/world.ts';

let world: TabletopWorld;
beforeAll(async () => {
  world = await TabletopWorld.create();
});
afterAll(() => world.delete());

/** Moves to each place in turn, with closed or open fingers. */
function visit(...places: readonly (readonly [x: number, y: number, z: number, opening: number])[]): void {
  for (const place of places) for (let step = 0; step < 6; step++) world.step(place);
}
const another = () => 1 - world.scene.fixture;

describe('a button', () => {
  const press = (index: number) => {
    const { x, y } = world.scene.fixtures[index];
    visit([x, y, 0.1, 0], [x, y, 0.025, 0]);
  };

  it('is up until it is pressed, and comes up again', () => {
    world.reset(3, { task: 'press', variation: 'simple' });
    visit([0, 0, 0.2, 0]);
    for (const index of [0, 1]) expect(world.fixtureTravel(index)).toBeLessThan(0.0005);
    const { fixture } = world.scene;
    press(fixture);
    expect(world.fixtureTravel(fixture)).toBeGreaterThan(0.8 * dimensions.buttonTravel);
    expect(world.fixtureTravel(another())).toBeLessThan(0.0005);
    visit([0, 0, 0.2, 0]);
    expect(world.fixtureTravel(fixture)).toBeLessThan(0.0005);
    expect([world.success(), world.rightObject(), world.stageScore()]).toEqual([true, true, 1]);
  });

  it('that is pressed after another is no success', () => {
    world.reset(3, { task: 'press', variation: 'simple' });
    press(another());
    expect(world.stageScore()).toBe(0);
    const { x, y } = world.scene.fixtures[another()];
    visit([x, y, 0.1, 0]);
    press(world.scene.fixture);
    expect([world.success(), world.rightObject(), world.stageScore()]).toEqual([false, false, 0.5]);
  });
});

describe('a drawer', () => {
  it('stays where it is pulled to, and the first that is moved counts as the right one or not', () => {
    for (const right of [true, false]) {
      world.reset(5, { task: 'open', variation: 'simple' });
      const index = right ? world.scene.fixture : another();
      const [x, y, z] = world.fixturePosition(index);
      visit([x, y, 0.1, 0.11], [x, y, z, 0.11], [x, y, z, 0], [x, y - 0.03, z, 0], [x, y - 0.06, z, 0]);
      visit([x, y - 0.06, z, 0.11], [x, y - 0.06, 0.15, 0.11]);
      expect(world.fixtureTravel(index)).toBeGreaterThan(0.055);
      expect(world.fixtureTravel(1 - index)).toBeLessThan(0.0005);
      expect([world.success(), world.rightObject(), world.stageScore()]).toEqual(
        right ? [true, true, 1] : [false, false, 0],
      );
    }
  });
});

describe('stages', () => {
  it.each(tasks)('of "%s" are reached one after the other', (task) => {
    world.reset(episodeSeed('training', 8, 0), { task, variation: 'simple' });
    const demonstrator = new Demonstrator(world);
    const scores = [world.stageScore()];
    while (scores.length < 40) {
      world.step(demonstrator.action());
      scores.push(world.stageScore());
    }
    const reached = stages[task].map((_, i) => (i + 1) / stages[task].length);
    expect([...new Set(scores)]).toEqual([0, ...reached]);
    expect(scores).toEqual([...scores].sort((a, b) => a - b));
  });
});

describe('scenes of a variation', () => {
  const seeds = Array.from({ length: 300 }, (_, index) => episodeSeed('training', 9, index));
  const scenesOf = (variation: Variation, task = tasks[0]) => seeds.map((seed) => makeScene(seed, { task, variation }));
  const isHeldOut = (scene: Scene, index: number) => heldOutPairs.some((pair) => pair === nameOf(scene.objects[index]));

  it('have a held-out pair of colour and shape in "pairs", as the named object, and nowhere in training', () => {
    for (const task of tasks) {
      for (const variation of ['simple', 'rich'] as const)
        for (const scene of scenesOf(variation, task))
          expect(scene.objects.some((_, i) => isHeldOut(scene, i))).toBe(false);
      for (const scene of scenesOf('pairs', task)) expect(isHeldOut(scene, Math.max(0, scene.object))).toBe(true);
    }
  });

  it('are told in forms that training does not have in "words"', () => {
    for (const task of tasks) {
      const trained = new Set(scenesOf('simple', task).flatMap(({ instructions }) => instructions));
      const told = scenesOf('words', task).flatMap(({ instructions }) => instructions);
      expect(told.filter((text) => trained.has(text))).toEqual([]);
    }
  });

  it('differ from the simple ones of the same seeds in one thing alone', () => {
    const looks = ['table', 'background', 'light', 'camera', 'masked'] as const;
    for (const task of tasks) {
      const simple = scenesOf('simple', task);
      for (const variation of looks)
        scenesOf(variation, task).forEach((scene, i) => {
          const { look, settings, ...same } = simple[i];
          expect(scene).toMatchObject(same);
          expect(scene.look).not.toEqual(look);
          expect(scene.settings).toEqual({ ...settings, variation });
        });
      scenesOf('words', task).forEach((scene, i) => {
        const { forms, instructions, paraphrase, settings, ...same } = simple[i];
        expect(scene).toMatchObject(same);
      });
      for (const variation of ['pairs', 'distractors'] as const)
        scenesOf(variation, task).forEach(({ fixtures, fixture, start, look }, i) => {
          expect(simple[i]).toMatchObject({ fixtures, fixture, start, look });
        });
    }
  });

  it('move alike under the demonstrator if only their look differs, and do not look alike', () => {
    const played = (['simple', 'table', 'masked', 'camera'] as const).map((variation) => {
      world.reset(seeds[0], { task: 'open', variation });
      const demonstrator = new Demonstrator(world);
      for (let step = 0; step < 12; step++) world.step(demonstrator.action());
      return { positions: world.positions(), picture: Buffer.from(world.observe().image.pixels).toString('base64') };
    });
    for (const { positions } of played) expect(positions).toEqual(played[0].positions);
    expect(new Set(played.map(({ picture }) => picture)).size).toBe(played.length);
  });
});
