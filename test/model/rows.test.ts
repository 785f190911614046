/** Blocks that are made of no input: learned rows and zeros. */
import { expect, test } from 'vitest';
import type { Tensor } from '../../engine/index.ts';
import { tensorsOf } from '../../model/architecture/inputs.ts';
import { Model } from '../../model/architecture/model.ts';
import { trainingInputs, trainingPass } from '../../model/architecture/training-pass.ts';
import { testDevice } from '../support/devices.ts';
import { manyObjectives, unevenBatch } from '../support/many-objectives.ts';
import { expectZero, normals } from '../support/numbers.ts';

const BATCH = 3;
const WIDTH = 16;

/** The first rows of a block of the backbone, which has 25 rows. */
async function rowsOf(stream: Tensor, start: number, length: number): Promise<number[][]> {
  const numbers = await stream.read();
  expect(numbers.length).toBe(BATCH * 25 * WIDTH);
  return Array.from({ length: BATCH }, (_, sample) => {
    const from = (sample * 25 + start) * WIDTH;
    return [...numbers.subarray(from, from + length * WIDTH)];
  });
}

test('learned rows are those of their table in every example, and begin at zero', async () => {
  using model = new Model(await testDevice('normal'), manyObjectives);
  model.initialise(1);
  const table = model.parameters.get('readout_embedding.weight');
  expect(table.shape).toEqual([2, WIDTH]);
  expectZero(await table.read(), 'initial rows');
  const learned = normals(2 * WIDTH, 5);
  table.write(learned);
  const inputs = trainingInputs(model.architecture, unevenBatch(BATCH));
  const pass = model.device.step(() => trainingPass(model, tensorsOf(model.device, inputs)));
  for (const rows of await rowsOf(pass.residuals[0].backbone, 17, 2)) expect(rows).toEqual([...learned]);
});

test('rows of zeros are zero to the bit, and have no parameters', async () => {
  using model = new Model(await testDevice('normal'), manyObjectives);
  for (const [seed, parameter] of [...model.parameters].entries()) parameter.write(normals(parameter.size, seed, 0.3));
  const inputs = trainingInputs(model.architecture, unevenBatch(BATCH));
  const pass = model.device.step(() => trainingPass(model, tensorsOf(model.device, inputs)));
  const rows = (await rowsOf(pass.residuals[0].backbone, 19, 6)).flat();
  expectZero(rows, 'first rows');
  expect((await rowsOf(pass.residuals[1].backbone, 19, 6)).flat().some((value) => value !== 0)).toBe(true);
  const without = { ...manyObjectives, objectives: manyObjectives.objectives.filter(({ name }) => name !== 'l1') };
  const blocks = without.blocks.filter(({ name }) => name !== 'slots');
  const edges = without.edges.filter(({ query }) => query !== 'slots');
  using smaller = new Model(model.device, { ...without, blocks, edges });
  const names = (own: Model) =>
    [...own.parameters].map(({ name }) => name).filter((name) => !name.startsWith('action_head.'));
  expect(names(smaller)).toEqual(names(model));
});
