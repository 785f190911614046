/** Denoising beside flows of blocks: diffusion, the time as a token, and heads that denoise on the features of a control step. */
import { describe, expect, test } from 'vitest';
import { backward, randomStream, type Tensor, tensor } from '../../engine/index.ts';
import { causal, full } from '../../kernels/index.ts';
import { actingConfiguration } from '../../model/architecture/acting-configuration.ts';
import { expectRunnable } from '../../model/architecture/check.ts';
import { type ModelConfiguration, windowOf } from '../../model/architecture/configuration.ts';
import { type TrainingBatch, tensorsOf } from '../../model/architecture/inputs.ts';
import { Model } from '../../model/architecture/model.ts';
import type { ObjectiveSettings } from '../../model/architecture/objectives/index.ts';
import { alphaBars, LEVELS, processes } from '../../model/architecture/objectives/process.ts';
import { trainingInputs, trainingPass } from '../../model/architecture/training-pass.ts';
import { act } from '../../model/policy/acting.ts';
import { configurationOf, type System, withDraws } from '../../model/systems/index.ts';
import { randomBatch } from '../../model/training/random-batch.ts';
import { testDevice } from '../support/devices.ts';
import { expectClose, normals } from '../support/numbers.ts';
import { tinySizes } from '../support/tiny-sizes.ts';

const BATCH = 2;
const { horizon, actionDimension } = tinySizes;
const ELEMENTS = horizon * actionDimension;

const observed = { image: full, language: full };

/** HybridVLA as published: everything in one causal language model, the noisy actions too. */
const hybrid: System = {
  name: 'hybrid-vla-original',
  parent: null,
  description: 'noise prediction and tokens in one causal language model',
  source: 'arXiv 2503.10631',
  blocks: [
    { name: 'image', input: 'images', weights: 'backbone' },
    { name: 'language', input: 'prompt', weights: 'backbone' },
    { name: 'state', input: 'state', weights: 'backbone' },
    { name: 'time', input: 'time', weights: 'backbone' },
    { name: 'action', input: 'noisyActions', weights: 'backbone' },
    {
      ...{ name: 'target', input: 'target', weights: 'backbone' },
      after: ['image', 'language', 'state', 'time', 'action'],
    },
  ],
  attention: {
    image: { image: causal },
    language: { image: full, language: causal },
    state: { ...observed, state: full },
    time: { ...observed, state: full, time: full },
    action: { ...observed, state: full, time: full, action: causal },
    target: { ...observed, state: full, time: full, action: full, target: causal },
  },
  objectives: [
    { kind: 'diffusion', name: 'diffusion', weight: 1, block: 'action' },
    { kind: 'nextToken', name: 'token', weight: 1 },
  ],
  actionTokens: 'bins',
  stateAsText: false,
  time: 'token',
};

type Head = Extract<ObjectiveSettings, { kind: 'denoisingHead' }>;

/** RoboVLMs' policy head, with a head that denoises. */
const policyHead = (head: Omit<Head, 'kind' | 'weight' | 'rows'>) => {
  const system: System = {
    ...hybrid,
    blocks: [...hybrid.blocks.slice(0, 2), { name: 'readout', input: 'learned', weights: 'backbone', length: 1 }],
    attention: { image: { image: causal }, language: { image: full, language: causal }, readout: observed },
    objectives: [{ kind: 'denoisingHead', weight: 1, rows: { block: 'readout' }, ...head }],
    actionTokens: null,
    time: null,
    history: { window: 2, interleaved: false },
  };
  return configurationOf(system, tinySizes);
};

const models: Record<string, ModelConfiguration> = {
  'hybrid-vla-original': configurationOf(hybrid, tinySizes),
  'a diffusion head': policyHead({ name: 'diffusion', process: 'diffusion', width: 16, layers: 1 }),
  'a flow head behind an LSTM': policyHead({
    ...{ name: 'flow', process: 'flow', width: 16, layers: 2 },
    trunk: { kind: 'lstm', width: 8, layers: 1 },
  }),
};

async function modelOf(name: string): Promise<Model> {
  const model = new Model(await testDevice('normal'), models[name]);
  for (const [i, parameter] of [...model.parameters].entries()) parameter.write(normals(parameter.size, i, 0.3));
  return model;
}

const passOf = (model: Model, batch: TrainingBatch) =>
  model.device.step(() =>
    trainingPass(model, tensorsOf(model.device, trainingInputs(model.architecture, batch)), { allRows: true }),
  );

test('the schedule is the squared cosine, whose last variance is capped', () => {
  const f = (level: number) => Math.cos((((level / 100 + 0.008) / 1.008) * Math.PI) / 2) ** 2;
  expectClose(
    alphaBars.slice(0, 99),
    Array.from({ length: 99 }, (_, k) => f(k + 1) / f(0)),
    1e-12,
    'alphaBar',
  );
  expect(alphaBars).toHaveLength(LEVELS);
  expect(alphaBars[99] / alphaBars[98]).toBeCloseTo(0.001, 9);
});

/** DDIM in float64: from x at a level, by the predicted noise, to another, or to the actions. */
const ddim = (x: ArrayLike<number>, noise: ArrayLike<number>, from: number, to: number | undefined) =>
  Array.from(x, (value, i) => {
    const clean = (value - Math.sqrt(1 - alphaBars[from]) * noise[i]) / Math.sqrt(alphaBars[from]);
    return to === undefined ? clean : Math.sqrt(alphaBars[to]) * clean + Math.sqrt(1 - alphaBars[to]) * noise[i];
  });

test.each([2, 7, 10, 100])('%i steps of DDIM with the true noise give the actions', async (steps) => {
  const device = await testDevice('normal');
  const { samplingTimes, advance } = processes.diffusion;
  const times = samplingTimes(steps);
  const stride = Math.floor(LEVELS / steps);
  expect(times.map((time) => Math.round(time * LEVELS) - 1)).toEqual(times.map((_, i) => stride * (steps - 1 - i)));
  const [actions, noise] = [normals(12, 1), normals(12, 2)];
  const share = alphaBars[stride * (steps - 1)];
  let x: Tensor = tensor(
    device,
    noise.map((own, i) => Math.sqrt(share) * actions[i] + Math.sqrt(1 - share) * own),
    [12],
  );
  for (const i of times.keys()) x = device.step(() => advance(x, tensor(device, noise, [12]), i, steps));
  // The rounding of x is divided by the share of the actions in it.
  expectClose(await x.read(), actions, 1e-6 + 2e-7 / Math.sqrt(share), 'actions');
});

test('diffusion refuses other times than those of its levels, and a single step', () => {
  const { diffusion } = processes;
  const noised = { actions: new Float32Array(2), noise: new Float32Array(2), time: [0.505] };
  expect(() => diffusion.inputs('d', noised, [1, 1, 2])).toThrow('diffusion has no level at time 0.505');
  for (const steps of [1, 101])
    expect(() => diffusion.samplingTimes(steps)).toThrow(
      `diffusion cannot sample in ${steps} steps; expected 2 to 100`,
    );
});

test('drawn times are those of levels, all alike', () => {
  const times = processes.diffusion.drawTimes(randomStream(1, 0, 0), 5000, 0);
  const levels = Array.from(times, (time) => Math.round(time * LEVELS) - 1);
  expectClose(
    times,
    levels.map((level) => (level + 1) / LEVELS),
    1e-7,
    'times',
  );
  for (let level = 0; level < LEVELS; level++) {
    const count = levels.filter((own) => own === level).length;
    expect(count, `of level ${level}`).toBeGreaterThan(15);
    expect(count, `of level ${level}`).toBeLessThan(90);
  }
});

describe.each(Object.keys(models))('%s', (name) => {
  const [{ name: objective }] = models[name].objectives;
  const process = processes[objective as 'flow' | 'diffusion'];

  test('gradients are those of finite differences', async () => {
    using model = await modelOf(name);
    const batch = randomBatch(model.configuration, BATCH / windowOf(model.configuration), 3);
    const inputs = trainingInputs(model.architecture, batch);
    const lossOf = (learns: boolean) =>
      model.device.step(() => {
        const { loss } = trainingPass(model, tensorsOf(model.device, inputs));
        if (!learns) return loss;
        model.parameters.zeroGradients();
        backward(loss);
        return loss;
      });
    await lossOf(true).read();
    const learned = [...model.parameters].filter((own) => /t_embedder|action_|policy_head|readout/.test(own.name));
    expect(learned.length).toBeGreaterThan(7);
    const gradients = await Promise.all(learned.map((own) => own.grad!.read()));
    for (const [i, parameter] of learned.entries()) {
      const values = await parameter.read();
      const norm = Math.hypot(...gradients[i]);
      const step = 0.01;
      const losses: number[] = [];
      for (const sign of [1, -1]) {
        parameter.write(values.map((own, j) => own + (sign * step * gradients[i][j]) / norm));
        losses.push((await lossOf(false).read())[0]);
      }
      parameter.write(values);
      expectClose([(losses[0] - losses[1]) / (2 * step)], [norm], 1e-2, parameter.name);
    }
  });

  test('sampling takes the steps that passes of training give', async () => {
    using model = await modelOf(name);
    const given = randomBatch(model.configuration, BATCH / windowOf(model.configuration), 4);
    const noise = normals(BATCH * ELEMENTS, 5);
    const states: Float32Array[] = [];
    const onState = (state: Float32Array) => states.push(state);
    const actions = await act(model, given, { noise, steps: 4, onState });
    expect(actions).toEqual(states[3]);
    let x = noise;
    for (const [i, time] of process.samplingTimes(4).entries()) {
      // The noisy chunk of this noise and these actions is x.
      const share = objective === 'flow' ? 0 : alphaBars[Math.round(time * LEVELS) - 1];
      const own = x.map((value) => (share === 0 ? value : (value * (1 - Math.sqrt(1 - share))) / Math.sqrt(share)));
      const batch = { ...given, actions: own, noise: x, time: new Float32Array(BATCH).fill(time) };
      const pass = passOf(model, batch).objectives[objective];
      expectClose(await pass.noisy.read(), x, 1e-5, 'noisy actions');
      const predicted = await pass[process.predicts].read();
      const expected =
        objective === 'flow'
          ? Array.from(x, (value, j) => value - predicted[j] / 4)
          : ddim(x, predicted, 25 * (3 - i), i === 3 ? undefined : 25 * (2 - i));
      expectClose(states[i], expected, 1e-4, `state ${i + 1}`);
      x = states[i];
    }
  });
});

/** An affine map in float64, of a row. */
async function affine(model: Model, name: string, x: ArrayLike<number>): Promise<number[]> {
  const [weight, bias] = await Promise.all(
    ['weight', 'bias'].map((own) => model.parameters.get(`${name}.${own}`).read()),
  );
  return Array.from(bias, (own, row) => {
    let sum = own;
    for (let i = 0; i < x.length; i++) sum += weight[row * x.length + i] * x[i];
    return sum;
  });
}
const swish = (x: readonly number[]) => x.map((own) => own / (1 + Math.exp(-own)));
const sum = (...parts: readonly (readonly number[])[]) =>
  parts[0].map((_, i) => parts.reduce((total, own) => total + own[i], 0));
const transformerSines = (level: number, width: number) =>
  Array.from({ length: width }, (_, i) => {
    const angle = level / 10000 ** ((i % (width / 2)) / (width / 2 - 1));
    return i < width / 2 ? Math.sin(angle) : Math.cos(angle);
  });

test('the token of the time is made from the sines of its level, and later actions do not change earlier ones', async () => {
  using model = await modelOf('hybrid-vla-original');
  const batch = {
    ...randomBatch(model.configuration, BATCH / windowOf(model.configuration), 6),
    time: Float32Array.of(0.08, 0.63),
  };
  const { residuals, objectives } = passOf(model, batch);
  const width = tinySizes.backbone.width;
  const rows = await residuals[0].backbone.read();
  const before = 4 + tinySizes.promptTokens + 1;
  const all = before + 1 + horizon + tinySizes.targetTokens;
  for (const [example, level] of [7, 62].entries()) {
    const hidden = swish(await affine(model, 't_embedder.mlp.0', transformerSines(level, width)));
    const at = (example * all + before) * width;
    const token = await affine(model, 't_embedder.mlp.2', hidden);
    expectClose(rows.slice(at, at + width), token, 1e-5, 'time token');
  }
  const noise = batch.noise!.map((own, i) => (i % ELEMENTS >= ELEMENTS - actionDimension ? own + 1 : own));
  const [first, second] = await Promise.all(
    [objectives, passOf(model, { ...batch, noise }).objectives].map((own) => own.diffusion.noise.read()),
  );
  const changed = first.map((own, i) => (own === second[i] ? 0 : 1));
  expect([...changed.subarray(0, ELEMENTS)]).toEqual([
    ...Array(ELEMENTS - actionDimension).fill(0),
    ...Array(actionDimension).fill(1),
  ]);
});

test('a head denoises by the formula of its documentation, and its loss is a masked mean', async () => {
  using model = await modelOf('a diffusion head');
  const random = randomBatch(model.configuration, BATCH / windowOf(model.configuration), 7);
  const actionValid = Uint8Array.from({ length: BATCH * horizon }, (_, i) => (i === 1 ? 0 : 1));
  const batch = { ...random, actionValid, time: Float32Array.of(0.02, 0.9) };
  const { hidden, objectives } = passOf(model, batch);
  const rows = await hidden.backbone.read();
  const width = tinySizes.backbone.width;
  const each = rows.length / BATCH;
  const at = (name: string, x: ArrayLike<number>) => affine(model, `policy_head.denoiser.${name}`, x);
  const prediction = await objectives.diffusion.noise.read();
  let [squares, count] = [0, 0];
  for (const [example, level] of [1, 89].entries()) {
    const chunk = Array.from(batch.noise!.subarray(example * ELEMENTS, (example + 1) * ELEMENTS));
    const share = alphaBars[level];
    const noisy = chunk.map(
      (own, i) => Math.sqrt(share) * batch.actions![example * ELEMENTS + i] + Math.sqrt(1 - share) * own,
    );
    let h = sum(
      await at('feature_proj', rows.subarray((example + 1) * each - width, (example + 1) * each)),
      await at('action_in_proj', noisy),
      await at('time_mlp_out', swish(await at('time_mlp_in', transformerSines(level, 16)))),
    );
    const [weight, bias] = await Promise.all(
      ['weight', 'bias'].map((own) => model.parameters.get(`policy_head.denoiser.blocks.0.norm.${own}`).read()),
    );
    const mean = h.reduce((total, own) => total + own, 0) / h.length;
    const variance = h.reduce((total, own) => total + (own - mean) ** 2, 0) / h.length;
    const norm = h.map((own, i) => ((own - mean) / Math.sqrt(variance + 1e-6)) * weight[i] + bias[i]);
    h = sum(h, await at('blocks.0.fc2', swish(await at('blocks.0.fc1', norm))));
    const expected = await at('action_out_proj', swish(h));
    expectClose(prediction.subarray(example * ELEMENTS, (example + 1) * ELEMENTS), expected, 1e-5, 'prediction');
    chunk.forEach((own, i) => {
      if (!actionValid[example * horizon + Math.floor(i / actionDimension)]) return;
      squares += (own - expected[i]) ** 2;
      count += 1;
    });
  }
  expectClose(await objectives.diffusion.loss.read(), [squares / count], 1e-5, 'loss');
});

/** The actions and their time alone on an expert: they are copied together. */
const apart: System = {
  ...hybrid,
  blocks: hybrid.blocks.map((own) => (/time|action/.test(own.name) ? { ...own, weights: 'expert' } : own)),
};

test.each([
  ['beside others', hybrid],
  ['alone on their expert', apart],
])('copies of noisy actions and their time, %s, have the mean loss and gradients of each draw', async (_, system) => {
  const device = await testDevice('normal');
  const [several, alone] = [withDraws(system, 2)!, system].map(
    (own) => new Model(device, configurationOf({ ...own, objectives: own.objectives.slice(0, 1) }, tinySizes)),
  );
  for (const model of [several, alone])
    for (const [i, parameter] of [...model.parameters].entries()) parameter.write(normals(parameter.size, i, 0.3));
  const learn = async (model: Model, batch: TrainingBatch) => {
    const { loss } = model.device.step(() => {
      model.parameters.zeroGradients();
      const pass = trainingPass(model, tensorsOf(device, trainingInputs(model.architecture, batch)));
      backward(pass.objectives.diffusion.loss);
      return pass.objectives.diffusion;
    });
    const grads = await Promise.all(
      [...model.parameters].map(async ({ grad, size }) => grad?.read() ?? new Float32Array(size)),
    );
    return [(await loss.read())[0], ...grads.flatMap((own) => [...own])];
  };
  const batch = randomBatch(several.configuration, BATCH, 8);
  const together = await learn(several, batch);
  const means = together.map(() => 0);
  for (const draw of [0, 1]) {
    const chunks = [draw, 2 + draw];
    const noise = Float32Array.from(
      chunks.flatMap((own) => [...batch.noise!.subarray(own * ELEMENTS, (own + 1) * ELEMENTS)]),
    );
    const own = await learn(alone, { ...batch, noise, time: chunks.map((chunk) => batch.time![chunk]) });
    own.forEach((value, i) => {
      means[i] += value / 2;
    });
  }
  expectClose(together, means, 1e-5, 'loss and gradients');
  several.dispose();
  alone.dispose();
});

test('the token of the time stays in an exported model', () => {
  const objectives = hybrid.objectives.map((own) => ({ ...own, auxiliary: own.kind === 'nextToken' }));
  const kept = actingConfiguration(configurationOf({ ...hybrid, objectives }, tinySizes));
  expect(kept.blocks.map(({ name }) => name)).toEqual(['image', 'language', 'state', 'time', 'action', 'target']);
});

const change = (block: string, own: Partial<System['blocks'][number]>): Partial<System> => ({
  blocks: hybrid.blocks.map((other) => (other.name === block ? { ...other, ...own } : other)),
});
const without = (block: string): Partial<System> => ({ blocks: hybrid.blocks.filter(({ name }) => name !== block) });
const head: Head = { kind: 'denoisingHead', name: 'head', weight: 1, rows: { block: 'state' }, process: 'flow' };
const withHead = (own: Partial<Head>): Partial<System> => ({
  blocks: hybrid.blocks.filter(({ input }) => input !== 'noisyActions' && input !== 'time'),
  objectives: [{ ...head, ...own }],
});

test.each<[string, Partial<System>]>([
  [
    'it has two blocks of the flow time, which is one token',
    { blocks: [...hybrid.blocks, { name: 'again', input: 'time', weights: 'backbone' }] },
  ],
  ['block "time" has 2 rows; the flow time is one token', change('time', { length: 2 })],
  [
    'block "time" holds a flow time, and no block holds noisy actions',
    { ...without('action'), objectives: hybrid.objectives.slice(1) },
  ],
  [
    'block "time" runs through "expert", and the noisy actions of its time through "backbone"',
    change('time', { weights: 'expert' }),
  ],
  [
    'block "time" holds the flow time, which also conditions the adaptive norms of "expert": choose one of both',
    {
      time: 'adaptive',
      blocks: hybrid.blocks.map((own) => (/time|action/.test(own.name) ? { ...own, weights: 'expert' } : own)),
    },
  ],
  ['block "time" has 1 repeats, and "action" has 2: each copy has a time of its own', change('action', { repeats: 2 })],
  [
    'block "time" is repeated with the noisy actions, but "action" of the same expert is not',
    {
      blocks: withDraws(hybrid, 2)!
        .blocks.map((own) => (/time|action/.test(own.name) ? { ...own, weights: 'expert' } : own))
        .sort((a, b) => Number(a.name === 'action') - Number(b.name === 'action')),
    },
  ],
  [
    'block "time" is repeated, and reads block "state", which sees its first copy alone',
    {
      blocks: withDraws(hybrid, 2)!.blocks,
      attention: { ...hybrid.attention, state: { ...observed, state: full, action: full } },
    },
  ],
  [
    'block "action" does not see its flow time in block "time"',
    { attention: { ...hybrid.attention, action: { ...observed, action: causal } } },
  ],
  [
    'objectives "diffusion" and "head" both denoise the actions; a batch has one noise and one time for each chunk',
    { objectives: [...hybrid.objectives, head] },
  ],
  ['objective "head" predicts actions, and reads a vision tower', withHead({ rows: { tower: 'vision' } })],
  ['objective "head" reads block "nothing"', withHead({ rows: { block: 'nothing' } })],
  ['the width of objective "head" is 7; a time embedding needs an even number from 4', withHead({ width: 7 })],
  [
    'objective "head" cannot read features of width 32: the width of its trunk is 6, not a multiple of 4',
    withHead({ trunk: { kind: 'mlp', width: 6 } }),
  ],
])('%s', (complaint, own) => {
  expect(() => expectRunnable(configurationOf({ ...hybrid, ...own }, tinySizes))).toThrow(
    `this model cannot run: ${complaint}`,
  );
});
