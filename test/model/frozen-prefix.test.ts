/** A prefix whose weights are all frozen costs nothing in backward, and the gradients of what is trained are the same to the bit. */
import { expect, test } from 'vitest';
import { backward, captureStep } from '../../engine/index.ts';
import { tensorsOf } from '../../model/architecture/inputs.ts';
import { Model } from '../../model/architecture/model.ts';
import { type PassOptions, trainingInputs, trainingPass } from '../../model/architecture/training-pass.ts';
import { configurationOf, systemNamed } from '../../model/systems/index.ts';
import { randomBatch } from '../../model/training/random-batch.ts';
import { testDevice } from '../support/devices.ts';
import { tinySizes } from '../support/tiny-sizes.ts';

const configured = (system: string) =>
  configurationOf(systemNamed(system), {
    ...tinySizes,
    rules: [
      { match: 'vision', frozen: true },
      { match: 'backbone', frozen: true },
      ...(system === 'pi05' ? [gates] : []),
    ],
  });
const gates = { match: '*', gateBias: 1 };
/** A pass whose first rows are given computes the gradients of all rows, because these may want them. */
const ofAllRows: PassOptions = { firstRows: (rows) => rows };

async function gradientsOf(model: Model, options: PassOptions) {
  const { device, architecture, parameters } = model;
  const inputs = tensorsOf(device, trainingInputs(architecture, randomBatch(model.configuration, 3, 5)));
  using step = captureStep(device, {}, () => {
    parameters.zeroGradients();
    const { loss } = trainingPass(model, inputs, options);
    backward(loss);
    return { loss };
  });
  await step.run({});
  const trained = [...parameters].filter(({ wantsGradient }) => wantsGradient);
  const gradients = await Promise.all(trained.map(async ({ name, grad }) => [name, await grad!.read()] as const));
  const list = step.list().filter(({ phase }) => phase === 'backward');
  return {
    gradients: Object.fromEntries(gradients),
    operations: list.length,
    flops: list.reduce((sum, { flops = 0 }) => sum + flops, 0),
    bytes: step.stats().arenaBytes.reduce((sum, bytes) => sum + bytes, 0),
  };
}

test.each([
  ['pi0', {}],
  ['pi0', { recompute: true }],
  ['pi05', {}],
] as const)('%s %o', async (system, options) => {
  using model = new Model(await testDevice('normal'), configured(system));
  model.initialise(1);
  const own = await gradientsOf(model, options);
  const whole = await gradientsOf(model, { ...options, ...ofAllRows });
  expect(Object.keys(own.gradients).length).toBeGreaterThan(10);
  expect(own.gradients).toEqual(whole.gradients);
  expect(own.operations).toBeLessThan(whole.operations);
  expect(own.flops).toBeLessThan(0.6 * whole.flops);
  expect(own.bytes).toBeLessThan(0.8 * whole.bytes);
});
