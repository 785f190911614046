import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { worldCoTraining, worldQuestions } from '../../bench/tabletop/questions.ts';
import { type Colour, episodeSeed, makeScene, palette } from '../../bench/tabletop/scene.ts';
import { TabletopWorld } from '../../bench/tabletop/world.ts';
import type { VisionLanguage } from '../../model/data/index.ts';
import { parsePlaces } from '../../tokenizers/index.ts';

const KINDS = 7;
let world: TabletopWorld;
beforeAll(async () => {
  world = await TabletopWorld.create();
});
afterAll(() => world.delete());

const options = { seed: 5, from: 40, scenes: 12 };
const epoch = (number = 0, own = options): VisionLanguage[] => {
  const source = worldQuestions(world, own);
  return Array.from({ length: source.size }, (_, i) => source.at(number * source.size + i));
};
const words = (all: readonly VisionLanguage[]) => all.map(({ prompt, answer }) => `${prompt} ${answer}`);

describe('questions about the world', () => {
  test('the same for the same options, every epoch all of them in another order', () => {
    const first = words(epoch());
    expect(first).toHaveLength(12 * KINDS);
    expect(words(epoch())).toEqual(first);
    expect(words(epoch(1))).not.toEqual(first);
    expect(words(epoch(1)).sort()).toEqual([...first].sort());
    expect(words(epoch(0, { ...options, seed: 6 })).sort()).not.toEqual([...first].sort());
  });

  test('answers are true of the scene', () => {
    const scene = makeScene(episodeSeed('training', 5, 40));
    const asked = new Map(epoch(0, { ...options, scenes: 1 }).map(({ prompt, answer }) => [prompt, answer]));
    expect(asked.size).toBe(KINDS);
    const names = scene.objects.map(({ colour, shape }) => `${colour} ${shape}`);
    expect(asked.get('answer en how many objects are on the table?')).toBe(String(names.length));
    const caption = asked.get('caption en')!;
    for (const name of [...names, ...scene.fixtures.map(({ colour }) => `${colour} bin`)])
      expect(caption).toContain(name);
    let others = 0;
    for (const [prompt, answer] of asked) {
      const [, thing] = /is there a (.*)\?/.exec(prompt) ?? [];
      if (thing) expect(answer).toBe(names.includes(thing) ? 'yes' : 'no');
      const [, colour] = /what is the (.*) object/.exec(prompt) ?? [];
      if (colour) expect(names).toContain(`${colour} ${answer}`);
      const [, side] = /bin is on the (.*)\?/.exec(prompt) ?? [];
      const bins = [...scene.fixtures].sort((a, b) => a.x - b.x).map((bin) => bin.colour);
      if (side) expect(answer).toBe(side === 'left' ? bins[0] : bins[1]);
      if (thing || colour || side) others += 1;
    }
    expect(others).toBe(3);
  });

  test('there are noes and yeses', () => {
    const answers = epoch()
      .filter(({ prompt }) => prompt.includes('is there'))
      .map(({ answer }) => answer);
    expect(new Set(answers)).toEqual(new Set(['yes', 'no']));
  });

  test('what is pointed at has its colour in the picture', async () => {
    const pointing = epoch().filter(({ prompt }) => prompt.startsWith('point to the') && !prompt.endsWith('bin'));
    expect(pointing).toHaveLength(12);
    let right = 0;
    for (const { prompt, answer, image } of pointing) {
      const { places, rejected } = parsePlaces(answer);
      expect(rejected).toEqual([]);
      const [{ coordinates, label }] = places;
      expect(prompt).toBe(`point to the ${label}`);
      const { width, height, pixels } = await image();
      const at = Math.floor(coordinates[0] * height) * width + Math.floor(coordinates[1] * width);
      const [red, green, blue] = pixels.subarray(at * 3, at * 3 + 3);
      const likeness = Object.entries(palette).map(([colour, own]) => {
        const dot = own[0] * red + own[1] * green + own[2] * blue;
        return { colour, cosine: dot / Math.hypot(...own) };
      });
      likeness.sort((a, b) => b.cosine - a.cosine);
      if (likeness[0].colour === (label.split(' ')[0] as Colour)) right += 1;
    }
    // The gripper hides some.
    expect(right).toBeGreaterThanOrEqual(10);
  });

  test('co-training: held-out questions are of other scenes', async () => {
    const { questions, heldOut } = worldCoTraining(world, 0);
    expect(questions.size).toBe(400 * KINDS);
    expect(new Set(words(heldOut)).size).toBeGreaterThan(24);
    const [shown, kept] = await Promise.all([questions.at(0).image(), heldOut[0].image()]);
    expect(shown.pixels).not.toEqual(kept.pixels);
    expect(await questions.at(0).image()).toBe(shown);
  });
});
