/** A checkpoint has one tensor for each parameter, and each of its moments, in however many pieces of rows they lie on a device. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Device, ParameterSet, readSafetensors } from '../../engine/index.ts';
import { AdamW, type AdamWOptions } from '../../kernels/index.ts';
import { Architecture, Model } from '../../model/architecture/model.ts';
import type { Precision } from '../../model/architecture/precision.ts';
import { trainingInputs } from '../../model/architecture/training-pass.ts';
import { type Checkpoint, openCheckpoint, saveCheckpoint } from '../../model/training/checkpoint.ts';
import { randomBatch } from '../../model/training/random-batch.ts';
import { TrainingStep } from '../../model/training/training-step.ts';
import { testDevice } from '../support/devices.ts';
import { trainRun } from '../support/train-run.ts';

let folder = '';
let checkpoint: Checkpoint;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'insula-split-'));
  const path = join(folder, 'run.safetensors');
  const run = await trainRun(path, { system: 'knowledge-insulation', steps: 1 });
  run.policy.model.dispose();
  checkpoint = await openCheckpoint(path);
});
afterAll(async () => {
  await checkpoint.close();
  await rm(folder, { recursive: true, force: true });
});

/** All parameters and moments by name. */
async function numbersOf(model: Model, optimizer: AdamW): Promise<Map<string, Float32Array>> {
  const numbers = new Map<string, Float32Array>();
  for (const own of model.parameters) numbers.set(own.name, await own.read());
  // A moment in 8 bits keeps no sign of a zero.
  for (const [name, moment] of optimizer.state().tensors)
    numbers.set(
      name,
      (await moment.read()).map((value) => value + 0),
    );
  return numbers;
}

const piecesOf = ({ architecture, parameters }: Model) => architecture.tokenHead(parameters).pieces.length;

test.each<[Precision, AdamWOptions]>([
  ['f32', { average: 0.5 }],
  ['bf16', { moments: '8bit' }],
])('%s, with %o: saved in pieces, it is loaded whole and in other pieces', async (precision, options) => {
  const device = await testDevice('normal');
  const settings = { ...checkpoint.settings, configuration: { ...checkpoint.settings.configuration, precision } };
  const { configuration } = settings;
  const { width } = configuration.experts.backbone;
  const { parameters } = new Architecture(configuration);
  using model = new Model(device, configuration, new ParameterSet(device, parameters, { pieceBytes: 4 * 64 * width }));
  expect(piecesOf(model)).toBe(Math.ceil(configuration.vocabulary / 64));
  expect(piecesOf(model)).toBeGreaterThan(3);
  model.initialise(1);
  using optimizer = new AdamW(model.parameters, options);
  using step = new TrainingStep(model, optimizer, {});
  await step.run([trainingInputs(model.architecture, randomBatch(configuration, 2, 1))], 1e-2, () => {});
  const path = join(folder, `${precision}.safetensors`);
  await saveCheckpoint(path, model, optimizer, settings, checkpoint.progress);
  const expected = await numbersOf(model, optimizer);

  const file = await readSafetensors(path);
  const shape = [configuration.vocabulary, width];
  const { name } = model.architecture.tokenHead(model.parameters);
  expect(file.entry(name).dtype).toBe(precision === 'bf16' ? 'BF16' : 'F32');
  for (const own of [name, `optimizer/firstMoment/${name}`, `optimizer/secondMoment/${name}`])
    expect(file.entry(own).shape).toEqual(shape);
  expect(file.tensors.size).toBe(expected.size);
  await file.close();

  const saved = await openCheckpoint(path);
  const most = Math.max(...parameters.map((own) => (own.splits ? 0 : own.shape.reduce((a, b) => a * b, 4))));
  const limits = { maxStorageBufferBindingSize: Math.max(most, 4 * 128 * width) };
  const limited: Device = Object.create(device, { limits: { value: limits } });
  const counts: number[] = [];
  for (const other of [device, limited]) {
    using loaded = await saved.loadModel(other);
    counts.push(piecesOf(loaded));
    // The averages begin in a step, with bindings larger than those of the limited device.
    using resumed = new AdamW(loaded.parameters, other === device ? options : { ...options, average: undefined });
    await saved.loadOptimizer(resumed);
    expect(resumed.steps).toBe(1);
    for (const [own, numbers] of await numbersOf(loaded, resumed))
      if (other === device || own.includes('Moment/')) expect(numbers, own).toEqual(expected.get(own));
  }
  expect(counts[0]).toBe(1);
  expect(counts[1]).toBeGreaterThan(1);
  await saved.close();
});
