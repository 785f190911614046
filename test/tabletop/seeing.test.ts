import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { type Frame, recordFrames, thingsOf } from '../../bench/tabletop/frames.ts';
import { questionKinds } from '../../bench/tabletop/questions.ts';
import { episodeSeed, type Variation } from '../../bench/tabletop/scene.ts';
import { type AnsweredAbout, askAbout, distancesOf, placesIn, scoresOf } from '../../bench/tabletop/seeing.ts';
import { TabletopWorld } from '../../bench/tabletop/world.ts';
import type { Model } from '../../model/architecture/model.ts';
import { Encoding } from '../../model/policy/encoding.ts';
import { Policy } from '../../model/policy/policy.ts';
import { worldLanguage } from '../../tokenizers/index.ts';
import { seeingEncoding } from '../support/vision-language.ts';

const encoding = new Encoding(seeingEncoding);
let world: TabletopWorld;
beforeAll(async () => {
  world = await TabletopWorld.create();
});
afterAll(() => world.delete());

const frames = (variation: Variation, count: number): Frame[] =>
  Array.from({ length: count }, (_, i) =>
    recordFrames(world, episodeSeed('training', 4, i), { task: 'place', variation }, 2),
  ).flat();

/** Questions about frames, with empty answers. */
async function asked(about: readonly Frame[], seed = 3): Promise<AnsweredAbout[]> {
  const spy = vi.spyOn(Policy.prototype, 'generateText').mockImplementation(async (all) => all.map(() => ''));
  try {
    return await askAbout(new Policy({} as Model, encoding), about, seed);
  } finally {
    spy.mockRestore();
  }
}

test('right answers, wrong ones and none', async () => {
  const about = frames('rich', 6);
  const nothing = await asked(about);
  expect(nothing).toHaveLength(about.length * questionKinds.length);
  expect(await asked(about)).toEqual(nothing);
  expect(await asked(about, 4)).not.toEqual(nothing);

  const right = scoresOf(
    nothing.map((own) => ({ ...own, answer: own.question.answer })),
    encoding,
  );
  for (const { answers, tokens } of [...Object.values(right.kinds), right.others])
    expect([answers, tokens]).toEqual([1, 1]);
  expect(Object.keys(right.kinds).sort()).toEqual([...questionKinds].sort());
  expect(right.others.questions).toBe(
    nothing.filter(({ question: { kind } }) => kind !== 'point' && kind !== 'task').length,
  );
  // Answers are rounded to half a pixel.
  const { free, fixtures } = right.pointing;
  for (const own of [free, fixtures]) {
    expect(own.count).toBeGreaterThan(5);
    expect(own.near).toBe(1);
    expect(own.median).toBeGreaterThan(0);
    expect(own.median).toBeLessThan(0.4);
  }

  const none = scoresOf(nothing, encoding);
  expect(none.others).toMatchObject({ answers: 0, tokens: 0 });
  expect(none.pointing.free).toEqual({ count: free.count, near: 0, median: null });

  const wrong = scoresOf(
    nothing.map((own) => ({ ...own, answer: '<loc0000><loc0000><loc0000><loc0000>' })),
    encoding,
  );
  expect(wrong.pointing.free.near).toBe(0);
  expect(wrong.pointing.free.median).toBeGreaterThan(10);
});

test('places are measured from the things themselves, by where those are', () => {
  const [frame] = frames('simple', 1);
  const { objects, fixtures } = thingsOf(frame);
  const answer = '<loc0512><loc0256><loc0512><loc0512>';
  expect(placesIn(answer)).toEqual([
    [512 / 1023, 256 / 1023],
    [512 / 1023, 512 / 1023],
  ]);
  const at = ([down, across]: number[]) => ({ place: [(512 + down) / 1023, (256 + across) / 1023] as const });
  const named = [
    { ...objects[0], ...at([0, 0]) },
    { ...fixtures[0], ...at([0, 256 + (1023 * 3) / 64]) },
    { ...objects[1], ...at([0, 0]) },
  ];
  const own = { frame, question: { kind: 'task' as const, prompt: '', answer: '', named }, answer };
  expect(distancesOf(own).map((distance) => distance.toFixed(3))).toEqual(['0.000', '3.000', 'Infinity']);
  const held = { ...own, frame: { ...frame, held: objects[0].index } };
  const { pointing } = scoresOf([own, held], encoding);
  // An object that lies there while another one is in the gripper counts in neither.
  expect([pointing.free.count, pointing.held.count, pointing.fixtures.count]).toEqual([2, 1, 2]);
  expect([pointing.free.near, pointing.held.near, pointing.fixtures.near]).toEqual([0.5, 1, 1]);
});

test("instructions of the set 'words' are of forms that training lacks", async () => {
  const prompts = (await asked(frames('words', 4))).flatMap(({ question: { kind, prompt } }) =>
    kind === 'task' ? [prompt] : [],
  );
  const verbs = worldLanguage.templates.place.heldOut.map((template) => template.split(' ')[0]);
  for (const prompt of prompts) expect(verbs).toContain(prompt.split(' ')[0]);
});
