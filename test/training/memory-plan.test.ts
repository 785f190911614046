import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { type Device, openDevice } from '../../engine/index.ts';
import type { ModelConfiguration } from '../../model/architecture/configuration.ts';
import { Model } from '../../model/architecture/model.ts';
import type { Precision } from '../../model/architecture/precision.ts';
import { act } from '../../model/policy/acting.ts';
import { configurationOf, systemNamed } from '../../model/systems/index.ts';
import { memoryComplaint, memoryPlan, planText } from '../../model/training/memory-plan.ts';
import { prepareRun } from '../../model/training/prepare-run.ts';
import { presetNamed } from '../../model/training/presets.ts';
import { randomBatch } from '../../model/training/random-batch.ts';
import { runTraining } from '../../model/training/run.ts';
import { type RunSettings, runSettings } from '../../model/training/run-settings.ts';
import { Trainer } from '../../model/training/trainer.ts';
import { minutePreset, quietListener, syntheticDataset } from '../support/synthetic-dataset.ts';
import { tinySizes } from '../support/tiny-sizes.ts';

const folder = await mkdtemp(join(tmpdir(), 'insula-plan-'));
afterAll(() => rm(folder, { recursive: true }));

const configurationNamed = (system: string, precision?: Precision) =>
  configurationOf(systemNamed(system), { ...tinySizes, precision });
const settingsFor = (given: Partial<RunSettings>) => runSettings({ preset: presetNamed('nano'), batch: 3, ...given });

/** Dawn's null backend allocates what it is asked for, and computes nothing: what is read from it is anything, and here zero. */
async function nullDevice(): Promise<Device> {
  const device = await openDevice({ adapter: 'null' });
  const read = device.read.bind(device);
  return Object.assign(device, {
    read: async (...own: Parameters<typeof read>) => new ArrayBuffer((await read(...own)).byteLength),
  });
}

/** The most bytes of buffers that there are during two training steps and their measurements, by the device's own count. */
async function usedBytes(device: Device, configuration: ModelConfiguration, settings: RunSettings): Promise<number> {
  const before = device.memory.bytes;
  device.memory.peakBytes = before;
  using model = new Model(device, configuration);
  model.initialise(1);
  const make = async (_: readonly null[], step: number) => randomBatch(configuration, settings.batch, 5, step % 100);
  using trainer = new Trainer(model, { make }, { batch: (_, size) => Array<null>(size).fill(null) }, settings);
  await trainer.prepareStep(0);
  for (const step of [0, 1]) {
    await (await trainer.step(step)).outcome;
    await trainer.measure([null, null], null);
    await trainer.gradientNorms(step);
  }
  for (const parameter of model.parameters) await parameter.read();
  if (settings.actEvery !== null) {
    const observation = randomBatch(configuration, settings.batch, 6);
    const noise = new Float32Array(observation.batch * configuration.horizon * configuration.actionDimension);
    await act(model, observation, { noise, steps: 2 });
  }
  return device.memory.peakBytes - before;
}

describe('a memory plan', () => {
  test.each([
    { system: 'knowledge-insulation', recompute: false },
    { system: 'knowledge-insulation', recompute: true, moments: '8bit' },
    { system: 'pi0', batch: 7, moments: 'bf16', ema: 0.9, actEvery: 1 },
    { system: 'pi0-fast', batch: 2, accumulate: 3, actEvery: 1 },
    { system: 'pi05', precision: 'bf16', moments: '8bit', ema: 0.9, actEvery: 1 },
    { system: 'openvla-oft', batch: 5, accumulate: 2, recompute: true },
    { system: 'robovlms-flamingo-policy-head', batch: 2 },
    { system: 'pi0', lora: 2, precision: 'bf16', batch: 3 },
  ] satisfies Partial<RunSettings>[])('counts what a run allocates: %o', async (given) => {
    using device = await nullDevice();
    const settings = settingsFor(given);
    const configuration = configurationNamed(given.system, settings.precision);
    const before = device.memory.bytes;
    const plan = await memoryPlan(device, configuration, settings);
    expect(device.memory.bytes, 'the plan allocates nothing').toBe(before);
    expect(await usedBytes(device, configuration, settings)).toBe(plan.total);
  });

  test('a run takes what was planned, and is refused where that is too much', async () => {
    using device = await openDevice();
    const before = device.memory.bytes;
    const settings = runSettings({ system: 'pi0', preset: minutePreset, steps: 2, batch: 16 });
    const prepared = await prepareRun({ settings, dataset: syntheticDataset(), listener: quietListener() });
    const run = (bytes: number) =>
      runTraining(device, prepared, {
        checkpointPath: join(folder, 'run.safetensors'),
        memory: { bytes, source: '--memory' },
      });
    const { total } = await memoryPlan(device, prepared.configuration, settings);
    await expect(run(total - 1)).rejects.toThrow(
      /^this run takes \d\.\d MB, more than the \d\.\d MB of --memory: --recompute would take \d\.\d MB$/,
    );
    await expect(run(total / 2)).rejects.toThrow(/: .*--batch \d --accumulate \d would take \d\.\d MB$/);
    await expect(run(total / 100)).rejects.toThrow(
      /; --recompute --moments 8bit --precision bf16 --batch 1 --accumulate 16 --lora 16 would be too much too: choose a smaller model$/,
    );
    expect(device.memory.bytes, 'refused before anything is allocated').toBe(before);
    device.memory.peakBytes = before;
    (await run(total)).policy.model.dispose();
    expect((device.memory.peakBytes - before) / total).toBeCloseTo(1, 1);
  });

  test('a model that no machine holds is planned too', async () => {
    using device = await nullDevice();
    const sizes = { ...tinySizes, depth: 18, backbone: { width: 2048, hidden: 16384 }, vocabulary: 257_152 };
    const configuration = configurationOf(systemNamed('pi0-fast'), sizes);
    const settings = settingsFor({ system: 'pi0-fast', recompute: true });
    const plan = await memoryPlan(device, configuration, settings);
    expect(plan.weights).toBeGreaterThan(9e9);
    expect(planText(plan, settings)).toMatch(
      /^memory of 2\d{3}\.\d M parameters: weights 9\.\d\d GB, .*, total \d+\.\d\d GB, acting /,
    );

    // The settings that save most are given already, but for adapters.
    const least = settingsFor({ system: 'pi0-fast', recompute: true, moments: '8bit', precision: 'bf16', batch: 1 });
    const inHalf = { ...configuration, precision: least.precision };
    const whole = await memoryPlan(device, inHalf, least);
    const given = { bytes: whole.total - 1, source: '--memory' };
    expect(await memoryComplaint(device, inHalf, least, whole, given)).toMatch(/: --lora 16 would take \d\.\d\d GB$/);
    expect(await memoryComplaint(device, inHalf, least, whole, { ...given, bytes: 1e9 })).toMatch(
      /GB of --memory; --lora 16 would be too much too: choose a smaller model$/,
    );
  });
});
