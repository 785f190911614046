/** History: windows of control steps in batches, in one sequence or side by side, and in the sessions of a policy that acts. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { demonstrations } from '../../bench/tabletop/demonstrations.ts';
import { evaluateClosedLoop } from '../../bench/tabletop/evaluation.ts';
import { tabletopPolicy } from '../../bench/tabletop/policy.ts';
import { backward, readSafetensors } from '../../engine/index.ts';
import { causal, full, insulated } from '../../kernels/index.ts';
import { expectRunnable } from '../../model/architecture/check.ts';
import type { ModelConfiguration } from '../../model/architecture/configuration.ts';
import { type TrainingBatch, tensorsOf } from '../../model/architecture/inputs.ts';
import { Model } from '../../model/architecture/model.ts';
import { groupsReached } from '../../model/architecture/reach.ts';
import { trainingInputs, trainingPass } from '../../model/architecture/training-pass.ts';
import type { Sample } from '../../model/data/index.ts';
import { act } from '../../model/policy/acting.ts';
import { configurationOf, type System, systemNamed, systems } from '../../model/systems/index.ts';
import { BatchMaker, observationAt } from '../../model/training/batches.ts';
import { openCheckpoint } from '../../model/training/checkpoint.ts';
import { predictedEpisodes } from '../../model/training/predicted-episodes.ts';
import { randomBatch } from '../../model/training/random-batch.ts';
import type { RunResult } from '../../model/training/run.ts';
import { testDevice } from '../support/devices.ts';
import { expectClose, expectZero, normals } from '../support/numbers.ts';
import { minutePreset, quietListener, syntheticDataset } from '../support/synthetic-dataset.ts';
import { tinySizes } from '../support/tiny-sizes.ts';
import { trainRun } from '../support/train-run.ts';

const [WINDOW, EXAMPLES] = [3, 2];
const interleaved = { window: WINDOW, interleaved: true };
const sideBySide = { window: WINDOW, interleaved: false };

/** The actions of a control step from learned rows at its end. */
const reading: System = {
  ...{ name: 'reading', parent: null, description: 'learned rows', source: 'this test' },
  blocks: [
    { name: 'image', input: 'images', weights: 'backbone' },
    { name: 'language', input: 'prompt', weights: 'backbone' },
    { name: 'readout', input: 'learned', weights: 'backbone' },
  ],
  attention: {
    image: { image: full },
    language: { image: full, language: causal },
    readout: { image: full, language: full, readout: causal },
  },
  objectives: [{ kind: 'regression', name: 'l1', weight: 1, rows: { block: 'readout' }, error: 'l1' }],
  ...{ actionTokens: null, stateAsText: false, time: null },
};
const sized = (history: System['history'], system = reading, sizes = tinySizes) =>
  configurationOf({ ...system, history }, sizes);

async function modelOf(configuration: ModelConfiguration): Promise<Model> {
  const model = new Model(await testDevice('normal'), configuration);
  for (const { name, ...parameter } of model.architecture.parameters) {
    // The learned rows of all control steps are the same.
    const seed = [...name.replace(/ \d/, '')].reduce((sum, letter) => (31 * sum + letter.charCodeAt(0)) % 65521, 7);
    model.parameters.get(name).write(
      normals(
        parameter.shape.reduce((size, own) => size * own, 1),
        seed,
        0.3,
      ),
    );
  }
  return model;
}

/** Prediction, loss and gradients of the actions; gradients of the learned rows of several blocks are added up. */
async function measured(model: Model, batch: TrainingBatch) {
  const { device, parameters } = model;
  const { prediction, loss } = device.step(() => {
    parameters.zeroGradients();
    const pass = trainingPass(model, tensorsOf(device, trainingInputs(model.architecture, batch)));
    backward(pass.loss);
    const { prediction, loss } = pass.objectives.l1;
    return { prediction, loss };
  });
  const gradients = new Map<string, Float32Array>();
  for (const { name, grad } of parameters) {
    const key = name.replace(/ \d/, '');
    const own = (await grad!.read()) as Float32Array;
    gradients.set(key, gradients.get(key)?.map((sum, i) => sum + own[i]) ?? own);
  }
  return { prediction: (await prediction.read()) as Float32Array, loss: (await loss.read())[0], gradients };
}

/** The elements of some of `parts` equal parts. */
const partsOf = <T extends Float32Array | Uint8Array | Uint32Array>(
  data: T,
  parts: number,
  chosen: number[],
): number[] =>
  chosen.flatMap((part) => [...data.subarray((part * data.length) / parts, ((part + 1) * data.length) / parts)]);

const textSizes = { ...tinySizes, vision: null };

/** The first control steps of the window written out as the blocks of a model without history, which predicts the last one's actions. */
function writtenOut(steps: number): ModelConfiguration {
  const { blocks, edges, history: _, ...others } = sized(interleaved, reading, textSizes);
  const at = (name: string, step: number) => `${name} ${step + 1}`;
  const numbers = Array.from({ length: steps }, (_, step) => step);
  const before = (step: number) => numbers.slice(0, step).flatMap((own) => blocks.map(({ name }) => at(name, own)));
  return {
    ...others,
    blocks: numbers.flatMap((step) =>
      blocks.map((block) => ({
        ...block,
        name: at(block.name, step),
        after: [...before(step), ...block.after.map((name) => at(name, step))],
      })),
    ),
    edges: numbers.flatMap((step) => [
      ...edges.map(({ query, key, edge }) => ({ query: at(query, step), key: at(key, step), edge })),
      ...blocks.flatMap(({ name }) => before(step).map((key) => ({ query: at(name, step), key, edge: full }))),
    ]),
    objectives: [{ kind: 'regression', name: 'l1', weight: 1, rows: { block: at('readout', steps - 1) }, error: 'l1' }],
  };
}

describe('interleaved control steps', () => {
  test.each([1, 2, 3])(
    'the chunk of step %i is that of a sequence written out, and so are its gradients',
    async (steps) => {
      using together = await modelOf(sized(interleaved, reading, textSizes));
      using written = await modelOf(writtenOut(steps));
      const all = randomBatch(together.configuration, EXAMPLES, 5);
      const numbers = (step: number) => Array.from({ length: EXAMPLES }, (_, example) => example * WINDOW + step);
      const chosen = numbers(steps - 1);
      const batch = {
        ...all,
        actionValid: Uint8Array.from({ length: all.batch * 4 }, (_, i) => (chosen.includes(Math.floor(i / 4)) ? 1 : 0)),
      };
      const { ids, valid } = all.ids.language as Record<'ids' | 'valid', Uint8Array>;
      const language = Array.from({ length: steps }, (_, step) => [
        `language ${step + 1}`,
        { ids: partsOf(ids, all.batch, numbers(step)), valid: partsOf(valid, all.batch, numbers(step)) },
      ]);
      const own = await measured(together, batch);
      const expected = await measured(written, {
        ...all,
        batch: EXAMPLES,
        ids: Object.fromEntries(language),
        actions: Float32Array.from(partsOf(all.actions!, all.batch, chosen)),
      });
      expectClose(partsOf(own.prediction, all.batch, chosen), expected.prediction, 1e-5, 'chunks');
      expectClose([own.loss], [expected.loss], 1e-5, 'loss');
      expect([...own.gradients.keys()].sort()).toEqual([...expected.gradients.keys()].sort());
      for (const [name, gradient] of expected.gradients) expectClose(own.gradients.get(name)!, gradient, 2e-5, name);
    },
  );

  test.each([
    ['see the steps before', interleaved, [1, 2]],
    ['side by side see their own', sideBySide, [1]],
  ] as const)('control steps that %s, in training and acting', async (_, history, expected) => {
    using model = await modelOf(sized(history));
    using without = await modelOf(sized(undefined));
    const batch = randomBatch(model.configuration, EXAMPLES, 6);
    const images = batch.images!.slice();
    for (let i = 0; i < images.length / batch.batch; i++) images[images.length / batch.batch + i] += 1;
    const { prediction } = await measured(model, batch);
    const other = await measured(model, { ...batch, images });
    const steps = Array.from({ length: batch.batch }, (_, step) => step);
    const chunkAt = (data: Float32Array, step: number) => partsOf(data, batch.batch, [step]).join();
    expect(steps.filter((step) => chunkAt(prediction, step) !== chunkAt(other.prediction, step))).toEqual(expected);
    expectClose((await act(model, batch))!, prediction, 1e-6, 'acting');
    const alone = await measured(without, batch);
    const same = steps.filter((step) => chunkAt(prediction, step) === chunkAt(alone.prediction, step));
    expect(same).toEqual(history.interleaved ? same : steps);
    if (history.interleaved) expect(same).not.toContain(WINDOW - 1);
  });

  test.each([interleaved, sideBySide])('the gradient of an insulated expert, %o', async (history) => {
    const apart: System = {
      ...reading,
      blocks: reading.blocks.map((own) => (own.name === 'readout' ? { ...own, weights: 'expert' } : own)),
      attention: { ...reading.attention, readout: { image: insulated, language: insulated, readout: full } },
    };
    using model = await modelOf(sized(history, apart));
    const { gradients } = await measured(model, randomBatch(model.configuration, EXAMPLES, 7));
    // A later control step sees the earlier ones in full.
    const reached = groupsReached(model.configuration, ['readout']);
    expect(reached).toEqual(new Set(history.interleaved ? ['expert', 'backbone', 'vision'] : ['expert']));
    for (const { name, group } of model.architecture.parameters)
      if (!reached.has(group)) expectZero(gradients.get(name)!, name);
      else if (name.endsWith('layers.0.self_attn.v_proj.weight'))
        expect(gradients.get(name)!.some((own) => own !== 0)).toBe(true);
  });
});

test.each<[string, System, System['history']]>([
  ['history has a window of 0; expected a positive integer', reading, { window: 0, interleaved: false }],
  ['history has a window of 1.5', reading, { window: 1.5, interleaved: true }],
  ['block "target" holds a target, which acting would have to decode', systemNamed('pi0-fast'), sideBySide],
  ['later control steps would see block "action", whose noisy actions', systemNamed('pi0'), interleaved],
])('refused: %s', (words, system, history) => {
  expect(() => expectRunnable(sized(history, system))).toThrow(words);
});

test('a window of one control step, and a flow whose control steps are side by side, are not refused', () => {
  expect(() => expectRunnable(sized({ window: 1, interleaved: true }))).not.toThrow();
  expect(() => expectRunnable(sized(sideBySide, systemNamed('pi0')))).not.toThrow();
});

describe('a run with history', () => {
  const named = [interleaved, sideBySide].map((history) => ({
    ...{ ...reading, history },
    name: history.interleaved ? 'interleaved' : 'side-by-side',
  }));
  let folder = '';
  let result: RunResult;
  const preset = { ...minutePreset, evaluateEvery: 2 };
  const run = (file: string, more: Parameters<typeof trainRun>[1] = {}) =>
    trainRun(join(folder, file), { system: 'interleaved', preset, augment: true, ...more });
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'insula-history-'));
    (systems as System[]).push(...named);
    result = await run('whole.safetensors');
  });
  afterAll(async () => {
    result.policy.model.dispose();
    (systems as System[]).splice(systems.length - named.length, named.length);
    await rm(folder, { recursive: true, force: true });
  });

  /** Weights and moments as bytes. */
  async function bytesOf(file: string): Promise<string[]> {
    const opened = await readSafetensors(join(folder, file));
    const read = [...opened.tensors].map(([name, { shape }]) => opened.readFloat32(name, { shape: [...shape] }));
    const bytes = (await Promise.all(read)).map((own) => Buffer.from(own.buffer).toString('base64'));
    await opened.close();
    return bytes;
  }

  test('resumes to the same bits, and measures the last control step of each example', async () => {
    const abort = new AbortController();
    const listener = quietListener({ step: (step) => step === 3 && abort.abort() });
    (await run('part.safetensors', { signal: abort.signal, listener })).policy.model.dispose();
    const resume = await openCheckpoint(join(folder, 'part.safetensors'));
    expect(resume.settings.configuration.history).toEqual(interleaved);
    const rest = await run('rest.safetensors', { resume });
    rest.policy.model.dispose();
    expect(await bytesOf('rest.safetensors')).toEqual(await bytesOf('whole.safetensors'));
    expect(rest.openLoop!.error).toEqual(result.openLoop!.error);
    expect(result.openLoop!.error.observations).toBe(preset.heldOutSteps);
    expect(result.openLoop!.batches[0].batch).toBe(WINDOW * preset.heldOutSteps);
  });

  test('two batches of 2 train as a batch of 4 does', async () => {
    const whole = await run('4.safetensors', { batch: 4, steps: 1 });
    const parts = await run('2.safetensors', { batch: 2, accumulate: 2, steps: 1 });
    for (const { policy } of [whole, parts]) policy.model.dispose();
    const [expected, own] = [whole, parts].map(({ history }) => history.training[0].losses.l1);
    expectClose([own], [expected], 1e-6, 'loss');
  });

  test('a batch repeats the first control step of a part, without its actions', async () => {
    const { policy, settings } = result;
    const maker = new BatchMaker(policy.encoding, settings.configuration, settings.run);
    const [episode] = syntheticDataset().episodes;
    const part = { episode, from: 4, to: 12 };
    const samples = [4, 5, 11].map((step): Sample => ({ part, step, instruction: 'lift' }));
    const { batch, observations, actionValid, ids } = await maker.make(samples, 0);
    const seen = [4, 4, 4, 4, 4, 5, 9, 10, 11];
    expect(batch).toBe(seen.length);
    expect(observations.map(({ state }) => state)).toEqual(
      seen.map((step) => episode.states!.subarray(2 * step, 2 * step + 2)),
    );
    const pictures = await Promise.all(seen.map((step) => episode.image('front', step)));
    expect(observations.map(({ images }) => images.front)).toEqual(pictures);
    const real = seen.map((_, i) =>
      Array.from(actionValid!)
        .slice(4 * i, 4 * i + 4)
        .reduce((sum, own) => sum + own, 0),
    );
    expect(real).toEqual([0, 0, 4, 0, 4, 4, 3, 2, 1]);
    const { length } = settings.configuration.blocks[1];
    const prompts = seen.map((_, i) =>
      [...(ids.language.ids as Int32Array)].slice(i * length, (i + 1) * length).join(),
    );
    expect(new Set(prompts).size).toBe(1);
    // The control steps of a window are augmented alike.
    const training = await maker.make(samples, 0, { use: 'training' });
    expect(training.observations[1].images).toEqual(training.observations[0].images);
    expect(training.observations[3].images).not.toEqual(training.observations[0].images);
  });

  test('a session acts as on the whole window, episode by episode', async () => {
    const { policy } = result;
    const { episodes } = syntheticDataset();
    const at = (index: number, step: number) =>
      observationAt({ part: { episode: episodes[index], from: 0, to: 12 }, step, instruction: 'lift' }, ['front']);
    const both = (step: number) => Promise.all([at(0, step), at(1, step)]);
    const [zero, one, two, three] = await Promise.all([0, 1, 2, 3].map(both));
    const session = policy.session();
    const windows = (...steps: (typeof zero)[]) =>
      policy.actInWindows([0, 1].flatMap((own) => steps.map((s) => s[own])));
    expect(await session.act(zero)).toEqual(await windows(zero, zero, zero));
    expect(await policy.act(zero)).toEqual(await windows(zero, zero, zero));
    expect(await session.act(one)).toEqual(await windows(zero, zero, one));
    for (const index of [0, 1]) session.see(index, two[index]);
    expect(await session.act(three)).toEqual(await windows(one, two, three));
    session.reset(1);
    const [kept, begun] = await session.act(zero);
    expect(kept).toEqual((await windows(two, three, zero))[0]);
    expect(begun).toEqual((await windows(zero, zero, zero))[1]);
    await expect(session.act([zero[0]])).rejects.toThrow('this session has 2 episodes, and there are 1 observations');
    session.reset();
    expect(await session.act([zero[0]])).toEqual([(await windows(zero, zero, zero))[0]]);
    await expect(policy.actInWindows(zero)).rejects.toThrow('2 control steps are no whole windows');

    const part = { episode: episodes[0], from: 0, to: 12 };
    const { episodes: predicted } = await predictedEpisodes(policy, syntheticDataset(), [part]);
    const { horizon } = policy.model.configuration;
    const steps = await Promise.all(
      [2, 3, 4].map((step) => observationAt({ part, step, instruction: episodes[0].instructions[0] }, ['front'])),
    );
    const [second] = await policy.actInWindows(steps);
    expect(horizon).toBe(4);
    expect(predicted[0].actions.slice(horizon * 3, 2 * horizon * 3)).toEqual(second);
  });

  test('acts in the world', async () => {
    const dataset = await demonstrations({ episodes: 3, cacheFolder: folder });
    const { policy } = await run('world.safetensors', { system: 'side-by-side', dataset, horizon: 5, steps: 2 });
    using _ = policy.model;
    const seen: number[] = [];
    const acting = tabletopPolicy(policy);
    const see = acting.see!;
    acting.see = (index, observation) => {
      seen.push(index);
      see(index, observation);
    };
    const { episodes } = await evaluateClosedLoop(acting, { episodes: 2, maximumSteps: 12, executeSteps: 3 });
    expect(episodes.map(({ steps }) => steps)).toEqual([12, 12]);
    // Two control steps of each chunk lie between two calls.
    expect(seen.length).toBe(2 * 4 * 2);
  });
});
