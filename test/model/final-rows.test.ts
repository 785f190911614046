import { expect, test } from 'vitest';
import { backward } from '../../engine/index.ts';
import { tensorsOf } from '../../model/architecture/inputs.ts';
import { Model } from '../../model/architecture/model.ts';
import { trainingInputs, trainingPass } from '../../model/architecture/training-pass.ts';
import { measuredConfiguration } from '../../model/inspect/measured-step.ts';
import { randomBatch } from '../../model/training/random-batch.ts';
import { testDevice } from '../support/devices.ts';

const BATCH = 2;

/** Losses and gradients of a pass, and the shapes of its final hidden states. */
async function passOf(model: Model, options: { allRows?: boolean; recompute?: boolean }) {
  const { device, architecture, configuration, parameters } = model;
  const pass = device.step(() => {
    const inputs = tensorsOf(device, trainingInputs(architecture, randomBatch(configuration, BATCH, 1)));
    const run = trainingPass(model, inputs, options);
    parameters.zeroGradients();
    backward(run.loss);
    return run;
  });
  const hidden = Object.fromEntries(Object.entries(pass.hidden).map(([name, { shape }]) => [name, shape]));
  const losses = Object.entries(pass.objectives).map(async ([name, { loss }]) => [name, (await loss.read())[0]]);
  const gradients = await Promise.all(
    [...parameters].map(async ({ name, grad }) => [name, await grad!.read()] as const),
  );
  return { hidden, gradients, losses: Object.fromEntries(await Promise.all(losses)) };
}

// The backbone has 16 rows of an image and 32 of a prompt; a target of 24 has a loss in as many rows, and in the one before it.
test.each([
  ['pi0', { expert: [BATCH, 11, 64] }],
  ['pi0-fast', { backbone: [1, BATCH * 25, 96] }],
  ['knowledge-insulation', { backbone: [1, BATCH * 25, 96], expert: [BATCH, 10, 64] }],
])('%s: the last layer makes the rows that a loss reads, and no loss or gradient changes', async (system, shapes) => {
  using model = new Model(await testDevice('normal'), measuredConfiguration(system, {}));
  model.initialise(1);
  const whole = await passOf(model, { allRows: true });
  for (const recompute of [false, true]) {
    const own = await passOf(model, { recompute });
    expect(own.hidden).toEqual(shapes);
    for (const [name, loss] of Object.entries<number>(whole.losses)) expect(own.losses[name]).toBeCloseTo(loss, 5);
    own.gradients.forEach(([name, gradient], i) => {
      const expected = whole.gradients[i][1];
      const scale = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      const error = gradient.reduce((most, value, j) => Math.max(most, Math.abs(value - expected[j])), 0);
      expect(error, name).toBeLessThanOrEqual(2e-5 * scale + 1e-7);
    });
  }
});
