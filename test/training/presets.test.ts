/** The large presets without a model of them: what they count, what they accept, and what they leave unused. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { type Device, elementCount, streams } from '../../engine/index.ts';
import * as reference from '../../kernels/reference/index.ts';
import { Architecture, Model } from '../../model/architecture/model.ts';
import { measuredConfiguration } from '../../model/inspect/measured-step.ts';
import { configurationOf, type ModelSizes, systemNamed } from '../../model/systems/index.ts';
import { openCheckpoint } from '../../model/training/checkpoint.ts';
import { prepareRun } from '../../model/training/prepare-run.ts';
import { presetNamed } from '../../model/training/presets.ts';
import { DEFAULT_SYSTEM, recommendedSettings } from '../../model/training/recommended.ts';
import type { RunResult } from '../../model/training/run.ts';
import { runSettings } from '../../model/training/run-settings.ts';
import { inBothPrecisions } from '../support/cut-model.ts';
import { testDevice } from '../support/devices.ts';
import { longTest } from '../support/long.ts';
import { relativeError } from '../support/numbers.ts';
import { minutePreset, quietListener, syntheticDataset } from '../support/synthetic-dataset.ts';
import { tinySizes } from '../support/tiny-sizes.ts';
import { trainRun } from '../support/train-run.ts';

const folder = await mkdtemp(join(tmpdir(), 'insula-presets-'));
afterAll(() => rm(folder, { recursive: true }));

const parametersOf = (...given: Parameters<typeof configurationOf>) =>
  new Architecture(configurationOf(...given)).parameters.reduce((sum, { shape }) => sum + elementCount(shape), 0);

describe('the sizes of a preset', () => {
  test.each(['laptop', 'smol', 'paligemma'])('%s has the parameters that its description says', (preset) => {
    const { parameters } = new Architecture(measuredConfiguration(DEFAULT_SYSTEM, { preset }));
    const count = parameters.reduce((sum, { shape }) => sum + elementCount(shape), 0);
    const [, number, unit] = / ([\d.]+) ([MB]) parameters/.exec(presetNamed(preset).description)!;
    const digits = number.split('.')[1]?.length ?? 0;
    // What counts beside the sizes, tokens and actions of the data, is far below the last digit.
    expect(Math.abs(count / { M: 1e6, B: 1e9 }[unit]! - Number(number))).toBeLessThan(0.6 * 10 ** -digits);
  });

  test.each([
    ['pi0', 3_238_048_528],
    ['pi05', 3_353_433_872],
  ])('%s of paligemma has the parameters of openpi', (system, count) => {
    const { image, ...vision } = presetNamed('paligemma').vision;
    const published: ModelSizes = {
      ...presetNamed('paligemma'),
      vocabulary: 257_152,
      vision: { ...vision, imageHeight: image, imageWidth: image, cameras: 3 },
      ...{ promptTokens: 48, targetTokens: 1, horizon: 50, actionDimension: 32, stateDimension: 32 },
    };
    expect(parametersOf(systemNamed(system), published)).toBe(count);
  });

  test.each(['laptop', 'smol', 'paligemma'])('%s begins from random weights, and keeps a recipe', (name) => {
    const { from, rates, preset, subtask } = recommendedSettings({ preset: presetNamed(name) });
    expect({ from, rates, subtask }).toEqual({ from: null, rates: null, subtask: 'places' });
    expect(preset.initialValues).toBe('uniform');
  });
});

describe('rows beyond the vocabulary', () => {
  const prepared = (vocabulary?: number) =>
    prepareRun({
      settings: runSettings({ system: 'knowledge-insulation', preset: { ...minutePreset, vocabulary } }),
      ...{ dataset: syntheticDataset(), listener: quietListener() },
    });

  test('are there as the preset says, have no baseline, and are never chosen', async () => {
    const { encoding, configuration, baselines } = await prepared(5000);
    const { idCount } = encoding;
    expect(idCount).toBe((await prepared()).configuration.vocabulary);
    expect([configuration.vocabulary, encoding.vocabularySize]).toEqual([5000, 5000]);
    expect(baselines.unigram!.length).toBe(idCount);
    expect(Math.max(...encoding.textIds)).toBeLessThan(idCount);
    const writer = encoding.chunkWriter({ horizon: configuration.horizon, dimension: configuration.actionDimension });
    for (let allowed = writer.allowed(); allowed; allowed = writer.allowed()) {
      const ids = [...allowed];
      expect(Math.max(...ids)).toBeLessThan(idCount);
      writer.write(ids[0]);
    }
  });

  test('are none where the data have more ids: the table is widened', async () => {
    const { encoding, configuration } = await prepared(10);
    expect(encoding.idCount).toBeGreaterThan(10);
    expect(configuration.vocabulary).toBe(encoding.idCount);
  });

  test('come back from a checkpoint, which goes on with the same numbers', async () => {
    const path = join(folder, 'rows.safetensors');
    const preset = { ...minutePreset, vocabulary: 3000, initialValues: 'uniform' as const };
    const wanted = { system: 'knowledge-insulation', preset, steps: 2 };
    const whole = await trainRun(join(folder, 'whole.safetensors'), wanted);
    (await trainRun(path, { ...wanted, steps: 1 })).policy.model.dispose();
    const resume = await openCheckpoint(path);
    const { configuration, encoding, run } = resume.settings;
    expect([configuration.vocabulary, encoding.leastRows, run.preset.vocabulary]).toEqual([3000, 3000, 3000]);
    expect([configuration.initialValues, run.preset.initialValues]).toEqual(['uniform', 'uniform']);
    const resumed = await trainRun(path, { resume, steps: 2 });
    const lossesOf = ({ history }: RunResult) => history.training.map(({ losses }) => losses);
    expect(lossesOf(resumed)).toEqual(lossesOf(whole));
    for (const { policy } of [whole, resumed]) policy.model.dispose();
  });
});

test('uniform initial values are those of the host, each parameter from a stream of its own, and others are as ever', async () => {
  const device = await testDevice('normal');
  const configuration = configurationOf(systemNamed('knowledge-insulation'), tinySizes);
  using model = new Model(device, { ...configuration, initialValues: 'uniform' });
  using normal = new Model(device, configuration);
  for (const own of [model, normal]) own.initialise(7);
  for (const [index, { name, initialisation, shape }] of model.architecture.parameters.entries()) {
    const [values, others] = [await model.parameters.get(name).read(), await normal.parameters.get(name).read()];
    if (initialisation === 'zero' || initialisation === 'one') expect(values, name).toEqual(others);
    else {
      const rows = initialisation === 'matrix' ? elementCount(shape) / shape[0] : shape[1];
      const unit = Math.fround(Math.sqrt(3 / rows) / 2 ** 23);
      const address = { seed: 7, step: index, stream: streams.initialisation };
      const exact = reference.randomUniform(values.length, address).map((u) => (u - 0.5) * 2 ** 24 * unit);
      expect(values, name).toEqual(exact);
    }
  }
});

/** Knowledge insulation with these sizes of paligemma's, in bf16 beside f32: losses, and the chunk by two steps of the flow. */
async function expectAlike(device: Device, sizes: Partial<ModelSizes>): Promise<void> {
  const paligemma = presetNamed('paligemma');
  const { image, ...vision } = paligemma.vision;
  const { bf16, f32 } = await inBothPrecisions(device, {
    ...paligemma,
    vision: { ...vision, depth: 2, imageHeight: image, imageWidth: image, cameras: 1 },
    ...{ vocabulary: 1000, depth: 2, promptTokens: 8, targetTokens: 6 },
    ...{ horizon: 5, actionDimension: 7, stateDimension: 7 },
    ...sizes,
  });
  // Activations keep 8 bits, in some twenty roundings from the first row to the last.
  for (const [name, loss] of Object.entries(f32.losses))
    expect(Math.abs(bf16.losses[name] / loss - 1), name).toBeLessThan(0.005);
  expect(relativeError(bf16.actions, f32.actions)).toBeLessThan(0.02);
  expect(bf16.actions).not.toEqual(f32.actions);
}

describe('two layers of paligemma lose and act in bf16 as in f32', () => {
  const narrow = {
    ...{ backbone: { width: 256, hidden: 512 }, expert: { width: 128, hidden: 256 }, heads: 2 },
    vision: {
      ...{ width: 144, heads: 2, hidden: 256, depth: 2, patch: 14, cameras: 1 },
      ...{ imageHeight: 28, imageWidth: 28 },
    },
  };
  test('narrow, with its heads, 256 and 72 wide', async () => expectAlike(await testDevice('normal'), narrow));
  // The kernels of the floor take a minute to compile for these heads.
  longTest('narrow, on the floor', async () => expectAlike(await testDevice('floor'), narrow));
  longTest('as wide as it is', async () => expectAlike(await testDevice('normal'), {}));
});
