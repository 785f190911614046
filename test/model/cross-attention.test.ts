/** Cross-attention to encoders and images, the perceiver resampler, and a tower for each camera. */
import { describe, expect, test } from 'vitest';
import { backward, type ParameterSet, type Tensor, tensor, withoutTape } from '../../engine/index.ts';
import { causal, edge, full, insulated } from '../../kernels/index.ts';
import * as reference from '../../kernels/reference/index.ts';
import { expectRunnable } from '../../model/architecture/check.ts';
import type { CrossAttentionSettings, ModelConfiguration } from '../../model/architecture/configuration.ts';
import { crossAttentionOf } from '../../model/architecture/cross-attention.ts';
import { type TrainingBatch, tensorsOf } from '../../model/architecture/inputs.ts';
import type { ModelParameter } from '../../model/architecture/layers.ts';
import { Architecture, Model } from '../../model/architecture/model.ts';
import { resamplerOf } from '../../model/architecture/resampler.ts';
import { blocksNamed, crossTableOf } from '../../model/architecture/sequence.ts';
import { trainingInputs, trainingPass } from '../../model/architecture/training-pass.ts';
import { act } from '../../model/policy/acting.ts';
import { configurationOf, type System, systemNamed } from '../../model/systems/index.ts';
import { randomBatch } from '../../model/training/random-batch.ts';
import { checkOperation } from '../support/check-operation.ts';
import { testDevice } from '../support/devices.ts';
import { expectClose, expectZero, normals } from '../support/numbers.ts';
import { tinySizes } from '../support/tiny-sizes.ts';

const BATCH = 2;
const sizes = { ...tinySizes, vision: { ...tinySizes.vision!, cameras: 2 } };
const [pi0Small, robovlms, insulation] = ['pi0-small', 'robovlms-flamingo', 'knowledge-insulation'].map(systemNamed);

/** With an affine head, whose gradients are large enough for finite differences in f32. */
const flamingo: System = {
  ...robovlms,
  blocks: robovlms.blocks.map((own) => (own.name === 'readout' ? { ...own, length: 'actions' } : own)),
  objectives: [{ kind: 'regression', name: 'action', weight: 1, rows: { block: 'readout' }, error: 'huber' }],
};

/** Knowledge insulation with an encoder: its tokens are decoded from the encoder, and the expert reads it behind a stop-gradient. */
const insulatedEncoder: System = {
  ...insulation,
  experts: { backbone: { encoder: true }, expert: { crossAttention: { every: 2, gated: false } } },
  time: 'concatenate',
};
/** One edge passes half of the gradient into keys and all of it into values. */
const softEncoder: System = {
  ...insulatedEncoder,
  attention: {
    ...insulation.attention,
    action: { image: edge({ mask: 'full', keyGradient: 0.5 }), language: full, action: full },
  },
};
const systems = { pi0Small, flamingo, insulatedEncoder, softEncoder };

/** Parameters by name, as a layer reads them. */
const valuesOf = (device: Tensor['device'], parameters: readonly ModelParameter[], tensors: readonly Tensor[]) =>
  ({
    device,
    get: (name: string) => tensors[parameters.findIndex((own) => own.name === name)],
  }) as unknown as ParameterSet;

describe('against float64, forward and backward', () => {
  const [width, memoryWidth, rows, memoryRows, heads, headDimension] = [12, 8, 5, 7, 2, 8];
  /** Small enough that no softmax is sharp. */
  const weightsOf = (parameters: readonly ModelParameter[]) =>
    parameters.map(({ name, shape }, seed) => ({
      ...{ name, shape: [...shape] },
      data: normals(
        shape.reduce((a, b) => a * b, 1),
        500 + seed,
        0.5,
      ),
    }));
  const sum = (a: Float64Array, b: ArrayLike<number>, factor = 1) => a.map((value, i) => value + factor * b[i]);

  test.each<[string, CrossAttentionSettings, boolean]>([
    ['plain', { every: 1, gated: false }, false],
    ['adaptive', { every: 1, gated: false }, true],
    ['gated', { every: 1, gated: true }, false],
  ])('a %s sublayer, in a sample with padding and in one without memory', async (_, crossAttention, adaptive) => {
    const device = await testDevice('normal');
    const configuration: ModelConfiguration = {
      ...configurationOf(pi0Small, sizes),
      ...{ depth: 1, heads, kvHeads: 1, headDimension },
      experts: {
        backbone: { width: memoryWidth, hidden: 4, encoder: true },
        expert: { width, hidden: 10, adaptive, crossAttention },
      },
      blocks: [
        { name: 'language', input: 'prompt', weights: 'backbone', length: memoryRows, after: [] },
        { name: 'action', input: 'noisyActions', weights: 'expert', length: rows, after: [] },
      ],
      edges: [{ query: 'action', key: 'language', edge: full }],
    };
    const cross = crossAttentionOf(configuration, 'expert');
    const [running, memory] = ['action', 'language'].map((name) => blocksNamed(configuration, [name]));
    const table = crossTableOf(configuration, running, memory);
    const validity = Uint8Array.from([1, 1, 1, 1, 1, 1, 0, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0]);
    const names = cross.parameters.map(({ name }) => name.replace(/^.*layers\.0\./, ''));
    await checkOperation(device, {
      inputs: [
        { shape: [BATCH, rows, width], name: 'x' },
        { shape: [BATCH, memoryRows, memoryWidth], name: 'memory' },
        ...(adaptive ? [{ shape: [BATCH, width], name: 'condition' }] : []),
        ...weightsOf(cross.parameters),
      ],
      run: ([x, seen, ...more]) => {
        const values = valuesOf(device, cross.parameters, adaptive ? more.slice(1) : more);
        const pass = {
          ...{
            table,
            queries: ['action'],
            validity: tensor(device, Uint32Array.from(validity), [BATCH, rows + memoryRows], { dtype: 'u32' }),
          },
          contents: cross.contentsOf(values, { key: seen, value: seen }),
        };
        return cross.run(values, 0, x, pass, adaptive ? more[0] : undefined);
      },
      oracle: ([x, seen, ...more]) => {
        const own = adaptive ? more.slice(1) : more;
        const of = (name: string) => own[names.indexOf(name)];
        const read = (normed: Float64Array) => {
          const { output } = reference.attention({
            ...{ table, batch: BATCH, heads, kvHeads: 1, headDimension, queries: ['action'], validity },
            query: reference.linear(normed, of('cross_attn.q_proj.weight'), width),
            key: reference.linear(seen, of('cross_attn.k_proj.weight'), memoryWidth),
            value: reference.linear(seen, of('cross_attn.v_proj.weight'), memoryWidth),
          });
          return reference.linear(output, of('cross_attn.o_proj.weight'), heads * headDimension);
        };
        if (adaptive) {
          const [weight, bias] = ['weight', 'bias'].map((name) => of(`cross_attn_layernorm.dense.${name}`));
          const modulation = reference.linear(more[0], weight, width, { bias });
          return reference.gatedResidual(x, read(reference.adaptiveRmsNorm(x, modulation, width)), modulation, width);
        }
        if (!crossAttention.gated) return sum(x, read(reference.rmsNorm(x, of('cross_attn_layernorm.weight'))));
        const norm = (value: Float64Array, name: string) =>
          reference.layerNorm(value, of(`${name}.weight`), of(`${name}.bias`), 1e-5);
        const gate = (name: string) => Math.tanh(of(`${name}.weight`)[0]);
        const first = sum(x, read(norm(x, 'cross_attn_layernorm')), gate('cross_attn_gate'));
        const normed = norm(first, 'cross_attn_mlp.norm');
        const hidden = reference.linear(normed, of('cross_attn_mlp.fc1.weight'), width, { activation: 'gelu' });
        return sum(first, reference.linear(hidden, of('cross_attn_mlp.fc2.weight'), 10), gate('cross_attn_mlp_gate'));
      },
      tolerance: { forward: 1e-6, backward: 5e-6 },
    });
  });

  test('a resampler of two layers', async () => {
    const device = await testDevice('normal');
    const [images, patches, latents, hidden] = [2, 6, 3, 12];
    const resampler = resamplerOf('vision', 'r', memoryWidth, patches, {
      latents,
      depth: 2,
      heads,
      headDimension,
      hidden,
    });
    const names = resampler.parameters.map(({ name }) => name);
    await checkOperation(device, {
      inputs: [{ shape: [images, patches, memoryWidth], name: 'features' }, ...weightsOf(resampler.parameters)],
      run: ([features, ...tensors]) => resampler.run(valuesOf(device, resampler.parameters, tensors), features),
      oracle: ([features, ...own]) => {
        const of = (name: string) => own[names.indexOf(`r.${name}`)];
        const norm = (x: Float64Array, name: string) =>
          reference.layerNorm(x, of(`${name}.weight`), of(`${name}.bias`), 1e-5);
        const linear = (x: Float64Array, name: string, inputs: number, options = {}) =>
          reference.linear(x, of(`${name}.weight`), inputs, options);
        let x = Float64Array.from({ length: images * latents * memoryWidth }, (_, i) => {
          const start = of('latents.weight');
          return start[i % start.length];
        });
        for (const at of ['blocks.0', 'blocks.1']) {
          const normed = norm(x, `${at}.0.latents_layer_norm`);
          const read = reference.concatenateTokens([norm(features, `${at}.0.context_layer_norm`), normed], images);
          const { output } = reference.attention({
            table: {
              layout: {
                blocks: [
                  { name: 'all', length: patches + latents, keys: true },
                  { name: 'own', length: latents, keys: false },
                ],
              },
              cells: [
                [full, full],
                [full, full],
              ],
            },
            ...{ batch: images, heads, kvHeads: heads, headDimension, queries: ['own'] },
            validity: new Uint8Array(images * (patches + 2 * latents)).fill(1),
            query: linear(normed, `${at}.0.q_proj`, memoryWidth),
            key: linear(read, `${at}.0.k_proj`, memoryWidth),
            value: linear(read, `${at}.0.v_proj`, memoryWidth),
          });
          x = sum(x, linear(output, `${at}.0.output_proj`, heads * headDimension));
          const inner = linear(norm(x, `${at}.1.ln`), `${at}.1.fc`, memoryWidth, { activation: 'gelu' });
          x = sum(x, linear(inner, `${at}.1.c_proj`, hidden));
        }
        return norm(x, 'layer_norm');
      },
      tolerance: { forward: 1e-6, backward: 5e-6 },
    });
  });
});

/** A model with random numbers in all parameters, so that no gate is closed. */
async function randomModel(system: System): Promise<Model> {
  const model = new Model(await testDevice('normal'), configurationOf(system, sizes));
  for (const [seed, parameter] of [...model.parameters].entries())
    parameter.write(normals(parameter.size, seed, parameter.name.includes('norm') ? 0.5 : 0.25));
  return model;
}

/** The losses by objective, and with `of` the gradients of one. */
async function trained(model: Model, batch: TrainingBatch, of?: string, recompute = false) {
  const { device, architecture, parameters } = model;
  const inputs = trainingInputs(architecture, batch);
  const run = () =>
    device.step(() => {
      const pass = trainingPass(model, tensorsOf(device, inputs), { recompute });
      if (of) {
        parameters.zeroGradients();
        backward(pass.objectives[of].loss);
      }
      return Object.fromEntries(Object.entries(pass.objectives).map(([name, { loss }]) => [name, loss]));
    });
  const losses: Record<string, number> = {};
  for (const [name, loss] of Object.entries(of ? run() : withoutTape(device, run))) {
    [losses[name]] = await loss.read();
    loss.dispose();
  }
  return losses;
}

const gradientOf = async (model: Model, name: string) => (await model.parameters.get(name).grad!.read()).slice();

const named = (model: Model, pattern: RegExp) => {
  const found = model.architecture.parameters.find(({ name }) => pattern.test(name));
  if (!found) throw new Error(`no parameter is like ${pattern}`);
  return found.name;
};

describe('whole models', () => {
  test.each<[keyof typeof systems, string, RegExp[]]>([
    [
      'pi0Small',
      'flow',
      [
        /vision_tower_2.*patch_embedding\.weight/,
        /language_model\.layers\.1.*q_proj/,
        /layers\.1\.cross_attn\.k_proj/,
        /cross_attn_layernorm\.dense\.weight/,
      ],
    ],
    [
      'flamingo',
      'action',
      [
        /latents/,
        /patch_embedding\.weight/,
        /layers\.0\.cross_attn_mlp_gate/,
        /layers\.1\.cross_attn\.v_proj/,
        /projector\.linear\.weight/,
      ],
    ],
  ])('gradients of %s agree with finite differences', async (system, objective, patterns) => {
    using model = await randomModel(systems[system]);
    const batch = randomBatch(model.configuration, BATCH, 3);
    await trained(model, batch, objective);
    const names = patterns.map((pattern) => named(model, pattern));
    const gradients = await Promise.all(names.map((name) => gradientOf(model, name)));
    for (const [i, name] of names.entries()) {
      const parameter = model.parameters.get(name);
      const values = (await parameter.read()).slice();
      const norm = Math.hypot(...gradients[i]);
      const step = Math.min(0.01, 0.003 / norm);
      const loss = async (sign: number) => {
        parameter.write(values.map((value, k) => value + (sign * step * gradients[i][k]) / norm));
        return (await trained(model, batch))[objective];
      };
      const difference = ((await loss(1)) - (await loss(-1))) / (2 * step);
      parameter.write(values);
      expectClose([norm], [difference], 5e-3, name);
    }
    // Again with activation checkpointing.
    await trained(model, batch, objective, true);
    for (const [i, name] of names.entries()) expectClose(await gradientOf(model, name), gradients[i], 1e-6, name);
  });

  test.each(['pi0Small', 'flamingo'] as const)('%s does not see an absent camera', async (system) => {
    using model = await randomModel(systems[system]);
    const batch = randomBatch(model.configuration, BATCH, 5);
    const objective = model.objectives[0].name;
    const loss = async (change: Partial<TrainingBatch>) => (await trained(model, { ...batch, ...change }))[objective];
    const first = (image: number) => image % 4 === 1;
    const size = batch.images!.length / 4;
    const images = batch.images!.map((value, i) => (first(Math.floor(i / size)) ? -value : value));
    expect(await loss({ images })).not.toBe(await loss({}));
    const cameraValid = [1, 0, 1, 1];
    expect(await loss({ images, cameraValid })).toBe(await loss({ cameraValid }));
    // Without any camera nothing is read, and the towers get a gradient of exactly zero.
    await trained(model, { ...batch, cameraValid: [0, 0, 0, 0] }, objective);
    if (system === 'flamingo') {
      expectZero(await gradientOf(model, named(model, /latents/)), 'latents');
      expectZero(await gradientOf(model, named(model, /cross_attn_gate/)), 'gate');
    }
    expectZero(await gradientOf(model, named(model, /patch_embedding\.weight/)), 'patches');
  });

  test('an edge that stops passes no gradient into the encoder, but all of it into the keys and values of the reader', async () => {
    const backbone = /language_model\.layers\.0\.self_attn\.v_proj/;
    const keys = /cross_attn\.k_proj/;
    const gradients: Record<string, Float32Array[]> = {};
    for (const system of ['insulatedEncoder', 'softEncoder'] as const) {
      using model = await randomModel(systems[system]);
      await trained(model, randomBatch(model.configuration, BATCH, 7), 'flow');
      gradients[system] = await Promise.all([backbone, keys].map((own) => gradientOf(model, named(model, own))));
      if (system === 'insulatedEncoder')
        for (const { name, group } of model.architecture.parameters)
          if (group !== 'expert') expectZero(await gradientOf(model, name), name);
    }
    const [stopped, soft] = [gradients.insulatedEncoder, gradients.softEncoder];
    expect(soft[0].some((value) => value !== 0)).toBe(true);
    expect(stopped[1].some((value) => value !== 0)).toBe(true);
    expectClose(soft[1], stopped[1], 1e-5, 'keys of the reader');
  });

  test.each(['pi0Small', 'softEncoder'] as const)('%s acts by the velocity of training', async (system) => {
    using model = await randomModel(systems[system]);
    const { device, configuration, architecture } = model;
    const batch = { ...randomBatch(configuration, BATCH, 9), cameraValid: [1, 1, 0, 1] };
    const velocityAt = async (x: Float32Array, time: number) => {
      const own = {
        ...batch,
        actions: new Float32Array(x.length),
        noise: x.map((value) => value / time),
        time: [time, time],
      };
      const { velocity } = device.step(
        () => trainingPass(model, tensorsOf(device, trainingInputs(architecture, own))).objectives.flow,
      );
      return velocity.read();
    };
    const noise = normals(BATCH * 12, 11);
    let x = noise;
    for (const time of [1, 0.5]) {
      const velocity = await velocityAt(x, time);
      x = x.map((value, i) => value - velocity[i] / 2);
    }
    const objective = model.objectives.find(({ name }) => name === 'flow');
    expectClose((await act(model, batch, { objective, noise, steps: 2 }))!, x, 1e-5, 'actions');
  });

  test('flamingo acts by the prediction of training', async () => {
    using model = await randomModel(flamingo);
    const batch = { ...randomBatch(model.configuration, BATCH, 9), cameraValid: [1, 1, 0, 0] };
    const { device, architecture } = model;
    const { prediction } = device.step(
      () => trainingPass(model, tensorsOf(device, trainingInputs(architecture, batch))).objectives.action,
    );
    expectClose((await act(model, batch))!, await prediction.read(), 1e-6, 'actions');
  });
});

describe('names and groups', () => {
  test('towers have the number of their camera, and share the group of their name', () => {
    const { parameters } = new Architecture(configurationOf({ ...pi0Small, towers: ['one', 'two'] }, sizes));
    const towers = parameters.flatMap(({ name, group }) => {
      const match = name.match(/(vision_tower\w*)\..*patch_embedding\.bias/);
      return match ? [[match[1], group]] : [];
    });
    expect(towers).toEqual([
      ['vision_tower_1', 'one'],
      ['vision_tower_2', 'one'],
      ['vision_tower_two_1', 'two'],
      ['vision_tower_two_2', 'two'],
    ]);
  });

  test('a resampler and its projection have a group of their own, and cross-attention to the reader', () => {
    const groups = (system: System, pattern: RegExp) => {
      const { parameters } = new Architecture(configurationOf(system, sizes));
      return [...new Set(parameters.filter(({ name }) => pattern.test(name)).map(({ group }) => group))];
    };
    expect(groups(flamingo, /resampler|projector/)).toEqual(['projector']);
    expect(groups(flamingo, /cross_attn/)).toEqual(['backbone']);
    expect(groups(pi0Small, /cross_attn/)).toEqual(['expert']);
  });
});

describe('what cannot run is refused', () => {
  const small = configurationOf(pi0Small, sizes);
  const resampled = configurationOf(flamingo, sizes);
  const expert = (of: ModelConfiguration, name: string, change: object) => ({
    experts: { ...of.experts, [name]: { ...of.experts[name], ...change } },
  });
  const block = (of: ModelConfiguration, name: string, change: object) => ({
    blocks: of.blocks.map((own) => (own.name === name ? { ...own, ...change } : own)),
  });
  const edges = (of: ModelConfiguration, query: string, key: string, own = full) => ({
    edges: [...of.edges.filter((other) => other.query !== query || other.key !== key), { query, key, edge: own }],
  });
  const without = (of: ModelConfiguration, leaves: (own: ModelConfiguration['edges'][number]) => boolean) => ({
    edges: of.edges.filter((own) => !leaves(own)),
  });

  test.each<[string, ModelConfiguration, Partial<ModelConfiguration>]>([
    ['"language" reads "action", which runs after encoder "backbone"', small, edges(small, 'language', 'action')],
    ['and expert "expert" has no crossAttention', small, expert(small, 'expert', { crossAttention: undefined })],
    [
      'expert "backbone" is an encoder, which reads no memory',
      small,
      expert(small, 'backbone', { crossAttention: { every: 1, gated: true } }),
    ],
    [
      'every 0 layers; expected a positive integer',
      small,
      expert(small, 'expert', { crossAttention: { every: 0, gated: false } }),
    ],
    ['all of its blocks are memory', small, expert(small, 'expert', { encoder: true, crossAttention: undefined })],
    [
      'expert "backbone" is an encoder, which runs once, and block "action" holds noisy actions',
      small,
      { ...expert(small, 'expert', { adaptive: false }), ...block(small, 'action', { weights: 'backbone' }) },
    ],
    ['they share its keys and values', small, edges(small, 'state', 'image', insulated)],
    [
      'expert "backbone" is an encoder, and no block of another expert reads it',
      small,
      without(small, ({ query, key }) => ['state', 'action'].includes(query) && ['image', 'language'].includes(key)),
    ],
    [
      'expert "expert" has crossAttention, and none of its blocks reads memory',
      small,
      expert(small, 'backbone', { encoder: false }),
    ],
    [
      '"image" is memory, whose rows run through no expert, and no block reads it',
      resampled,
      without(resampled, ({ key }) => key === 'image'),
    ],
    [
      '"image" is memory, whose rows run through no expert, and reads "image"',
      resampled,
      edges(resampled, 'image', 'image'),
    ],
    [
      'and objective "action" reads them',
      resampled,
      { objectives: [{ ...resampled.objectives[0], rows: { block: 'image' } }] as ModelConfiguration['objectives'] },
    ],
    [
      'and holds prompt; only images can be memory',
      resampled,
      { ...block(resampled, 'language', { memory: true }), ...edges(resampled, 'readout', 'readout', causal) },
    ],
    [
      'block "image" has 2 rows, and its images give 8',
      resampled,
      { vision: { ...resampled.vision!, resampler: undefined } },
    ],
    [
      'the head dimension of the resampler is 6',
      resampled,
      { vision: { ...resampled.vision!, resampler: { ...resampled.vision!.resampler!, headDimension: 6 } } },
    ],
    [
      'the resampler has 0 depth',
      resampled,
      { vision: { ...resampled.vision!, resampler: { ...resampled.vision!.resampler!, depth: 0 } } },
    ],
    [
      'vision has a resampler, and no block holds images',
      resampled,
      { blocks: resampled.blocks.slice(1), edges: resampled.edges.filter(({ key }) => key !== 'image') },
    ],
  ])('%s', (reason, of, change) => {
    expect(() => expectRunnable({ ...of, ...change })).toThrow(reason);
  });
});
