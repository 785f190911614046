import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { readSafetensors } from '../../engine/index.ts';
import { attentionVariants, chosenVariants, useVariants } from '../../kernels/index.ts';
import { blockNamed } from '../../model/architecture/configuration.ts';
import { objectivesOf } from '../../model/architecture/objectives/index.ts';
import { groupsNotReached } from '../../model/architecture/reach.ts';
import { openDataset, wholeEpisodes, withParaphrases } from '../../model/data/index.ts';
import { Encoding } from '../../model/policy/encoding.ts';
import { systemNamed, systems } from '../../model/systems/index.ts';
import { observationAt } from '../../model/training/batches.ts';
import { openCheckpoint } from '../../model/training/checkpoint.ts';
import type { RunListener } from '../../model/training/prepare-run.ts';
import { testDevice } from '../support/devices.ts';
import { expectClose, normals } from '../support/numbers.ts';
import { minutePreset, quietListener, syntheticDataset, unloaded } from '../support/synthetic-dataset.ts';
import { type TestRun, trainRun } from '../support/train-run.ts';

let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'insula-run-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

type Options = Omit<TestRun, 'listener'> & { listen?: Partial<RunListener> };

async function run(system: string, file: string, options: Options = {}) {
  const result = await train(system, file, options);
  result.policy.model.dispose();
  return result;
}

const train = (system: string, file: string, { listen, ...given }: Options) =>
  trainRun(join(folder, file), { ...given, system, listener: quietListener(listen) });

/** All that a run has measured, but for the clock. */
const withoutTimes = ({ history }: Awaited<ReturnType<typeof run>>) => ({
  ...history,
  training: history.training.map(({ step, losses }) => ({ step, losses })),
});

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

/** Actions with as many numbers as the state has, which follow it. */
function withStates() {
  const plain = syntheticDataset();
  const episodes = plain.episodes.map((episode) => ({
    ...episode,
    states: episode.actions.map((value) => value - 0.1),
  }));
  return { ...plain, stateDimension: plain.actionDimension, episodes };
}

describe('a run', () => {
  test.each([
    ['knowledge-insulation', 3, {}],
    ['pi0', 0, {}],
    [
      'pi05',
      2,
      { accumulate: 2, recompute: true, moments: '8bit', augment: true, ema: 0.5, actEvery: 2, precision: 'bf16' },
    ],
    ['pi0-fast', 1, { moments: 'bf16', delta: true }],
  ] as const)(
    'interrupted and resumed equals the uninterrupted one to the last bit: %s, from step %i on, %o',
    async (system, interruption, settings) => {
      const preset = { ...minutePreset, evaluateEvery: 2, saveEvery: 5 };
      const dataset = 'delta' in settings ? withStates() : syntheticDataset();
      const whole = await run(system, `${system}-whole.safetensors`, { preset, dataset, ...settings });
      const abort = new AbortController();
      if (interruption === 0) abort.abort();
      const listen = { step: (step: number) => step === interruption && abort.abort() };
      const part = await run(system, `${system}-part.safetensors`, {
        ...{ preset, dataset },
        ...settings,
        signal: abort.signal,
        listen: listen as Partial<RunListener>,
      });
      expect(part.finished).toBe(false);
      expect(part.step).toBeGreaterThanOrEqual(interruption);
      expect(part.step).toBeLessThan(minutePreset.steps);
      const resume = await openCheckpoint(join(folder, `${system}-part.safetensors`));
      const rest = await run(system, `${system}-rest.safetensors`, { preset, dataset, resume });
      expect(rest.finished).toBe(true);
      expect(whole.history.training).toHaveLength(minutePreset.steps);
      expect(whole.history.heldOut.map(({ step }) => step)).toEqual([0, 2, 4, 6]);
      expect(withoutTimes(rest)).toEqual(withoutTimes(whole));
      expect(await tensorsOf(`${system}-rest.safetensors`)).toEqual(await tensorsOf(`${system}-whole.safetensors`));
    },
  );

  test('the average of the weights is measured and acts, and neither it nor acting changes a bit of training', async () => {
    const preset = { ...minutePreset, evaluateEvery: 2 };
    const plain = await run('pi0', 'plain.safetensors', { preset });
    const acted = { success: 0.5, rightObject: 0.5, stageScore: 0.25, episodes: 2 };
    const options = { preset, ema: 0.75, actEvery: 4, closedLoop: async () => acted };
    const averaged = await train('pi0', 'averaged.safetensors', options);
    const { history } = averaged;
    expect(history.training.map(({ losses }) => losses)).toEqual(plain.history.training.map(({ losses }) => losses));
    expect(history.gradients).toEqual(plain.history.gradients);
    expect(history.heldOut[0]).toEqual(plain.history.heldOut[0]);
    expect(history.heldOut.at(-1)).not.toEqual(plain.history.heldOut.at(-1));
    const { oneSample, bestConstant } = averaged.openLoop!.error;
    expect(history.acting?.map(({ step }) => step)).toEqual([4, 6]);
    expect(history.acting?.at(-1)).toEqual({ step: 6, openLoop: { oneSample, bestConstant }, closedLoop: acted });
    expect(oneSample).not.toBe(plain.openLoop!.error.oneSample);

    const [own, begun] = [await tensorsOf('averaged.safetensors'), await tensorsOf('plain.safetensors')];
    const names = [...begun.keys()].filter((name) => !name.startsWith('optimizer/'));
    for (const name of names) expect(own.get(`optimizer/trainingWeight/${name}`)).toBe(begun.get(name));
    const acting = await openCheckpoint(join(folder, 'averaged.safetensors'));
    using model = await acting.loadModel(await testDevice('normal'));
    await acting.close();
    for (const name of names) {
      const values = await averaged.policy.model.parameters.get(name).read();
      expect(await model.parameters.get(name).read()).toEqual(values);
    }
    averaged.policy.model.dispose();
  });

  test('actions relative to the state: statistics of differences, and the state comes back', async () => {
    const result = await train('pi0', 'delta.safetensors', { dataset: withStates(), delta: true, steps: 1 });
    const { policy, split } = result;
    const { encoding } = policy;
    expect(encoding.settings.relative).toEqual([true, true, false]);
    const [part] = split.heldOut;
    const sample = { part, step: 0, instruction: null };
    const observation = await observationAt(sample, []);
    const still = encoding.normaliseActions(
      Float32Array.from(observation.state!, (value) => value + 0.1),
      observation,
    );
    const moved = { state: Float32Array.from(observation.state!, (value) => value + 7) };
    const [x, y] = encoding.denormaliseActions(still, moved);
    expectClose([x, y], [moved.state[0] + 0.1, moved.state[1] + 0.1], 1e-5, 'absolute actions');
    expect(() => encoding.denormaliseActions(still, { state: null })).toThrow(
      'this robot: its actions are relative to its state, and the observation has no state',
    );
    policy.model.dispose();
    await expect(run('pi0', 'few.safetensors', { delta: true })).rejects.toThrow(
      '--delta: "synthetic" has 3 action dimensions and 2 of the state',
    );
  });

  test('with its numbers on disk a data set trains to the same bits, and resumes', async () => {
    const whole = await run('knowledge-insulation', 'memory.safetensors');
    const dataset = unloaded(syntheticDataset());
    const abort = new AbortController();
    const listen = { step: (step: number) => step === 2 && abort.abort() } as Partial<RunListener>;
    await run('knowledge-insulation', 'disk-part.safetensors', { dataset, signal: abort.signal, listen });
    const resume = await openCheckpoint(join(folder, 'disk-part.safetensors'));
    const rest = await run('knowledge-insulation', 'disk.safetensors', { dataset, resume });
    expect(withoutTimes(rest)).toEqual(withoutTimes(whole));
    expect(rest.openLoop!.error).toEqual(whole.openLoop!.error);
    expect(await tensorsOf('disk.safetensors')).toEqual(await tensorsOf('memory.safetensors'));
  });

  test.each(['knowledge-insulation', 'pi0'])(
    '%s: accumulating four batches of 2 trains as a batch of 8 does',
    async (system) => {
      const whole = await run(system, 'whole-batch.safetensors', { batch: 8, augment: true });
      const parts = await run(system, 'parts.safetensors', { batch: 2, accumulate: 4, augment: true });
      const losses = ({ history }: typeof whole) =>
        history.training.flatMap(({ losses: { token = 0, flow } }) => [token, flow]);
      // AdamW divides by the size of gradients, so that the noise of f32 grows from step to step.
      expectClose(losses(parts), losses(whole), 1e-3, 'losses of six steps');
      expectClose(losses(parts).slice(0, 2), losses(whole).slice(0, 2), 1e-6, 'losses of the first step');
    },
  );

  test('a run does not go on with other paraphrases', async () => {
    await run('pi0', 'worded.safetensors', { steps: 1 });
    const resume = await openCheckpoint(join(folder, 'worded.safetensors'));
    onTestFinished(() => resume.close());
    const paraphrases = new Map([['put the red cube in the blue bin', ['red to blue']]]);
    const dataset = withParaphrases(syntheticDataset(), paraphrases);
    await expect(run('pi0', 'worded-on.safetensors', { steps: 2, dataset, resume })).rejects.toThrow(
      'data set "synthetic": different instructions (with paraphrases) 3; the run was begun with 2',
    );
  });

  test('a run goes on with the kernels that it was begun with', async () => {
    const device = await testDevice('normal');
    const other = attentionVariants(device, { entry: 'forward', dtype: 'f32', headDimension: 16 }).at(-1)!;
    const variants = {
      attention: [{ entry: 'forward', dtype: 'f32', headDimension: 16, variant: other }],
      matmul: [],
    } as const;
    onTestFinished(() => useVariants(device, { attention: [], matmul: [] }));
    const opened = async (file: string) => {
      const checkpoint = await openCheckpoint(join(folder, file));
      onTestFinished(() => checkpoint.close());
      return checkpoint;
    };
    useVariants(device, variants);
    await run('pi0', 'tuned.safetensors', { steps: 1 });
    useVariants(device, { attention: [], matmul: [] });
    const resume = await opened('tuned.safetensors');
    expect(resume.settings.variants).toEqual(variants);
    await run('pi0', 'tuned-on.safetensors', { steps: 2, resume });
    expect(chosenVariants(device)).toEqual(variants);

    const notes: string[] = [];
    const unknown = { ...variants, attention: [{ ...variants.attention[0], variant: 'quantum' }] };
    const elsewhere = await opened('tuned.safetensors');
    const moved = { ...elsewhere, settings: { ...elsewhere.settings, adapter: 'elsewhere', variants: unknown } };
    await run('pi0', 'moved.safetensors', { steps: 2, resume: moved, listen: { note: (line) => notes.push(line) } });
    expect(notes.join()).toContain('chose on elsewhere do not run here: it goes on with others');
    const continued = await opened('moved.safetensors');
    expect(continued.settings).toMatchObject({ adapter: device.description, variants: chosenVariants(device) });
  });

  test.each([
    ['a measurement between', 'step', 2],
    ['the last save', 'saved', 6],
    ['open loop', 'openLoop', 1],
  ] as const)('interrupted at %s it stops there, and resumed it equals the uninterrupted one', async (_, when, at) => {
    const preset = { ...minutePreset, evaluateEvery: 2 };
    const whole = await run('pi0', 'whole.safetensors', { preset });
    const abort = new AbortController();
    let calls = 0;
    const listen: Partial<RunListener> = {
      [when]: (count: number) => count === at && abort.abort(),
      ...(when !== 'openLoop' && { openLoop: () => calls++ }),
    };
    const part = await run('pi0', 'part.safetensors', { preset, signal: abort.signal, listen });
    expect([part.finished, part.openLoop, calls]).toEqual([false, null, 0]);
    const resume = await openCheckpoint(join(folder, 'part.safetensors'));
    expect(resume.progress.step).toBe(part.step);
    const rest = await run('pi0', 'rest.safetensors', { preset, resume });
    expect(rest.finished).toBe(true);
    expect(withoutTimes(rest)).toEqual(withoutTimes(whole));
    expect(rest.openLoop!.error).toEqual(whole.openLoop!.error);
  });

  test('latency by part of a policy that decodes tokens', async () => {
    const { policy } = await train('pi0-fast', 'latency.safetensors', { steps: 1 });
    const [episode] = syntheticDataset().episodes;
    const sample = { part: wholeEpisodes([episode])[0], step: 0, instruction: episode.instructions[0] };
    const observation = await observationAt(sample, ['front']);
    const parts: string[] = [];
    const onLatency = (part: string, milliseconds: number) => parts.push(milliseconds >= 0 ? part : 'negative');
    await policy.act([observation], { onLatency });
    const tokens = blockNamed(policy.model.configuration, 'target').length;
    policy.model.dispose();
    const later = Array.from({ length: parts.length - 2 }, (_, i) => `token ${i + 2}`);
    expect(parts).toEqual(['images and language', 'prefix', ...later]);
    expect(later.length).toBeGreaterThan(0);
    expect(later.length).toBeLessThan(tokens);
  });

  test.each(['bins', 'stride', 'string'] as const)(
    'action tokens of the kind %s train, act and are kept',
    async (tokens) => {
      const { policy, history } = await train('pi0-fast', `${tokens}.safetensors`, { steps: 2, tokens });
      expect(history.training.every(({ losses }) => losses.token > 0)).toBe(true);
      const { encoding, model } = policy;
      const [episode] = syntheticDataset().episodes;
      const sample = { part: wholeEpisodes([episode])[0], step: 0, instruction: episode.instructions[0] };
      const observation = await observationAt(sample, ['front']);
      const [chunk] = await policy.act([observation]);
      model.dispose();
      expect([...chunk].every(Number.isFinite)).toBe(true);
      const checkpoint = await openCheckpoint(join(folder, `${tokens}.safetensors`));
      await checkpoint.close();
      expect(checkpoint.settings.encoding.actions).toMatchObject({ type: tokens });
      const again = new Encoding(checkpoint.settings.encoding);
      const data = Float32Array.from({ length: chunk.length }, (_, i) => Math.sin(i) / 2);
      const { horizon } = model.configuration;
      expect(again.actionTokens(data, horizon)).toEqual(encoding.actionTokens(data, horizon));
    },
  );

  test.each(['fast', 'bins', 'string'] as const)(
    'whatever a model prefers, its tokens spell a whole chunk: %s',
    async (tokens) => {
      const { policy } = await train('pi0-fast', 'grammar.safetensors', { steps: 1, tokens });
      const { encoding } = policy;
      const { horizon, actionDimension: dimension } = policy.model.configuration;
      policy.model.dispose();
      for (let seed = 1; seed <= 20; seed++) {
        const likes = normals(encoding.vocabularySize, seed);
        const writer = encoding.chunkWriter({ horizon, dimension });
        const ids: number[] = [];
        for (let allowed = writer.allowed(); allowed !== null; allowed = writer.allowed()) {
          const id = [...allowed].reduce((best, own) => (likes[own] > likes[best] ? own : best));
          writer.write(id);
          ids.push(id - encoding.text.vocabularySize);
          expect(ids.length).toBeLessThanOrEqual(tokens === 'string' ? 16 * horizon * dimension : horizon * dimension);
        }
        const strict = encoding.actions!.decode(Int32Array.from(ids), { horizon, dimension });
        expect([...writer.decode()]).toEqual([...Float32Array.from(strict)]);
      }
    },
  );

  test.each(systems.map(({ name }) => name))('%s trains, samples and leaves a checkpoint', async (name) => {
    const notes: string[] = [];
    const result = await run(name, `${name}.safetensors`, {
      steps: 2,
      listen: { note: (line: string) => notes.push(line) } as Partial<RunListener>,
    });
    expect(result.finished).toBe(true);
    const frozen = systemNamed(name).rules?.map(({ match }) => match) ?? [];
    expect(notes.filter((line) => /keeps? random weights/.test(line))).toEqual(
      frozen.length === 0 ? [] : [expect.stringContaining(frozen.join(' and '))],
    );
    expect(result.openLoop!.error.observations).toBeGreaterThan(0);
    expect(result.openLoop!.error.chunks.every(({ predicted }) => predicted.every(Number.isFinite))).toBe(true);
    expect(result.openLoop!.error.decodes?.malformed ?? 0).toBe(0);
    const { configuration } = result.settings;
    // A frozen group has no row, whether or not the loss would reach it.
    const expectedZero = objectivesOf(configuration).flatMap(({ name, blocks }) =>
      groupsNotReached(configuration, blocks).flatMap(({ group }) => (frozen.includes(group) ? [] : [[name, group]])),
    );
    const zero = result.history.gradients.filter(({ step, norm }) => step === 2 && norm === 0);
    expect(zero.map(({ loss, group }) => [loss, group])).toEqual(expectedZero);
    const checkpoint = await openCheckpoint(join(folder, `${name}.safetensors`));
    expect(checkpoint.settings.run.system).toBe(name);
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
  ])('without %s it trains, and a note reports it', async (_, settings, words) => {
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

  test.each<[string, Options, string]>([
    ['seed', { seed: 4 }, '--seed 4: the run was begun with 3; leave it out, or begin anew with --out'],
    ['precision', { precision: 'bf16' }, '--precision bf16: the run was begun with f32'],
    ['memory', { moments: 'bf16' }, '--moments bf16: the run was begun with f32'],
    ['augmentation', { augment: true }, '--augment: the run was begun without it'],
    ['rate', { dataset: { ...syntheticDataset(), rate: 8 } }, 'control steps per second 8; the run was begun with 4'],
    ['cameras', { dataset: syntheticDataset({ images: false }) }, 'cameras none; the run was begun with front'],
  ])('a run does not go on with another %s', async (_, other, words) => {
    await run('pi0', 'begun.safetensors', { steps: 1 });
    const resume = await openCheckpoint(join(folder, 'begun.safetensors'));
    onTestFinished(() => resume.close());
    await expect(run('pi0', 'on.safetensors', { steps: 2, resume, ...other })).rejects.toThrow(words);
  });

  test('a run of a robot with other dimensions is not gone on with', async () => {
    await run('pi0', 'robot.safetensors', { steps: 1 });
    const resume = await openCheckpoint(join(folder, 'robot.safetensors'));
    const dataset = { ...syntheticDataset(), actionDimension: 4 };
    await expect(run('pi0', 'other.safetensors', { dataset, resume })).rejects.toThrow(
      'data set "synthetic": action dimensions 4; the run was begun with 3',
    );
    await resume.close();
  });

  test('one episode: its last fifth is held out', async () => {
    const result = await run('knowledge-insulation', 'one.safetensors', {
      dataset: syntheticDataset({ episodes: 1 }),
      steps: 1,
    });
    expect(result.split.description).toBe('one episode only: its last 2 of 12 steps held out');
  });

  test('augmentation without images is refused', async () => {
    const dataset = syntheticDataset({ images: false });
    await expect(run('pi0', 'blind.safetensors', { dataset, augment: true })).rejects.toThrow(
      '--augment: data set "synthetic" has no images to change',
    );
  });

  test('a horizon longer than the longest episode is refused', async () => {
    await expect(run('robovlms-policy-head', 'long.safetensors', { window: 13 })).rejects.toThrow(
      /^a history of 13 control steps is longer than every episode of "synthetic": the longest has 12; give a smaller/,
    );
    await expect(run('knowledge-insulation', 'long.safetensors', { horizon: 13 })).rejects.toThrow(
      'horizon 13 is longer than the longest episode',
    );
  });
});

const shared = fileURLToPath(new URL('../../../shared/data', import.meta.url));
const there = existsSync(shared);

describe.skipIf(!there)(`a run on real episodes${there ? '' : ' (skipped: ../shared/data is not there)'}`, () => {
  test('trains on bridge, and its policy acts', async () => {
    const dataset = await openDataset(shared, 'bridge');
    const { policy, ...result } = await train('knowledge-insulation', 'bridge.safetensors', { dataset, steps: 2 });
    expect(result.missing).toEqual([]);
    expect(result.history.training.every(({ losses }) => losses.token > 0 && losses.flow > 0)).toBe(true);
    const [part] = result.split.heldOut;
    const sample = { part, step: 0, instruction: part.episode.instructions[0] };
    const observation = await observationAt(sample, dataset.cameras);
    const chunks = await Promise.all([1, 1, 2].map((seed) => policy.act([observation], { seed })));
    policy.model.dispose();
    const [first, again, other] = chunks.map(([chunk]) => [...chunk]);
    expect(first.filter(Number.isFinite)).toHaveLength(5 * 7);
    expect(again).toEqual(first);
    expect(other).not.toEqual(first);
  });
});
