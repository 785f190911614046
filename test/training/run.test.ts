import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readSafetensors } from '../../engine/index.ts';
import { systemNamed, systems } from '../../model/systems/index.ts';
import { openCheckpoint } from '../../model/training/checkpoint.ts';
import { type RunListener, type RunOptions, runTraining } from '../../model/training/run.ts';
import { testDevice } from '../support/devices.ts';
import { minutePreset, quietListener, syntheticDataset } from '../support/synthetic-dataset.ts';

let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'insula-run-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function run(
  system: string,
  file: string,
  options: Partial<RunOptions> & { listen?: Partial<RunListener> } = {},
) {
  const { listen, ...given } = options;
  const result = await runTraining({
    device: await testDevice('normal'),
    dataset: syntheticDataset(),
    system: systemNamed(system),
    preset: minutePreset,
    seed: 3,
    steps: minutePreset.steps,
    batch: minutePreset.batch,
    checkpointPath: join(folder, file),
    listener: quietListener(listen),
    ...given,
  });
  result.policy.model.dispose();
  return result;
}

const withoutTimes = (result: Awaited<ReturnType<typeof run>>) =>
  result.history.training.map(({ step, tokenLoss, flowLoss }) => ({ step, tokenLoss, flowLoss }));

/** Every tensor of a checkpoint, weights and moments, as bytes. */
async function tensorsOf(file: string): Promise<Map<string, string>> {
  const opened = await readSafetensors(join(folder, file));
  const found = [...opened.tensors].map(([name, { dtype, shape }]) => [name, { dtype, shape }] as const);
  const tensors = new Map<string, string>();
  for (const [name, { shape }] of found) {
    const values = await opened.readFloat32(name, { shape: [...shape] });
    tensors.set(name, Buffer.from(values.buffer, values.byteOffset, values.byteLength).toString('base64'));
  }
  await opened.close();
  return tensors;
}

describe('a run', () => {
  test.each(['knowledge-insulation', 'pi0'])(
    'interrupted and resumed equals the uninterrupted one to the last bit: %s',
    async (system) => {
      const whole = await run(system, `${system}-whole.safetensors`);
      const abort = new AbortController();
      const listen = { step: (step: number) => step === 3 && abort.abort() };
      const part = await run(system, `${system}-part.safetensors`, {
        signal: abort.signal,
        listen: listen as Partial<RunListener>,
      });
      expect(part.finished).toBe(false);
      expect(part.step).toBeGreaterThanOrEqual(3);
      expect(part.step).toBeLessThan(minutePreset.steps);
      const resume = await openCheckpoint(join(folder, `${system}-part.safetensors`));
      const rest = await run(system, `${system}-rest.safetensors`, { resume });
      await resume.close();
      expect(rest.finished).toBe(true);
      expect(withoutTimes(rest)).toEqual(withoutTimes(whole));
      expect(await tensorsOf(`${system}-rest.safetensors`)).toEqual(await tensorsOf(`${system}-whole.safetensors`));
    },
  );

  test.each(systems.map(({ name }) => name))('%s trains, samples and leaves a checkpoint', async (name) => {
    const result = await run(name, `${name}.safetensors`, { steps: 2 });
    expect(result.finished).toBe(true);
    expect(result.openLoop!.error.observations).toBeGreaterThan(0);
    expect(result.openLoop!.error.chunks.every(({ predicted }) => predicted.every(Number.isFinite))).toBe(true);
    const checkpoint = await openCheckpoint(join(folder, `${name}.safetensors`));
    expect(checkpoint.settings.system).toBe(name);
    expect(checkpoint.progress.step).toBe(2);
    await checkpoint.close();
  });

  test('knowledge insulation: no gradient of the flow loss outside the expert, none of the token loss inside', async () => {
    const { history } = await run('knowledge-insulation', 'norms.safetensors', { steps: 2 });
    const norm = (loss: string, group: string) =>
      history.gradients.filter((row) => row.loss === loss && row.group === group).map((row) => row.norm);
    expect(norm('flow', 'vision')).toEqual([0, 0]);
    expect(norm('flow', 'backbone')).toEqual([0, 0]);
    expect(norm('token', 'expert')).toEqual([0, 0]);
    expect(
      Math.min(...norm('flow', 'expert'), ...norm('token', 'backbone'), ...norm('token', 'vision')),
    ).toBeGreaterThan(0);
    const joint = await run('joint-training', 'joint.safetensors', { steps: 2 });
    // At the start the gates of the expert are closed, and with them the way back.
    const reached = joint.history.gradients.find(
      (row) => row.loss === 'flow' && row.group === 'backbone' && row.step > 0,
    );
    expect(reached!.norm).toBeGreaterThan(0);
  });

  test.each([
    ['images', { images: false }, 'no images'],
    ['language', { language: false }, 'no language'],
    ['states', { states: false }, 'no state'],
  ])('without %s it says so and trains', async (_, settings, words) => {
    const notes: string[] = [];
    const listen = { note: (line: string) => notes.push(line) };
    const dataset = syntheticDataset(settings);
    const result = await run('knowledge-insulation', 'lacking.safetensors', {
      dataset,
      steps: 1,
      listen: listen as Partial<RunListener>,
    });
    expect(result.missing).toEqual([words]);
    expect(notes.some((line) => line.includes(words))).toBe(true);
  });

  test('one episode: its last fifth is held out', async () => {
    const result = await run('knowledge-insulation', 'one.safetensors', {
      dataset: syntheticDataset({ episodes: 1 }),
      steps: 1,
    });
    expect(result.split.description).toBe('one episode only: its last 2 of 12 steps held out');
  });

  test('a horizon longer than the longest episode is refused', async () => {
    await expect(run('knowledge-insulation', 'long.safetensors', { horizon: 13 })).rejects.toThrow(
      'horizon 13 is longer than the longest episode',
    );
  });
});
