import { describe, expect, test } from 'vitest';
import { backward, type Device, openDevice, type Tensor } from '../../engine/index.ts';
import { AdamW } from '../../kernels/index.ts';
import { tensorsOf, trainingInputs } from '../../model/architecture/inputs.ts';
import { trainingPass } from '../../model/architecture/losses.ts';
import { Model } from '../../model/architecture/model.ts';
import { configurationOf, systemNamed, systems } from '../../model/systems/index.ts';
import { randomBatch } from '../../model/training/random-batch.ts';
import { lossesOf, TrainingStep } from '../../model/training/training-step.ts';
import { countCalls } from '../support/count-calls.ts';
import { testDevice } from '../support/devices.ts';
import { tinySizes } from '../support/tiny-sizes.ts';

const options = { weightDecay: 0.01, maximumNorm: 0.5 };
const rateAt = (step: number) => 1e-3 / (step + 1);

function modelOf(device: Device, system: string): Model {
  const model = new Model(device, configurationOf(systemNamed(system), tinySizes));
  model.initialise(3);
  return model;
}

/** Losses of every step, then weights and moments. */
async function bitsOf(system: string, run: (model: Model, optimizer: AdamW) => Promise<number[]>): Promise<number[][]> {
  using model = modelOf(await testDevice('normal'), system);
  using optimizer = new AdamW(model.parameters, options);
  const bits = [await run(model, optimizer)];
  for (const tensor of [...model.parameters, ...optimizer.state().tensors.values()])
    bits.push([...(await tensor.read())]);
  return bits;
}

const read = async (losses: Readonly<Record<string, Tensor>>) => {
  const numbers: number[] = [];
  for (const loss of Object.values(losses)) numbers.push(...(await loss.read()));
  return numbers;
};

describe('a captured training step', () => {
  test.each(systems.map(({ name }) => name))('%s: six batches to the last bit as eagerly', async (system) => {
    const eager = await bitsOf(system, async (model, optimizer) => {
      const losses: number[] = [];
      for (let step = 0; step < 6; step++) {
        const kept = model.device.step(() => {
          model.parameters.zeroGradients();
          const batch = randomBatch(model.configuration, 3, 1, step);
          const pass = trainingPass(model, tensorsOf(model.device, trainingInputs(model.configuration, batch)));
          backward(pass.loss);
          optimizer.step(rateAt(step));
          return lossesOf(pass);
        });
        losses.push(...(await read(kept)));
        for (const loss of Object.values(kept)) loss.dispose();
      }
      return losses;
    });
    const captured = await bitsOf(system, async (model, optimizer) => {
      using training = new TrainingStep(model, optimizer);
      const losses: number[] = [];
      for (let step = 0; step < 6; step++) {
        const inputs = trainingInputs(model.configuration, randomBatch(model.configuration, 3, 1, step));
        losses.push(...(await read(await training.run(inputs, rateAt(step)))));
      }
      return losses;
    });
    expect(captured).toEqual(eager);
    expect(new Set(eager[0]).size, 'no two losses alike').toBe(eager[0].length);
  });

  test('1,000 steps make encoders, passes and command buffers and nothing else, and take no memory', async () => {
    const device = await openDevice({ adapter: 'null' });
    using model = modelOf(device, 'knowledge-insulation');
    using optimizer = new AdamW(model.parameters, options);
    using training = new TrainingStep(model, optimizer);
    const batches = [0, 1, 2, 3].map((step) =>
      trainingInputs(model.configuration, randomBatch(model.configuration, 3, 1, step)),
    );
    for (const batch of batches) await training.run(batch, 1e-3);
    const { bytes } = device.memory;
    const calls = countCalls([device.gpu, /^create/], [device.gpu.queue, /^submit/]);
    for (let step = 0; step < 1000; step++) await training.run(batches[step % 4], 1e-3);
    expect(calls.end()).toEqual({ createCommandEncoder: 1000, submit: 1000 });
    expect(device.memory.bytes).toBe(bytes);
    const { arenaBytes, lowerBoundBytes, dispatches, submits } = training.describe().statistics;
    const total = arenaBytes.reduce((sum, size) => sum + size, 0);
    expect(total / lowerBoundBytes).toBeLessThanOrEqual(1.25);
    expect(submits).toBe(1);
    expect(dispatches).toBeGreaterThan(100);
    await device.finish();
    device.close();
  });
});
