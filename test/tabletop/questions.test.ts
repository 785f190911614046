import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { worldCoTraining, worldQuestions } from '../../bench/tabletop/co-training.ts';
import { beginningOf, recordFrames, thingsOf } from '../../bench/tabletop/frames.ts';
import { makeScene } from '../../bench/tabletop/make-scene.ts';
import { type QuestionKind, questionAbout, questionKinds } from '../../bench/tabletop/questions.ts';
import { episodeSeed, heldOutPairs, nameOf, palette, type SceneSettings } from '../../bench/tabletop/scene.ts';
import { TabletopWorld } from '../../bench/tabletop/world.ts';
import { randomStream, streams } from '../../engine/random.ts';
import type { VisionLanguage } from '../../model/data/index.ts';
import { parsePlaces } from '../../tokenizers/index.ts';

const KINDS = questionKinds.length - 1;
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

describe('questions about a frame', () => {
  const simple: SceneSettings = { task: 'place', variation: 'simple' };
  const rich: SceneSettings[] = ['place', 'press', 'open'].map((task) => ({
    task: task as 'place',
    variation: 'rich',
  }));
  const asked = (settings: SceneSettings, kind: QuestionKind, count = 40) =>
    Array.from({ length: count }, (_, i) => {
      const seed = episodeSeed('training', 8, i);
      const random = randomStream(9, i, streams.world);
      let drawn = 0;
      const question = questionAbout(beginningOf(seed, settings), kind, (below) => random.integer(drawn++, below));
      return { ...question, scene: makeScene(seed, settings), things: thingsOf(beginningOf(seed, settings)) };
    });

  test('what needs no physics is what the physics shows at the beginning', () => {
    for (const settings of [simple, ...rich]) {
      const seed = episodeSeed('training', 8, 3);
      const [{ pixels: _, ...frame }] = recordFrames(world, seed, settings, 1);
      const beginning = beginningOf(seed, settings);
      expect(frame.held).toBe(-1);
      for (const [i, share] of frame.places.flat().entries()) expect(share).toBeCloseTo(beginning.places.flat()[i], 4);
      for (const [i, value] of frame.state.entries()) expect(value).toBeCloseTo(beginning.state[i], 5);
    }
  });

  test('later frames follow what is carried, pressed and pulled', () => {
    const seeds = Array.from({ length: 6 }, (_, i) => episodeSeed('training', 8, i));
    const frames = seeds.flatMap((seed) => recordFrames(world, seed, simple, 5));
    expect(frames.length).toBeGreaterThan(20);
    const carried = frames.filter(({ held }) => held >= 0);
    expect(carried.length).toBeGreaterThan(2);
    for (const { seed, held, places } of carried) {
      const before = beginningOf(seed, simple).places[held];
      expect(Math.hypot(places[held][0] - before[0], places[held][1] - before[1])).toBeGreaterThan(0.01);
    }
  });

  test('counts, existence, shapes, colours and sides are true of the scene', () => {
    for (const settings of [simple, ...rich]) {
      for (const { answer, scene } of asked(settings, 'count')) expect(answer).toBe(String(scene.objects.length));
      const existence = asked(settings, 'existence');
      for (const { prompt, answer, scene } of existence) {
        const [, thing] = /is there a (.*)\?/.exec(prompt)!;
        expect(answer).toBe(scene.objects.some((object) => nameOf(object) === thing) ? 'yes' : 'no');
      }
      expect(new Set(existence.map(({ answer }) => answer)).size).toBe(2);
      for (const { kind, prompt, answer, scene } of [...asked(settings, 'shape'), ...asked(settings, 'colour')]) {
        if (kind === 'count') continue;
        const [, given] = /the (\w+) object|the (\w+)\?/.exec(prompt)!.filter((part) => part !== undefined);
        const fitting = scene.objects.filter(({ colour, noun }) => (kind === 'shape' ? colour : noun) === given);
        expect(fitting.map(({ colour, noun }) => (kind === 'shape' ? noun : colour))).toEqual([answer]);
      }
      for (const { prompt, answer, things } of asked(settings, 'side')) {
        expect(prompt).toContain(things.fixtures[0].noun);
        expect(answer).toBe(things.fixtures[prompt.includes('left') ? 0 : 1].colour);
      }
    }
  });

  test('relations, places and instructions name the things that they are about', () => {
    for (const settings of [simple, ...rich]) {
      for (const { kind, prompt, answer, named } of asked(settings, 'relation')) {
        if (kind === 'count') continue;
        const isLeft = named[0].place[1] < named[1].place[1];
        expect(answer).toBe(isLeft === prompt.includes(' left ') ? 'yes' : 'no');
      }
      for (const kind of ['point', 'task'] as const)
        for (const { prompt, answer, named } of asked(settings, kind)) {
          const { places } = parsePlaces(answer.replace(/((?:<loc\d+>){2})(?=<)/g, '$1 ; '));
          expect(places).toHaveLength(named.length);
          for (const [i, { place, colour }] of named.entries()) {
            expect(prompt).toContain(`the ${colour} `);
            for (const axis of [0, 1]) expect(Math.abs(place[axis] - places[i].coordinates[axis])).toBeLessThan(0.005);
          }
        }
      for (const { prompt, answer, named, things } of asked(settings, 'at')) {
        const { places } = parsePlaces(prompt.replace('what is at', ''));
        const [distance, others] = [[named[0]], [...things.objects, ...things.fixtures]].map((own) =>
          Math.min(...own.map(({ place }) => Math.hypot(...place.map((share, i) => share - places[0].coordinates[i])))),
        );
        expect(distance).toBe(others);
        expect(answer).toBe(named[0].name);
      }
    }
  });

  test('no question in training names a pair that is held out', () => {
    for (const settings of [simple, ...rich])
      for (const kind of questionKinds)
        for (const { prompt, answer } of asked(settings, kind, 60))
          for (const pair of heldOutPairs) expect(`${prompt} ${answer}`).not.toContain(pair);
  });
});

describe('co-training questions about the world', () => {
  test('the same for the same options, every epoch all of them in another order', () => {
    const first = words(epoch());
    expect(first).toHaveLength(12 * KINDS);
    expect(words(epoch())).toEqual(first);
    expect(words(epoch(1))).not.toEqual(first);
    expect(words(epoch(1)).sort()).toEqual([...first].sort());
    expect(words(epoch(0, { ...options, seed: 6 })).sort()).not.toEqual([...first].sort());
  });

  test('there are noes and yeses', () => {
    const answers = epoch()
      .filter(({ prompt }) => prompt.includes('is there'))
      .map(({ answer }) => answer);
    expect(new Set(answers)).toEqual(new Set(['yes', 'no']));
  });

  test('what is pointed at has its colour in the picture', async () => {
    const pointing = epoch().filter(({ prompt }) => prompt.startsWith('point to the') && !prompt.endsWith('bin'));
    expect(pointing.length).toBeGreaterThan(4);
    let right = 0;
    for (const { prompt, answer, image } of pointing) {
      const { places, rejected } = parsePlaces(answer);
      expect(rejected).toEqual([]);
      const [{ coordinates }] = places;
      const { width, height, pixels } = await image();
      const at = Math.floor(coordinates[0] * height) * width + Math.floor(coordinates[1] * width);
      const [red, green, blue] = pixels.subarray(at * 3, at * 3 + 3);
      const likeness = Object.entries(palette).map(([colour, own]) => {
        const dot = own[0] * red + own[1] * green + own[2] * blue;
        return { colour, cosine: dot / Math.hypot(...own) };
      });
      likeness.sort((a, b) => b.cosine - a.cosine);
      if (prompt.startsWith(`point to the ${likeness[0].colour} `)) right += 1;
    }
    // The gripper hides some.
    expect(right).toBeGreaterThanOrEqual(pointing.length - 2);
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
