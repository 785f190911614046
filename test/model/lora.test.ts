/** Low-rank adaptation of whole models: what it trains, and that it is W + scale B A. */
import { describe, expect, test } from 'vitest';
import { backward, elementCount } from '../../engine/index.ts';
import { AdamW } from '../../kernels/index.ts';
import * as reference from '../../kernels/reference/index.ts';
import type { ModelConfiguration } from '../../model/architecture/configuration.ts';
import { tensorsOf } from '../../model/architecture/inputs.ts';
import { lowRankParts } from '../../model/architecture/layers.ts';
import { merged, withoutAdapters } from '../../model/architecture/merged.ts';
import type { MixtureOptions } from '../../model/architecture/mixture.ts';
import { Architecture, Model } from '../../model/architecture/model.ts';
import { trainingInputs, trainingPass } from '../../model/architecture/training-pass.ts';
import { gradientFlow } from '../../model/inspect/gradient-flow.ts';
import { act } from '../../model/policy/acting.ts';
import { configurationOf, type ModelSizes, type System, systemNamed } from '../../model/systems/index.ts';
import { randomBatch } from '../../model/training/random-batch.ts';
import { TrainingStep } from '../../model/training/training-step.ts';
import { testDevice } from '../support/devices.ts';
import { expectClose, expectZero, normals } from '../support/numbers.ts';
import { tinySizes } from '../support/tiny-sizes.ts';

const RANK = 4;
const lora = { rank: RANK, alpha: 6 };
const SCALE = 6 / RANK;
const insulation = systemNamed('knowledge-insulation');

/** Its tokens are decoded from an encoder, which the expert reads by cross-attention. */
const encoder: System = {
  ...insulation,
  name: 'an encoder',
  experts: { backbone: { encoder: true }, expert: { crossAttention: { every: 2, gated: false } } },
  time: 'concatenate',
};

const adapted = (system: string | System, sizes: Partial<ModelSizes> = {}) =>
  configurationOf(typeof system === 'string' ? systemNamed(system) : system, { ...tinySizes, lora, ...sizes });

/** Random values everywhere, also where training begins from 0. */
async function modelOf(configuration: ModelConfiguration): Promise<Model> {
  const model = new Model(await testDevice('normal'), configuration);
  for (const [i, { name, shape }] of model.architecture.parameters.entries()) {
    const fanIn = elementCount(shape) / shape[0];
    model.parameters.get(name).write(normals(elementCount(shape), i, 0.5 / Math.sqrt(fanIn)));
  }
  return model;
}

/** The loss, and the gradients of all parameters that are not frozen. */
async function gradientsOf(model: Model, options: MixtureOptions = {}) {
  const inputs = trainingInputs(model.architecture, randomBatch(model.configuration, 2, 1));
  const loss = model.device.step(() => {
    model.parameters.zeroGradients();
    const pass = trainingPass(model, tensorsOf(model.device, inputs), options);
    backward(pass.loss);
    return pass.loss;
  });
  const [value] = await loss.read();
  loss.dispose();
  const gradients = new Map<string, Float32Array>();
  for (const { name, grad } of model.parameters) if (grad) gradients.set(name, (await grad.read()) as Float32Array);
  return { loss: value, gradients };
}

/** The model with W + scale B A, computed in float64, in place of each adapted matrix, nothing frozen. */
async function wholeOf(model: Model): Promise<Model> {
  const whole = new Model(model.device, withoutAdapters(model.configuration));
  for (const own of whole.parameters) own.write(await model.parameters.get(own.name).read());
  for (const { name } of model.architecture.parameters) {
    const parts = lowRankParts(name);
    if (!parts) continue;
    const [down, up, matrix] = [name, parts.up, parts.matrix].map((own) => model.parameters.get(own));
    const [m, n] = matrix.shape;
    const product = reference.matmul(await up.read(), await down.read(), { m, n, k: RANK });
    const values = await matrix.read();
    whole.parameters.get(parts.matrix).write(Float32Array.from(values, (value, i) => value + SCALE * product[i]));
  }
  return whole;
}

const squares = (values: Float32Array) => values.reduce((sum, value) => sum + value * value, 0);

const cases: readonly { title: string; configuration: ModelConfiguration }[] = [
  { title: 'knowledge insulation', configuration: adapted(insulation) },
  {
    title: 'the backbone alone',
    configuration: adapted(insulation, { lora: { ...lora, experts: ['backbone'] } }),
  },
  { title: 'the expert alone', configuration: adapted('pi0', { lora: { ...lora, experts: ['expert'] } }) },
  { title: 'cross-attention to an encoder', configuration: adapted(encoder) },
  { title: 'gated cross-attention and history', configuration: adapted('robovlms-flamingo') },
  { title: 'an interleaved history', configuration: adapted('robovlms-interleaved') },
  { title: 'rows without keys', configuration: adapted('openvla-oft') },
];

describe.each(cases)('$title', ({ configuration }) => {
  test('gradients are those of W + scale B A: scale B^T dW and scale dW A^T', async () => {
    using model = await modelOf(configuration);
    using whole = await wholeOf(model);
    const [own, all] = [await gradientsOf(model), await gradientsOf(whole)];
    expectClose([own.loss], [all.loss], 1e-5, 'loss');
    // The gradients of a key's bias vanish: what rounding leaves of them is small beside the others.
    const norm = Math.sqrt([...all.gradients.values()].reduce((sum, one) => sum + squares(one), 0));
    const compare = (actual: Float32Array, expected: ArrayLike<number>, name: string) =>
      expectClose([...actual, 1e-2 * norm], [...Array.from(expected), 1e-2 * norm], 2e-4, name);
    let matrices = 0;
    for (const { name, frozen, adapter } of model.architecture.parameters) {
      if (frozen) expect(own.gradients.has(name), name).toBe(false);
      else if (!adapter) compare(own.gradients.get(name)!, all.gradients.get(name)!, name);
      const parts = lowRankParts(name);
      if (!parts) continue;
      matrices++;
      const [down, up, matrix] = [name, parts.up, parts.matrix].map((own) => model.parameters.get(own));
      const [m, n] = matrix.shape;
      const ofMatrix = all.gradients.get(parts.matrix)!.map((value) => SCALE * value);
      const ofDown = reference.matmul(await up.read(), ofMatrix, { m: RANK, n, k: m, transposeA: true });
      const ofUp = reference.matmul(ofMatrix, await down.read(), { m, n: RANK, k: n, transposeB: true });
      compare(own.gradients.get(name)!, ofDown, name);
      compare(own.gradients.get(parts.up)!, ofUp, parts.up);
    }
    expect(matrices).toBeGreaterThanOrEqual(7 * configuration.depth * configuration.lora!.experts.length);
  });

  test('recomputed layers give the same gradients', async () => {
    using model = await modelOf(configuration);
    const flat = (gradients: Map<string, Float32Array>) => [...gradients.values()].flatMap((own) => [...own]);
    const [own, kept] = [await gradientsOf(model, { recompute: true }), await gradientsOf(model)];
    expect(own.loss).toBe(kept.loss);
    expectClose(flat(own.gradients), flat(kept.gradients), 1e-6, 'recomputed');
  });
});

test('the base begins with the numbers that it has without adapters, A like a matrix, and B with 0', async () => {
  const device = await testDevice('normal');
  using model = new Model(device, adapted(insulation));
  using plain = new Model(device, withoutAdapters(model.configuration));
  for (const own of [model, plain]) own.initialise(3);
  const base = plain.architecture.parameters;
  const { parameters } = model.architecture;
  expect(parameters.slice(0, base.length).map(({ name }) => name)).toEqual(base.map(({ name }) => name));
  for (const { name } of base)
    expect(await model.parameters.get(name).read()).toEqual(await plain.parameters.get(name).read());
  const names = new Set(base.map(({ name }) => name));
  for (const { name, shape, group } of parameters.slice(base.length)) {
    const values = (await model.parameters.get(name).read()) as Float32Array;
    const parts = lowRankParts(name);
    const matrix = parts?.matrix ?? name.replace('lora_B.', '');
    expect(names.has(matrix), matrix).toBe(true);
    expect(base.find((own) => own.name === matrix)!.group).toBe(group);
    if (!parts) expectZero(values, name);
    else expect(Math.sqrt((squares(values) / values.length) * shape[1]), name).toBeCloseTo(1, 0);
  }
  expect([...parameters].filter(({ adapter }) => adapter)).toHaveLength(2 * 7 * 2 * tinySizes.depth);
});

describe.each(['f32', 'bf16'] as const)('a training step with a base in %s', (precision) => {
  test('changes no bit of what is frozen, and has gradients and moments for the rest alone', async () => {
    const device = await testDevice('normal');
    using model = new Model(device, adapted(insulation, { precision }));
    model.initialise(3);
    using optimizer = new AdamW(model.parameters, { weightDecay: 0.01, maximumNorm: 1, average: 0.5 });
    using training = new TrainingStep(model, optimizer);
    const before = new Map<string, ArrayLike<number>>();
    for (const own of model.parameters) before.set(own.name, await own.read());
    const inputs = trainingInputs(model.architecture, randomBatch(model.configuration, 2, 1));
    for (let step = 0; step < 3; step++) await training.run([inputs], 0.01, () => {});
    const { parameters } = model.architecture;
    for (const { name, frozen, adapter, shape } of parameters) {
      const own = model.parameters.get(name);
      const values = await own.read();
      if (frozen) expect(values, name).toEqual(before.get(name));
      else if (adapter) expect(values, name).not.toEqual(before.get(name));
      const isHalf = precision === 'bf16' && !adapter && shape.length > 1 && (own.size / shape[0]) % 4 === 0;
      expect(own.dtype, name).toBe(isHalf ? 'bf16' : 'f32');
    }
    // What a matrix of the transformers would have is in no arena.
    const trained = new Set(parameters.filter(({ frozen }) => !frozen).map(({ name }) => name));
    expect(new Set([...optimizer.state().tensors.keys()].map((name) => name.replace(/^[^/]*\//, '')))).toEqual(trained);
    const elements = (own: readonly { elements: number }[]) => own.reduce((sum, { elements }) => sum + elements, 0);
    const arenas = model.parameters.arenas.filter(({ tensors }) => tensors.some(({ name }) => trained.has(name)));
    const { memory } = training.stats();
    expect(memory.gradients).toBe(4 * elements(arenas));
    expect(memory.moments).toBe(8 * elements(arenas));
    const kept = parameters.filter(({ frozen }) => frozen).reduce((sum, { shape }) => sum + elementCount(shape), 0);
    expect(elements(arenas)).toBeLessThan(elements(model.parameters.arenas) - kept + 1);
  });

  test('has adapters with the gradients of one in f32', async () => {
    using exact = await modelOf(adapted(insulation));
    using model = await modelOf(adapted(insulation, { precision }));
    const [own, all] = [await gradientsOf(model), await gradientsOf(exact)];
    const adapters = model.architecture.parameters.filter(({ adapter }) => adapter).map(({ name }) => name);
    const flat = (gradients: Map<string, Float32Array>) => adapters.flatMap((name) => [...gradients.get(name)!]);
    expectClose(flat(own.gradients), flat(all.gradients), precision === 'f32' ? 0 : 5e-2, 'adapters');
  });
});

test('with adapters on both experts the losses stay as insulated as they are, and what is frozen is marked', async () => {
  using model = await modelOf(adapted(insulation));
  const inputs = trainingInputs(model.architecture, randomBatch(model.configuration, 2, 1));
  const { parts, losses } = await gradientFlow(model, inputs);
  const causes = (loss: string, group: string) =>
    Object.fromEntries(
      parts.flatMap(({ group: own, name }, i) =>
        own === group ? [[name, losses[loss][i].causes?.join(' ') ?? 'another']] : [],
      ),
    );
  const frozen = { embed_tokens: 'frozen', norm: 'frozen' };
  expect(causes('token', 'backbone')).toEqual({ ...frozen, 'layer 0': 'another', 'layer 1': 'another' });
  expect(causes('flow', 'backbone')).toEqual({ ...frozen, 'layer 0': 'table', 'layer 1': 'table' });
  const projections = ['action_in_proj', 'action_out_proj', 'time_mlp_in', 'time_mlp_out'];
  const ofExpert = (cause: string) =>
    Object.fromEntries(['layer 0', 'layer 1', 'norm', ...projections].map((name) => [name, cause]));
  expect(causes('flow', 'expert')).toEqual(ofExpert('another'));
  expect(causes('token', 'expert')).toEqual(ofExpert('no path'));
});

test.each(['knowledge-insulation', 'pi0-fast', 'openvla-oft'])('%s: merged it acts as before', async (system) => {
  using model = await modelOf(adapted(system));
  const { horizon, actionDimension } = model.configuration;
  const observation = randomBatch(model.configuration, 2, 1);
  const noise = normals(2 * horizon * actionDimension, 5);
  const acted = async (own: Model) => {
    const ids: number[] = [];
    const writer = {
      allowed: () => (ids.length < 6 ? ('all' as const) : null),
      write: (_: number, id: number) => ids.push(id) > 0,
    };
    return { actions: await act(own, observation, { noise, writer }), ids };
  };
  const before = await acted(model);
  const whole = await merged(model);
  expect(whole.configuration).not.toHaveProperty('lora');
  const after = await acted(whole);
  expect(after.ids).toEqual(before.ids);
  if (before.actions) expectClose(after.actions!, before.actions, 1e-5, 'actions');
  expect(before.actions !== null || before.ids.length > 0).toBe(true);
});

/** Its expert reads images by cross-attention too, and every norm of it is adaptive. */
const crossing: System = {
  ...insulation,
  name: 'adaptive cross-attention',
  experts: { backbone: { encoder: true }, expert: { crossAttention: { every: 2, gated: false } } },
};

test.each([insulation, crossing, ...['pi0', 'robovlms-flamingo'].map(systemNamed)])(
  '$name: two steps after the start, everything that is trained and that a loss can reach has had a gradient',
  async (system) => {
    const configuration = adapted(system);
    using anywhere = await modelOf(configuration);
    const reached = [...(await gradientsOf(anywhere)).gradients].filter(([, own]) => own.some((value) => value !== 0));
    using model = new Model(anywhere.device, configuration);
    model.initialise(0);
    using optimizer = new AdamW(model.parameters, { weightDecay: 0, maximumNorm: 1 });
    using training = new TrainingStep(model, optimizer);
    const inputs = trainingInputs(model.architecture, randomBatch(configuration, 2, 1));
    const had = new Set<string>();
    for (let step = 0; step < 3; step++) {
      for (const [name, own] of (await gradientsOf(model)).gradients)
        if (own.some((value) => value !== 0)) had.add(name);
      if (step < 2) await training.run([inputs], 1e-3, () => {});
    }
    expect(reached.map(([name]) => name).filter((name) => !had.has(name))).toEqual([]);
    const ofExpert = model.architecture.parameters.filter(({ group, frozen }) => group === 'expert' && !frozen);
    expect(ofExpert.map(({ name }) => name).filter((name) => !had.has(name))).toEqual([]);
  },
);

test('what cannot be adapted is refused, with the matrix', () => {
  const refusal = (own: Partial<typeof lora & { experts: string[] }>) => () =>
    new Architecture(adapted(insulation, { lora: { ...lora, ...own } }));
  expect(refusal({ rank: 0 })).toThrow('this model cannot run: lora has rank 0; expected a positive integer');
  expect(refusal({ rank: 1.5 })).toThrow('lora has rank 1.5');
  expect(refusal({ rank: 20 })).toThrow(
    /^this model cannot run: lora has rank 20, and .*layers\.0\.self_attn\.k_proj\.weight is \[16, 32\]: the rank is at most 16$/,
  );
  expect(refusal({ alpha: 0 })).toThrow('lora has alpha 0; expected a number above 0');
  expect(refusal({ experts: ['actor'] })).toThrow('lora names "actor"; the experts are backbone, expert');
  expect(refusal({ experts: ['expert', 'expert'] })).toThrow('lora names expert "expert" twice');
  expect(refusal({ experts: [] })).toThrow('lora names no expert');
  const frozen = { rules: [{ match: '*', frozen: true }] };
  expect(() => new Architecture(adapted(insulation, frozen))).toThrow('frozen, so nothing would be trained');
});
