/** A batch that does not fit the model is refused in one line that names what is wrong. */
import { expect, test } from 'vitest';
import { InputError } from '../../engine/index.ts';
import type { TrainingBatch } from '../../model/architecture/inputs.ts';
import { Architecture, Model } from '../../model/architecture/model.ts';
import { trainingInputs } from '../../model/architecture/training-pass.ts';
import { act } from '../../model/policy/acting.ts';
import { testDevice } from '../support/devices.ts';
import { manyObjectives, unevenBatch } from '../support/many-objectives.ts';

const architecture = new Architecture(manyObjectives);
const good = unevenBatch(3);
const { language, target } = good.ids;
const ids = (change: Partial<typeof language>) => ({ ids: { target, language: { ...language, ...change } } });
const rows = (name: string, change: object) => ({
  rowTargets: { ...good.rowTargets, [name]: { ...good.rowTargets![name], ...change } },
});
const without = <T>(record: Readonly<Record<string, T>>, name: string): Record<string, T> =>
  Object.fromEntries(Object.entries(record).filter(([own]) => own !== name));
const one = (numbers: ArrayLike<number>, at: number, value: number) =>
  Float32Array.from(numbers, (own, i) => (i === at ? value : own));

/** A row of the images, which no token loss reads. */
const markedImage = Uint8Array.from(good.lossMask!, (own, row) => (row === 25 ? 1 : own));

test.each<[string, Partial<TrainingBatch>]>([
  ["the batch has 5 numbers of 'flow/noise'; expected 6 x 3 x 4 = 72", { noise: new Float32Array(5) }],
  ["the batch has 2 numbers of 'flow/time'; expected 6", { time: new Float32Array(2) }],
  ["the batch has NaN in 'flow/noise', at number 7", { noise: one(good.noise!, 7, Number.NaN) }],
  ["the batch has Infinity in 'images', at number 9", { images: one(good.images!, 9, Number.POSITIVE_INFINITY) }],
  ["the batch has 3 numbers of 'images'; expected 3 x 2 x 8 x 8 x 3 = 1152", { images: new Float32Array(3) }],
  ["the batch has 2 numbers of 'cameraValid'; expected 3 x 2 = 6", { cameraValid: [1, 1] }],
  ["the batch has 2 numbers of 'ids/language'; expected 3 x 5 = 15", ids({ ids: [1, 2] })],
  ["the batch has 2 numbers of 'valid ids/language'; expected 3 x 5 = 15", ids({ valid: [1, 1] })],
  [
    "the batch has 40 in 'ids/language', at number 0; expected a whole number below 40",
    ids({ ids: one(language.ids, 0, 40) }),
  ],
  ["the batch has 3 numbers of 'rowValid/slots'; expected 3 x 6 = 18", { rowValid: { slots: [1, 1, 1] } }],
  ["the model has no block 'slot'", { rowValid: { slot: [1, 1, 1] } }],
  ['the token loss needs lossTarget and lossMask', { lossMask: null }],
  ["the batch has 3 numbers of 'lossMask'; expected 3 x 25 = 75", { lossMask: [1, 1, 1] }],
  ["the batch has 4 numbers of 'lossTarget'; expected 3 x 25 = 75", { lossTarget: [1, 1, 1, 1] }],
  ['lossMask marks row 0 of example 1; the token loss reads the rows of language, target', { lossMask: markedImage }],
  ['lossMask marks 9 rows of example 0; its targets have 5 at most', { lossMask: good.lossMask && fully(8, 17) }],
  ['the flow loss needs actions, noise and time', { actions: null }],
  ["the goal loss needs rowTargets of 'goal'", { rowTargets: without(good.rowTargets!, 'goal') }],
  ["the batch has 4 numbers of 'goal/valid'; expected 3 x 2 = 6", rows('goal', { valid: [1, 1, 1, 1] })],
  ["the batch has 4 numbers of 'goal/target'; expected 3 x 2 x 3 = 18", rows('goal', { data: [1, 1, 1, 1] })],
  [
    "the batch has 4 in 'rowTargets/kind', at number 0; expected a whole number below 4",
    rows('kind', { data: one(good.rowTargets!.kind.data, 0, 4) }),
  ],
])('%s', (complaint, change) => {
  expect(() => trainingInputs(architecture, { ...good, ...change })).toThrow(complaint);
});

/** Marks rows `from` up to `to` of the first example. */
function fully(from: number, to: number): Uint8Array {
  return Uint8Array.from(good.lossMask!, (own, row) => (row >= from && row < to ? 1 : own));
}

test('acting is refused noise of another size, and an observation without an input', async () => {
  using model = new Model(await testDevice('normal'), manyObjectives);
  const objective = model.objectives.find(({ name }) => name === 'flow');
  await expect(act(model, good, { objective, noise: new Float32Array(4) })).rejects.toThrow(
    "the batch has 4 numbers of 'noise'; expected 3 x 3 x 4 = 36",
  );
  await expect(act(model, { ...good, ids: {} })).rejects.toThrow(InputError);
});
