/** Blocks with queries only (`keys: false`): the same model as one in which no block attends to them. */
import { expect, test } from 'vitest';
import { backward } from '../../engine/index.ts';
import type { ModelConfiguration } from '../../model/architecture/configuration.ts';
import { tensorsOf } from '../../model/architecture/inputs.ts';
import { Model } from '../../model/architecture/model.ts';
import { trainingInputs, trainingPass } from '../../model/architecture/training-pass.ts';
import { act } from '../../model/policy/acting.ts';
import { testDevice } from '../support/devices.ts';
import { manyObjectives, unevenBatch } from '../support/many-objectives.ts';
import { expectClose, expectZero, normals } from '../support/numbers.ts';

const BATCH = 3;
/** Rows among others of their expert; rows at the end of it; and two copies, all rows of another. */
const queriesOnly = ['readout', 'slots', 'action'];
const unread: ModelConfiguration = {
  ...manyObjectives,
  edges: manyObjectives.edges.filter(({ key }) => !queriesOnly.includes(key)),
};
const without: ModelConfiguration = {
  ...unread,
  blocks: unread.blocks.map((block) => (queriesOnly.includes(block.name) ? { ...block, keys: false } : block)),
};

async function trained(configuration: ModelConfiguration, recompute: boolean) {
  const device = await testDevice('normal');
  using model = new Model(device, configuration);
  for (const [seed, parameter] of [...model.parameters].entries()) parameter.write(normals(parameter.size, seed, 0.3));
  const inputs = trainingInputs(model.architecture, unevenBatch(BATCH));
  const losses = device.step(() => {
    model.parameters.zeroGradients();
    const pass = trainingPass(model, tensorsOf(device, inputs), { recompute });
    backward(pass.loss);
    return Object.fromEntries(Object.entries(pass.objectives).map(([name, { loss }]) => [name, loss]));
  });
  const read: Record<string, number> = {};
  for (const [name, loss] of Object.entries(losses)) {
    [read[name]] = await loss.read();
    loss.dispose();
  }
  const gradients: Record<string, Float32Array> = {};
  for (const { name, grad } of model.parameters) if (grad) gradients[name] = await grad.read();
  const noise = normals(BATCH * 12, 77);
  const acting = model.objectives.filter(({ acts }) => acts);
  const actions: Record<string, Float32Array> = {};
  for (const objective of acting.filter(({ decode }) => !decode))
    actions[objective.name] = (await act(model, unevenBatch(BATCH), { objective, noise, steps: 3 }))!;
  return { losses: read, gradients, actions };
}

test.each([false, true])('trains and acts alike, recompute %s', async (recompute) => {
  const [actual, expected] = [await trained(without, recompute), await trained(unread, recompute)];
  expect(Object.keys(actual.losses)).toHaveLength(manyObjectives.objectives.length);
  for (const name of Object.keys(expected.losses))
    expectClose([actual.losses[name]], [expected.losses[name]], 1e-6, `loss ${name}`);
  expect(Object.keys(actual.gradients)).toEqual(Object.keys(expected.gradients));
  for (const [name, gradient] of Object.entries(expected.gradients))
    if (/gemma_expert.*[kv]_proj/.test(name)) expectZero(actual.gradients[name], name);
    // A bias of keys moves all scores of a row alike, so that its gradient is nothing but rounding.
    else if (/k_proj\.bias/.test(name)) expect(actual.gradients[name].every((of) => Math.abs(of) < 1e-6)).toBe(true);
    else expectClose(actual.gradients[name], gradient, 1e-5, name);
  expect(Object.keys(actual.actions)).toEqual(['flow', 'l1']);
  for (const [name, own] of Object.entries(expected.actions)) expectClose(actual.actions[name], own, 1e-5, name);
});
