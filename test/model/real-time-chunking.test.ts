/** Real-time chunking: guidance against its formula, and flows that were trained with a delay. */
import * as v from 'valibot';
import { describe, expect, test } from 'vitest';
import { scale } from '../../kernels/index.ts';
import { expectRunnable } from '../../model/architecture/check.ts';
import type { TrainingBatch } from '../../model/architecture/inputs.ts';
import { Model } from '../../model/architecture/model.ts';
import { maximumDelayOf, objectiveSchema, type PreviousChunks } from '../../model/architecture/objectives/index.ts';
import { NoisyChunks } from '../../model/architecture/objectives/noisy-chunks.ts';
import { processes } from '../../model/architecture/objectives/process.ts';
import { guidanceWeight, prefixWeights } from '../../model/architecture/objectives/real-time-chunking.ts';
import { act } from '../../model/policy/acting.ts';
import { Encoding } from '../../model/policy/encoding.ts';
import { Policy } from '../../model/policy/policy.ts';
import {
  configurationOf,
  type System,
  systemNamed,
  withDraws,
  withMaximumDelay,
  withSubtask,
} from '../../model/systems/index.ts';
import { randomBatch } from '../../model/training/random-batch.ts';
import { runSettings, runSettingsSchema, systemOf } from '../../model/training/run-settings.ts';
import { testDevice } from '../support/devices.ts';
import { gradientsOfObjective } from '../support/gradients.ts';
import { expectClose, normals } from '../support/numbers.ts';
import { tinySizes } from '../support/tiny-sizes.ts';

const { horizon, actionDimension } = tinySizes;
const SIZE = horizon * actionDimension;
const BATCH = 2;

test.each([
  ['linear', [1, 1, 3 / 4, 2 / 4, 1 / 4, 0, 0]],
  ['exponential', [1, 1, ...[3 / 4, 2 / 4, 1 / 4].map((w) => (w * (Math.exp(w) - 1)) / (Math.E - 1)), 0, 0]],
  ['ones', [1, 1, 1, 1, 1, 0, 0]],
  ['zeros', [1, 1, 0, 0, 0, 0, 0]],
] as const)('the weights of a %s schedule', (schedule, expected) => {
  expectClose(prefixWeights(schedule, 2, 5, 7), expected, 1e-6, schedule);
  expect(Array.from(prefixWeights(schedule, 6, 5, 7))).toEqual([1, 1, 1, 1, 1, 0, 0]);
});

test('the weight of guidance is bounded', () => {
  expect([1, 0.99].map(guidanceWeight)).toEqual([10, 10]);
  expect(guidanceWeight(0.5)).toBeCloseTo(2);
  expect(guidanceWeight(0.2)).toBeCloseTo(0.25 * 17);
});

/** Samples chunks whose velocity is half of x. */
async function sampled(previous: PreviousChunks | undefined, maximumDelay: number) {
  const device = await testDevice('normal');
  const chunks = new NoisyChunks('flow', processes.flow, { horizon, actionDimension } as never, 1, maximumDelay);
  const noise = normals(BATCH * SIZE, 1);
  const cleans: number[] = [];
  const acting = { device, noise: () => noise, steps: 4, previous };
  const actions = await chunks.sample(acting, BATCH, async ({ x, clean, advance }) => {
    cleans.push(clean);
    return device.step(() => advance(scale(x, 0.5)));
  });
  return { noise, actions, cleans };
}

describe('sampling that continues previous chunks', () => {
  const LEFT = 3;
  const chunks = Array.from({ length: BATCH }, (_, i) => normals(LEFT * actionDimension, 20 + i));
  const previousAt = (i: number) => {
    const row = i % SIZE;
    return row < LEFT * actionDimension ? chunks[Math.floor(i / SIZE)][row] : 0;
  };

  test('is guided by the formula', async () => {
    const { noise, actions, cleans } = await sampled({ chunks, delay: 1, schedule: 'exponential' }, 0);
    expect(cleans).toEqual([0, 0, 0, 0]);
    const weights = prefixWeights('exponential', 1, LEFT, horizon);
    const expected = Array.from(noise, (start, i) => {
      let x = start;
      for (const time of [1, 0.75, 0.5, 0.25]) {
        const velocity = x / 2;
        const tau = 1 - time;
        const factor = ((1 - tau) / tau) * (((1 - tau) ** 2 + tau ** 2) / (1 - tau) ** 2);
        const error = weights[Math.floor((i % SIZE) / actionDimension)] * (previousAt(i) - (x - time * velocity));
        x -= (velocity - Math.min(10, factor) * error) / 4;
      }
      return x;
    });
    expectClose(actions, expected, 1e-6, 'chunks');
  });

  test('has the clean actions in every step of a flow that was trained so', async () => {
    const { noise, actions, cleans } = await sampled({ chunks, delay: 2 }, 2);
    expect(cleans).toEqual([2, 2, 2, 2]);
    const free = await sampled(undefined, 2);
    const expected = noise.map((_, i) => (i % SIZE < 2 * actionDimension ? previousAt(i) : free.actions[i]));
    expect(actions).toEqual(expected);
    expect((await sampled({ chunks, delay: 0 }, 2)).actions).toEqual(free.actions);
  });

  test.each<[PreviousChunks, number, string]>([
    [{ chunks, delay: LEFT + 1 }, 0, 'the delay is 4 control steps, and 3 actions are left'],
    [{ chunks, delay: 2 }, 1, 'the delay is 2 control steps; this policy was trained with at most 1'],
    [{ chunks: [chunks[0], chunks[0].subarray(3)], delay: 0 }, 0, 'has the same number of actions left, up to 4'],
  ])('is refused where it does not fit', async (previous, maximumDelay, reason) => {
    await expect(sampled(previous, maximumDelay)).rejects.toThrow(reason);
  });
});

async function flowOf(model: Model, batch: TrainingBatch) {
  const { loss, gradients } = await gradientsOfObjective(model, batch, 'flow');
  return { loss, gradients: Object.values(gradients) };
}

const configured = (system: System) => configurationOf(system, { ...tinySizes, stateDimension: 0 });

// Adaptive norms, with a token beside the actions and with copies; and concatenated time.
const adaptive = withDraws(withSubtask(systemNamed('knowledge-insulation'), { tokens: 4, dimension: 28 })!, 2)!;
describe.each<[string, System]>([
  ['adaptive norms', adaptive],
  ['concatenated time', systemNamed('pi0')],
])('a flow with %s and a delay', (_, system) => {
  const modelOf = async (own: System) => {
    const model = new Model(await testDevice('normal'), configured(own));
    for (const [i, parameter] of [...model.parameters].entries()) parameter.write(normals(parameter.size, i, 0.3));
    return model;
  };
  const delayed = withMaximumDelay(system, 2)!;
  const batch = randomBatch(configured(delayed), BATCH, 5);
  const delays = batch.time!.length === BATCH ? [0, 2] : [0, 2, 1, 1];

  test('draws whole delays up to the longest, and all else as without', () => {
    const plain = randomBatch(configured(system), BATCH, 5);
    const { delays, ...rest } = randomBatch(configured(delayed), BATCH, 5);
    expect(rest).toEqual(plain);
    const many = randomBatch(configured(delayed), 40, 6).delays!;
    expect(new Set(Array.from(many))).toEqual(new Set([0, 1, 2]));
  });

  test('of 0 has the loss and the gradients of the flow without', async () => {
    using own = await modelOf(delayed);
    using plain = await modelOf(system);
    const expected = await flowOf(plain, batch);
    const { loss, gradients } = await flowOf(own, { ...batch, delays: delays.map(() => 0) });
    const flat = (all: readonly Float32Array[]) => all.flatMap((one) => Array.from(one));
    expectClose([loss], [expected.loss], 1e-6, 'loss');
    expectClose(flat(gradients), flat(expected.gradients), 1e-5, 'gradients');
  });

  test('has no loss on clean actions, which decide the others', async () => {
    using model = await modelOf(delayed);
    const { loss } = await flowOf(model, { ...batch, delays });
    const isClean = (i: number) => (i % SIZE) / actionDimension < delays[Math.floor(i / SIZE)];
    const noise = batch.noise!.map((own, i) => (isClean(i) ? -own : own));
    expect((await flowOf(model, { ...batch, noise, delays })).loss).toBe(loss);
    const copies = delays.length / BATCH;
    const actions = batch.actions!.map((own, i) => {
      const row = (i % SIZE) / actionDimension;
      return row < delays[copies * Math.floor(i / SIZE)] ? own + 1 : own;
    });
    expect((await flowOf(model, { ...batch, actions, delays })).loss).not.toBe(loss);
  });

  test('has the gradients of its loss', async () => {
    using model = await modelOf(delayed);
    const { gradients } = await flowOf(model, { ...batch, delays });
    const values = await Promise.all([...model.parameters].map((own) => own.read()));
    // Insulation hides what the loss owes to the backbone.
    const own = gradients.map((one, i) =>
      model.architecture.parameters[i].group === 'expert' ? one : new Float32Array(one.length),
    );
    const norm = Math.hypot(...own.map((one) => Math.hypot(...one)));
    const moved = async (by: number) => {
      for (const [i, parameter] of [...model.parameters].entries())
        parameter.write(values[i].map((value, k) => value + (by * own[i][k]) / norm));
      return (await flowOf(model, { ...batch, delays })).loss;
    };
    const step = 5e-4;
    const difference = ((await moved(step)) - (await moved(-step))) / (2 * step);
    expectClose([norm], [difference], 5e-3, 'gradient');
  });
});

test('a policy takes previous chunks in the units of the robot', async () => {
  const column = {
    count: 1,
    mean: [0, 0, 0],
    std: [1, 1, 1],
    min: [-2, 0, 5],
    max: [4, 1, 9],
    q01: [-2, 0, 5],
    q99: [4, 1, 9],
  };
  const statistics = { bound: 10, actions: column, states: null };
  const encoding = new Encoding({ stateAsText: false, stateBins: 256, cameras: [], actions: null, statistics });
  const sizes = {
    ...tinySizes,
    vocabulary: encoding.vocabularySize,
    vision: null,
    promptTokens: 30,
    stateDimension: 0,
  };
  using model = new Model(await testDevice('normal'), configurationOf(withMaximumDelay(systemNamed('pi0'), 2)!, sizes));
  model.initialise(1);
  const policy = new Policy(model, encoding);
  const observations = ['go', 'stop'].map((instruction) => ({ images: {}, state: null, instruction }));
  const chunks = [Float32Array.of(3, 0.5, 6, -1, 0.25, 8, 1, 1, 5), Float32Array.of(0, 0, 7, 2, 1, 7, 3, 0.5, 6)];
  const acted = await policy.act(observations, { previous: { chunks, delay: 2 } });
  for (const [i, chunk] of acted.entries())
    expectClose(chunk.subarray(0, 6), chunks[i].subarray(0, 6), 1e-6, 'actions');
  expect(acted.map(({ length }) => length)).toEqual([SIZE, SIZE]);
  await expect(policy.act(observations, { previous: { chunks: [chunks[0]], delay: 2 } })).rejects.toThrow(
    'there are 1 previous chunks for 2 observations; give one for each',
  );
});

test('settings of runs and models from before have no delay', () => {
  const { maximumDelay, ...before } = runSettings();
  expect(maximumDelay).toBe(0);
  expect(v.parse(runSettingsSchema, before).maximumDelay).toBe(0);
  const flow = { kind: 'flow', name: 'flow', weight: 1, block: 'action' };
  expect([flow, { ...flow, maximumDelay: 2 }].map((own) => maximumDelayOf(v.parse(objectiveSchema, own)))).toEqual([
    0, 2,
  ]);
  expect(() => v.parse(objectiveSchema, { ...flow, maximumDelay: -1 })).toThrow();
});

test('what has no flow, or no room for the delay, is refused', async () => {
  expect(() => systemOf(runSettings({ system: 'pi0-fast', maximumDelay: 2 }))).toThrow(
    '--maximum-delay: pi0-fast has no flow',
  );
  const long = withMaximumDelay(systemNamed('pi0'), horizon)!;
  expect(() => expectRunnable(configured(long))).toThrow('objective "flow" has a maximum delay of 4 actions; expected');
  const original = systemNamed('hybrid-vla-original');
  const byToken = original.objectives.map((own) =>
    own.kind === 'diffusion' ? ({ ...own, kind: 'flow', maximumDelay: 2 } as const) : own,
  );
  expect(() => expectRunnable(configured({ ...original, objectives: byToken }))).toThrow(
    'actions have times of their own, and block "time" is one time for all',
  );
  using model = new Model(await testDevice('normal'), configured(systemNamed('openvla-oft')));
  model.initialise(1);
  const observation = randomBatch(model.configuration, BATCH, 1);
  const chunks = Array.from({ length: BATCH }, () => new Float32Array(SIZE));
  await expect(act(model, observation, { previous: { chunks, delay: 1 } })).rejects.toThrow(
    'real-time chunking is for systems that act by a flow, and the l1 loss is none',
  );
});
