import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { withoutTape } from '../../engine/index.ts';
import { tensorsOf } from '../../model/architecture/inputs.ts';
import { trainingInputs, trainingPass } from '../../model/architecture/training-pass.ts';
import { openCheckpoint } from '../../model/training/checkpoint.ts';
import { PackMaker } from '../../model/training/pack-maker.ts';
import type { RunListener } from '../../model/training/prepare-run.ts';
import {
  type PretrainingOptions,
  type PretrainingResult,
  preparePretraining,
  pretrainingSettings,
  runPretraining,
} from '../../model/training/pretrain.ts';
import { testDevice } from '../support/devices.ts';
import { squares, squaresPreset } from '../support/squares.ts';
import { quietListener } from '../support/synthetic-dataset.ts';

let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'insula-pretraining-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function pretrain(
  file: string,
  { signal, ...given }: Partial<PretrainingOptions> & { signal?: AbortSignal } = {},
): Promise<PretrainingResult> {
  const settings = given.resume?.settings.run ?? pretrainingSettings({ preset: squaresPreset, seed: 3 });
  const prepared = await preparePretraining({ settings, source: squares, listener: quietListener(), ...given });
  return runPretraining(await testDevice('normal'), prepared, { checkpointPath: join(folder, file), signal });
}

/** Mean distance between the places that the model says and the true ones, as a share of the picture. */
async function pointingError({ model, encoding, settings, source }: PretrainingResult): Promise<number> {
  const { architecture, device, configuration } = model;
  const maker = new PackMaker(encoding, configuration, settings.run, source.slots);
  const batch = await maker.make(source.heldOut, 0);
  const inputs = trainingInputs(architecture, batch);
  const prediction = await withoutTape(device, () =>
    device.step(() => trainingPass(model, tensorsOf(device, inputs), { allRows: true }).objectives.token.prediction),
  ).read('u32');
  const bin = (id: number) => Number(/^<loc(\d{4})>$/.exec(encoding.decodeText([id]))?.[1] ?? Number.NaN) / 1023;
  const distances = Array.from(batch.lossMask!).flatMap((own, row) => {
    const place = own ? bin(batch.lossTarget![row]) : Number.NaN;
    return Number.isNaN(place) ? [] : [Math.abs(bin(prediction[row]) - place)];
  });
  expect(distances.length).toBe(source.heldOut.length * 4);
  return distances.reduce((sum, own) => sum + own, 0) / distances.length;
}

/** All that a run has measured, but for the clock. */
const withoutTimes = ({ history }: PretrainingResult) => ({
  ...history,
  training: history.training.map(({ step, losses }) => ({ step, losses })),
});

test('a small model learns to point to the square that a question names', async () => {
  const run = await pretrain('learns.safetensors');
  console.log(JSON.stringify(run.history.heldOut, null, 0), run.seconds);
  console.log(await pointingError(run));
  run.model.dispose();
});

test('interrupted and resumed equals the uninterrupted run to the last bit', async () => {
  const settings = pretrainingSettings({ preset: squaresPreset, seed: 3, steps: 5, augment: true });
  const preset = { ...settings.preset, evaluateEvery: 2, saveEvery: 3 };
  const own = { settings: { ...settings, preset } };
  const whole = await pretrain('whole.safetensors', own);
  const abort = new AbortController();
  const listener = quietListener({ step: (step) => step === 3 && abort.abort() } as Partial<RunListener>);
  const part = await pretrain('part.safetensors', { ...own, listener, signal: abort.signal });
  expect([part.finished, part.step]).toEqual([false, 3]);
  const resumed = await pretrain('part.safetensors', {
    resume: await openCheckpoint(join(folder, 'part.safetensors')),
  });
  expect([resumed.finished, resumed.step, resumed.resumedAt]).toEqual([true, 5, 3]);
  expect(withoutTimes(resumed)).toEqual(withoutTimes(whole));
  for (const parameter of whole.model.parameters)
    expect(await resumed.model.parameters.get(parameter.name).read(), parameter.name).toEqual(await parameter.read());
  for (const { model } of [whole, part, resumed]) model.dispose();
});
