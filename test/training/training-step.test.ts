import { describe, expect, test } from 'vitest';
import { backward, type Device, openDevice } from '../../engine/index.ts';
import { AdamW } from '../../kernels/index.ts';
import { type Inputs, type TrainingBatch, tensorsOf } from '../../model/architecture/inputs.ts';
import { Model } from '../../model/architecture/model.ts';
import type { Precision } from '../../model/architecture/precision.ts';
import { lossShares, trainingInputs, trainingPass, withShares } from '../../model/architecture/training-pass.ts';
import { MeasuredStep, measuredConfiguration } from '../../model/inspect/measured-step.ts';
import { configurationOf, systemNamed } from '../../model/systems/index.ts';
import { randomBatch } from '../../model/training/random-batch.ts';
import type { RunSettings } from '../../model/training/run-settings.ts';
import { type LossTensors, lossesOf, type StepSettings, TrainingStep } from '../../model/training/training-step.ts';
import { countCalls } from '../support/count-calls.ts';
import { testDevice } from '../support/devices.ts';
import { expectClose } from '../support/numbers.ts';
import { distinctSystems, tinySizes } from '../support/tiny-sizes.ts';

const options = { weightDecay: 0.01, maximumNorm: 0.5 };
const rateAt = (step: number) => 1e-3 / (step + 1);

function modelOf(device: Device, system: string, depth = tinySizes.depth, precision?: Precision): Model {
  const model = new Model(device, configurationOf(systemNamed(system), { ...tinySizes, depth, precision }));
  model.initialise(3);
  return model;
}

interface Run extends StepSettings {
  readonly system: string;
  readonly eager?: boolean;
  readonly depth?: number;
  readonly precision?: Precision;
}

/** Losses of the batches of each update, then weights and moments. */
async function bitsOf(
  { system, eager, depth, precision, ...settings }: Run,
  updates: readonly number[][],
): Promise<number[][]> {
  using model = modelOf(await testDevice('normal'), system, depth, precision);
  using optimizer = new AdamW(model.parameters, options);
  using training = new TrainingStep(model, optimizer, settings);
  const losses: number[] = [];
  for (const [update, seeds] of updates.entries()) {
    const batches = seeds.map((seed) =>
      trainingInputs(model.architecture, randomBatch(model.configuration, 3, seed, update)),
    );
    const reading: Promise<number[]>[] = [];
    if (eager) {
      const kept = eagerUpdate(model, optimizer, batches, rateAt(update));
      for (const own of kept) reading.push(read(own));
    } else await training.run(batches, rateAt(update), (own) => reading.push(read(own)));
    losses.push(...(await Promise.all(reading)).flat());
  }
  const bits = [losses];
  for (const tensor of [...model.parameters, ...optimizer.state().tensors.values()])
    bits.push([...(await tensor.read())]);
  return bits;
}

function eagerUpdate(model: Model, optimizer: AdamW, batches: readonly Inputs[], learningRate: number): LossTensors[] {
  return model.device.step(() => {
    model.parameters.zeroGradients();
    const shares = lossShares(model, batches);
    const losses = batches.map((batch, i) => {
      const inputs = batches.length === 1 ? batch : withShares(batch, shares[i]);
      const pass = trainingPass(model, tensorsOf(model.device, inputs));
      backward(pass.loss);
      return lossesOf(pass);
    });
    optimizer.step(learningRate);
    return losses;
  });
}

/** Samples `first` ... `first + count - 1` of inputs of `batch` samples, which lie one after the other in each of them. */
function partOf(inputs: Inputs, first: number, count: number, batch: number): Inputs {
  const cut = ({ data, shape, dtype }: Inputs[string]): Inputs[string] => {
    const size = data.length / batch;
    const rows = (shape[0] / batch) * count;
    return { data: data.slice(first * size, (first + count) * size), shape: [rows, ...shape.slice(1)], dtype };
  };
  return Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, cut(input)]));
}

/** Reads them all at once: the next run overwrites them. */
const read = async (losses: LossTensors) =>
  (await Promise.all(Object.values(losses).map((loss) => loss.read()))).flatMap((numbers) => [...numbers]);
const sixUpdates = Array.from({ length: 6 }, () => [1]);

describe('a captured training step', () => {
  test.each(distinctSystems.map(({ name }) => name))('%s: six batches to the last bit as eagerly', async (system) => {
    const eager = await bitsOf({ system, eager: true }, sixUpdates);
    expect(await bitsOf({ system }, sixUpdates)).toEqual(eager);
    expect(new Set(eager[0]).size, 'no two losses alike').toBe(eager[0].length);
  });

  test('two batches to an update: to the last bit as eagerly, and the mean of their gradients', async () => {
    const system = 'knowledge-insulation';
    const updates = [
      [1, 2],
      [2, 3],
      [4, 1],
    ];
    const accumulated = await bitsOf({ system, accumulate: 2 }, updates);
    expect(accumulated).toEqual(await bitsOf({ system, eager: true }, updates));
    const twice = await bitsOf({ system, accumulate: 2 }, [[1, 1]]);
    const once = await bitsOf({ system }, [[1]]);
    expectClose(twice.slice(1).flat(), once.slice(1).flat(), 1e-6, 'weights and moments');
  });

  test.each(distinctSystems.map(({ name }) => name))(
    '%s: parts of a batch add up to its losses and gradients',
    async (system) => {
      using model = modelOf(await testDevice('normal'), system);
      const { configuration } = model;
      const { horizon } = configuration;
      // The second half has one real step of each chunk, and half of the dimensions: a mean of means would be far off.
      const random = randomBatch(configuration, 8, 1);
      const half = random.batch / 2;
      const whole: TrainingBatch = {
        ...random,
        actionValid: Uint8Array.from({ length: random.batch * horizon }, (_, i) =>
          i < half * horizon || i % horizon === 0 ? 1 : 0,
        ),
        realDimensions: Uint8Array.from({ length: random.batch * configuration.actionDimension }, (_, i) =>
          i < half * configuration.actionDimension || i % 2 === 0 ? 1 : 0,
        ),
      };
      const updated = async (batches: readonly Inputs[]) => {
        model.initialise(3);
        using optimizer = new AdamW(model.parameters, options);
        using training = new TrainingStep(model, optimizer, { accumulate: batches.length });
        const sums: number[] = [];
        const reading: Promise<void>[] = [];
        await training.run(batches, 1e-3, (losses, shares) => {
          const weights = Object.keys(losses).map((name) => shares[name]);
          reading.push(
            read(losses).then((values) =>
              values.forEach((value, i) => {
                sums[i] = (sums[i] ?? 0) + weights[i] * value;
              }),
            ),
          );
        });
        await Promise.all(reading);
        const trained = [...model.parameters].filter(({ grad }) => grad);
        expect(trained.length).toBe(model.architecture.parameters.filter(({ frozen }) => !frozen).length);
        const gradients = await Promise.all(trained.map(({ grad }) => grad!.read()));
        return { losses: sums, gradients: gradients.flatMap((numbers) => [...numbers]) };
      };
      const inputs = trainingInputs(model.architecture, whole);
      const parts = [0, 2, 4, 6].map((first) => partOf(inputs, first, 2, 8));
      const [once, added] = [await updated([inputs]), await updated(parts)];
      expectClose(added.losses, once.losses, 1e-6, 'losses');
      expectClose(added.gradients, once.gradients, 1e-5, 'gradients');
    },
  );

  test('layers that run again in backward: the same numbers, and less memory', async () => {
    const pi0 = await bitsOf({ system: 'pi0', recompute: true, depth: 3 }, sixUpdates);
    expect(pi0).toEqual(await bitsOf({ system: 'pi0', depth: 3 }, sixUpdates));
    // The layers' shares of the condition's gradient are added in another order.
    const system = 'knowledge-insulation';
    const recomputed = await bitsOf({ system, recompute: true, depth: 3 }, [[1]]);
    const kept = await bitsOf({ system, depth: 3 }, [[1]]);
    expect(recomputed[0]).toEqual(kept[0]);
    expectClose(recomputed.slice(1).flat(), kept.slice(1).flat(), 1e-5, 'weights and moments');

    const device = await openDevice({ adapter: 'null' });
    const bytes: number[] = [];
    for (const recompute of [false, true]) {
      using model = modelOf(device, system, 12);
      using optimizer = new AdamW(model.parameters, options);
      using training = new TrainingStep(model, optimizer, { recompute });
      await training.run([trainingInputs(model.architecture, randomBatch(model.configuration, 8, 1))], 1e-3, () => {});
      bytes.push(training.stats().arenaBytes.reduce((sum, size) => sum + size, 0));
    }
    expect(bytes[1] / bytes[0]).toBeLessThan(0.45);
    await device.finish();
    device.close();
  });

  test.each(['knowledge-insulation', 'pi05', 'robovlms-flamingo'])(
    '%s in bf16: its own bits again, and losses within 5 % of those in f32',
    async (system) => {
      const [exact, own, again] = [
        await bitsOf({ system }, sixUpdates),
        await bitsOf({ system, precision: 'bf16' }, sixUpdates),
        await bitsOf({ system, precision: 'bf16' }, sixUpdates),
      ];
      expect(again).toEqual(own);
      expect(own[0]).not.toEqual(exact[0]);
      exact[0].forEach((loss, i) => {
        expect(Math.abs(own[0][i] / loss - 1), `loss ${i}`).toBeLessThan(0.05);
      });
    },
  );

  test('bf16 with moments in 8 bits takes at most 0.6 of the memory of f32', async () => {
    const device = await openDevice({ adapter: 'null' });
    const memoryOf = (settings: Partial<Pick<RunSettings, 'precision' | 'moments'>>) => {
      const system = 'knowledge-insulation';
      using measured = new MeasuredStep(device, system, measuredConfiguration(system, settings), 16, settings);
      measured.capture();
      return measured.step.stats().memory;
    };
    const [whole, half] = [memoryOf({}), memoryOf({ precision: 'bf16', moments: '8bit' })];
    const sum = (memory: typeof whole) => Object.values(memory).reduce((total, bytes) => total + bytes, 0);
    expect(sum(half) / sum(whole)).toBeLessThanOrEqual(0.6);
    expect(half.weights / whole.weights).toBeCloseTo(0.5, 1);
    expect(half.gradients / whole.gradients).toBeCloseTo(1, 2);
    await device.finish();
    device.close();
  });

  test('1,000 steps make encoders, passes and command buffers and nothing else, and take no memory', async () => {
    const device = await openDevice({ adapter: 'null' });
    using model = modelOf(device, 'knowledge-insulation');
    using optimizer = new AdamW(model.parameters, options);
    using training = new TrainingStep(model, optimizer);
    const batches = [0, 1, 2, 3].map((step) =>
      trainingInputs(model.architecture, randomBatch(model.configuration, 3, 1, step)),
    );
    for (const batch of batches) await training.run([batch], 1e-3, () => {});
    const { bytes } = device.memory;
    const calls = countCalls([device.gpu, /^create/], [device.gpu.queue, /^submit/]);
    for (let step = 0; step < 1000; step++) await training.run([batches[step % 4]], 1e-3, () => {});
    expect(calls.end()).toEqual({ createCommandEncoder: 1000, submit: 1000 });
    expect(device.memory.bytes).toBe(bytes);
    const { arenaBytes, lowerBoundBytes, dispatches, submits } = training.stats();
    const total = arenaBytes.reduce((sum, size) => sum + size, 0);
    expect(total / lowerBoundBytes).toBeLessThanOrEqual(1.25);
    expect(submits).toBe(1);
    expect(dispatches).toBeGreaterThan(100);
    await device.finish();
    device.close();
  });

  test('another number of batches than it was made for is refused', async () => {
    using model = modelOf(await testDevice('normal'), 'pi0');
    using optimizer = new AdamW(model.parameters, options);
    using training = new TrainingStep(model, optimizer, { accumulate: 2 });
    await expect(training.run([], 1e-3, () => {})).rejects.toThrow('0 batches; an update takes 2');
    expect(() => new TrainingStep(model, optimizer, { accumulate: 0 })).toThrow('accumulate is 0');
    expect(() => training.list()).toThrow('has not run yet');
  });
});
