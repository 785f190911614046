import { describe, expect, it } from 'vitest';
import { Demonstrator } from '../../bench/tabletop/demonstrator.ts';
import { recordEpisode } from '../../bench/tabletop/episode-recorder.ts';
import { evaluateClosedLoop, type WorldPolicy } from '../../bench/tabletop/evaluation.ts';
import { Film } from '../../bench/tabletop/film.ts';
import { languageTable } from '../../bench/tabletop/language.ts';
import { exchanged, makeScene } from '../../bench/tabletop/make-scene.ts';
import { episodeSeed, nameOf, type SceneSettings, simplePlacing, tasks } from '../../bench/tabletop/scene.ts';
import { outcomeOf } from '../../bench/tabletop/stages.ts';
import { TabletopWorld } from '../../bench/tabletop/world.ts';
import { drawStrip } from '../../model/report/film-strip.ts';
import { demonstratorPolicy } from '../support/demonstrator-policy.ts';

const still: WorldPolicy = async (observations) =>
  observations.map(({ state }) => Float32Array.from({ length: 20 }, (_, i) => state[i % 4]));

describe('a film', () => {
  it('has a frame for each call, of the first episodes that succeeded and of the first that failed', async () => {
    const film = new Film();
    const demonstrator = demonstratorPolicy();
    let calls = 0;
    // Every second episode stays where it is.
    const half: WorldPolicy = async (observations, worlds) => {
      calls++;
      film.onSaid(observations.map(({ instruction }, i) => ({ words: instruction, places: [[0.5, i / 10]] })));
      const [acting, idle] = await Promise.all([demonstrator(observations, worlds), still(observations, worlds)]);
      return acting.map((chunk, i) => (i % 2 === 0 ? chunk : idle[i]));
    };
    const { episodes } = await evaluateClosedLoop(half, { episodes: 5, executeSteps: 1, film });
    const films = film.episodes(episodes, 'place', 2);
    expect(films.map(({ success }) => success)).toEqual([true, false, true, false]);
    expect(calls).toBe(40);
    for (const [at, own] of films.entries()) {
      const { steps, seed, instruction, outcome } = episodes[at];
      expect(own).toMatchObject({ about: 'place', instruction, outcome, steps });
      expect(own.frames.map(({ step }) => step)).toEqual(Array.from({ length: steps }, (_, step) => step));
      expect(drawStrip(own).length).toBe(steps + 1);
      expect(own.frames[0].said).toEqual({ words: instruction, places: [[0.5, at / 10]] });
      const world = await TabletopWorld.create();
      world.reset(seed);
      expect(own.frames[0].image).toEqual(world.observe().image);
      world.delete();
      for (const [i, { went, predicted }] of own.frames.entries()) {
        expect(went.length).toBe(2);
        expect(predicted[0]).toEqual(went[0]);
        if (i > 0) expect(went[0]).toEqual(own.frames[i - 1].went[1]);
      }
    }
    const { objects, object, fixtures, fixture } = makeScene(episodes[0].seed);
    const [cube, bin] = [nameOf(objects[object]), nameOf(fixtures[fixture])];
    expect(films[0].outcome).toBe(`placed the ${cube} in the ${bin}`);
    // The hand ends above the bin, which is in the picture's upper half.
    const [down] = films[0].frames.at(-1)!.went[1];
    expect(down).toBeLessThan(0.6);
    expect(films[1].outcome).toMatch(/^never reached the \w+ \w+$/);
  });
});

describe('an exchanged scene', () => {
  const kinds: SceneSettings[] = [
    ...tasks.flatMap((task) => (['simple', 'rich'] as const).map((variation) => ({ task, variation }))),
    { task: 'place', variation: 'words' },
    { task: 'place', variation: 'distractors' },
  ];

  it.each(kinds)('of $task, $variation has the same picture and another goal', async (settings) => {
    const world = await TabletopWorld.create();
    const things = settings.task === 'place' ? (['object', 'fixture'] as const) : (['fixture'] as const);
    for (const thing of things) {
      const scene = makeScene(episodeSeed('evaluation', 0, 3), settings);
      const other = exchanged(scene, thing);
      world.begin(scene);
      const { image, instruction } = world.observe();
      world.begin(other);
      const seen = world.observe();
      expect(seen.image).toEqual(image);
      const name = ({ objects, object, fixtures, fixture }: typeof scene) =>
        nameOf(thing === 'object' ? objects[object] : fixtures[fixture]);
      expect(name(other)).not.toBe(name(scene));
      expect(seen.instruction).not.toBe(instruction);
      // The same form of words with another name in it.
      const form = (text: string) => text.replace(/the \w+ \w+/g, 'the thing');
      expect(form(seen.instruction)).toBe(form(instruction));
      const demonstrator = new Demonstrator(world);
      for (let step = 0; step < 40 && !world.success(); step++) world.step(demonstrator.action());
      expect(world.success()).toBe(true);
      expect(outcomeOf(world)).toContain(name(other));
      if (thing === 'fixture' && settings.task === 'place')
        expect(world.liesIn(scene.object, scene.fixture)).toBe(false);
    }
    world.delete();
  });

  it('names an object that the task has', () => {
    expect(() => exchanged(makeScene(1, { task: 'press', variation: 'simple' }), 'object')).toThrow(
      'the task "press" names no object',
    );
  });
});

describe('the table of instructions', () => {
  it('counts a policy that follows them, and one that goes for what the scene names', async () => {
    const options = { scenes: [simplePlacing], episodes: 3, executeSteps: 1 };
    const following = await languageTable(() => demonstratorPolicy(), options);
    expect(following.map(({ success, rightObject, original }) => [success, rightObject, original])).toEqual([
      ...[[3, 3, null], ...Array(2).fill([3, 3, 0]), ...Array(2).fill([3, 3, null])],
    ]);

    // Deaf: it repeats the demonstrations of the scenes' own instructions.
    const world = await TabletopWorld.create();
    const plans = [0, 1, 2].map((i) => recordEpisode(world, episodeSeed('evaluation', 0, i), 0)!);
    world.delete();
    const deaf = (): WorldPolicy => {
      let step = 0;
      return async () => {
        const at = step++;
        return plans.map(({ actions, length }) => actions.subarray(4 * Math.min(at, length - 1)));
      };
    };
    const table = await languageTable(deaf, options);
    expect(table.slice(0, 3).map(({ success, rightObject, original }) => [success, rightObject, original])).toEqual([
      [3, 3, null],
      [0, 0, 3],
      [0, 3, 3],
    ]);
  });
});
