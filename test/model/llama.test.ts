import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { type LanguageModelSizes, languageModel, sequenceBatch } from '../../bench/step/language-model.ts';
import { backward, readSafetensors, safetensorsChunks } from '../../engine/index.ts';
import { linear } from '../../kernels/index.ts';
import { loadLlama, metaName, rowsForRotary } from '../../model/architecture/backbones/llama-weights.ts';
import type { ModelConfiguration } from '../../model/architecture/configuration.ts';
import { type TrainingBatch, tensorsOf } from '../../model/architecture/inputs.ts';
import { Model } from '../../model/architecture/model.ts';
import { trainingInputs, trainingPass } from '../../model/architecture/training-pass.ts';
import { act } from '../../model/policy/acting.ts';
import { testDevice } from '../support/devices.ts';
import { lossesOf, referenceLogits } from '../support/llama-reference.ts';
import { expectClose, integers, normals, relativeError } from '../support/numbers.ts';

type Variant = NonNullable<ModelConfiguration['backboneVariant']>;
/** Tensors under Meta's names. */
type Weights = ReadonlyMap<string, Float32Array>;

/** Logits of every row, and gradients of the token loss by parameter. */
async function passOf(model: Model, batch: TrainingBatch) {
  const pass = model.device.step(() => {
    const run = trainingPass(model, tensorsOf(model.device, trainingInputs(model.architecture, batch)), {
      allRows: true,
    });
    const logits = linear(run.hidden.backbone, model.architecture.tokenHead(model.parameters));
    model.parameters.zeroGradients();
    backward(run.loss);
    const { loss, rowLoss } = run.objectives.token;
    return { loss, rowLoss, logits };
  });
  const gradients = new Map<string, Float32Array>();
  for (const parameter of model.parameters) gradients.set(parameter.name, await parameter.grad!.read());
  return {
    logits: await pass.logits.read(),
    loss: (await pass.loss.read())[0],
    rowLoss: await pass.rowLoss.read(),
    gradients,
  };
}

const mean = (numbers: readonly number[]) => numbers.reduce((sum, number) => sum + number, 0) / numbers.length;

/** A safetensors file in memory. */
async function fileOf(weights: Weights, shapeOf: (name: string) => readonly number[]): Promise<Blob> {
  const tensors = [...weights].map(([name, data]) => ({ name, dtype: 'F32' as const, shape: shapeOf(name), data }));
  const parts: Uint8Array<ArrayBuffer>[] = [];
  for await (const part of safetensorsChunks(tensors)) parts.push(part);
  return new Blob(parts);
}

const small: LanguageModelSizes = {
  vocabulary: 12,
  width: 16,
  hidden: 20,
  depth: 1,
  heads: 4,
  kvHeads: 2,
  headDimension: 8,
};
const ids = [1, ...integers(8, small.vocabulary, 5)];

/** A model of random weights, and the weights under Meta's names. Gains are near 1. */
async function randomModel(variant: Variant, sizes = small) {
  const model = new Model(await testDevice('normal'), languageModel(sizes, ids.length, variant));
  const shapes = new Map<string, readonly number[]>();
  const weights = new Map<string, Float32Array>();
  [...model.parameters].forEach(({ name, shape, size }, i) => {
    const values = normals(size, i, shape.length === 1 ? 0.1 : 1 / Math.sqrt(shape[1]));
    shapes.set(metaName(name)!, shape);
    weights.set(metaName(name)!, shape.length === 1 ? values.map((value) => 1 + value) : values);
  });
  return { model, weights, shapeOf: (name: string) => shapes.get(name)! };
}

describe('one layer of Llama with random weights', () => {
  test.each<[string, Variant]>([
    ['tied', { tied: true }],
    ['untied', {}],
    ['another rotary base and epsilon', { rotary: { base: 50 }, epsilon: 0.1 }],
    ['rotary on halves', { rotary: { layout: 'halves' } }],
  ])('%s: logits, and the gradient of every parameter', async (_, variant) => {
    const { model, weights, shapeOf } = await randomModel(variant);
    using _disposed = model;
    expect(weights.has('output.weight')).toBe(!variant.tied);
    await loadLlama(model, await fileOf(weights, shapeOf));
    const { logits, loss, gradients } = await passOf(model, sequenceBatch([ids], ids.length));
    const options = { base: variant.rotary?.base, epsilon: variant.epsilon };
    const reference = (changed: ReadonlyMap<string, ArrayLike<number>>) =>
      referenceLogits(changed, small, ids, options);
    const lossOf = (changed: ReadonlyMap<string, ArrayLike<number>>) =>
      mean(lossesOf(reference(changed), ids, small.vocabulary));
    expectClose(logits, reference(weights), 2e-6, 'logits');
    expect(Math.abs(loss - lossOf(weights))).toBeLessThan(2e-6);
    [...model.parameters].forEach(({ name, shape, size }, i) => {
      const meta = metaName(name)!;
      const direction = normals(size, 100 + i);
      const moved = (step: number) =>
        new Map<string, ArrayLike<number>>(weights).set(
          meta,
          Float64Array.from(weights.get(meta)!, (value, k) => value + step * direction[k]),
        );
      const slope = (lossOf(moved(1e-5)) - lossOf(moved(-1e-5))) / 2e-5;
      const isRotated = /[qk]_proj/.test(name) && variant.rotary?.layout === 'halves';
      const own = gradients.get(name)!;
      const inOrder = isRotated ? rowsForRotary(own, small.headDimension, shape[1], 'pairs') : own;
      const along = inOrder.reduce((sum, value, k) => sum + value * direction[k], 0);
      const norm = Math.hypot(...own);
      expect(norm, name).toBeGreaterThan(1e-4);
      expect(Math.abs(along - slope), name).toBeLessThan(1e-5 * norm * Math.sqrt(size));
    });
  });

  test('weights of Hugging Face, which rotate halves, load into a model that rotates pairs', async () => {
    const { model, weights, shapeOf } = await randomModel({});
    using _disposed = model;
    const names = new Map([...model.parameters].map(({ name }) => [name, metaName(name)!]));
    const converted = new Map(
      [...names].map(([name, meta]) => {
        const own = weights.get(meta)!;
        return [name, /[qk]_proj/.test(name) ? rowsForRotary(own, small.headDimension, small.width, 'halves') : own];
      }),
    );
    await loadLlama(model, await fileOf(converted, (name) => shapeOf(names.get(name)!)));
    for (const { name } of model.parameters)
      expect(await model.parameters.get(name).read(), name).toEqual(weights.get(names.get(name)!)!);
  });

  test('parameters beside the language model keep their values', async () => {
    const { model, weights, shapeOf } = await randomModel({});
    using _disposed = model;
    const { blocks, objectives, experts, ...rest } = model.configuration;
    using larger = new Model(model.device, {
      ...rest,
      ...{ horizon: 4, actionDimension: 4 },
      experts: { ...experts, expert: { width: 8, hidden: 12 } },
      blocks: [...blocks, { name: 'action', input: 'noisyActions', length: 4, weights: 'expert', after: ['start'] }],
      objectives: [...objectives, { kind: 'flow', name: 'flow', weight: 1, block: 'action' }],
    });
    larger.initialise(1);
    const valuesOf = async () => {
      const values = new Map<string, Float32Array>();
      for (const parameter of larger.parameters) values.set(parameter.name, await parameter.read());
      return values;
    };
    const before = await valuesOf();
    await loadLlama(larger, await fileOf(weights, shapeOf));
    const own = new Set([...model.parameters].map(({ name }) => name));
    expect(before.size).toBeGreaterThan(own.size + 9);
    for (const [name, values] of await valuesOf())
      expect(values, name).toEqual(own.has(name) ? weights.get(metaName(name)!) : before.get(name));
  });

  test('rows of a head for halves: the first elements of all pairs, then the second', () => {
    const rows = Float32Array.from({ length: 8 }, (_, row) => row);
    expect(Array.from(rowsForRotary(rows, 4, 1, 'halves'))).toEqual([0, 2, 1, 3, 4, 6, 5, 7]);
    expect(rowsForRotary(rowsForRotary(rows, 4, 1, 'halves'), 4, 1, 'pairs')).toEqual(rows);
  });
});

describe('a file that does not fit', () => {
  type Change = (weights: Map<string, Float32Array>, shapes: Record<string, readonly number[]>) => void;
  test.each<[string, Change, Variant, string]>([
    [
      'a layer is missing',
      (weights) => {
        for (const name of [...weights.keys()]) if (name.startsWith('layers')) weights.delete(name);
      },
      {},
      'safetensors data: the file lacks "layers.0.attention_norm.weight", "layers.0.attention.wq.weight", "layers.0.attention.wk.weight" and 6 more: its depth, or its kind of model, is another',
    ],
    [
      'a layer too many',
      (weights, shapes) => {
        weights.set('layers.1.ffn_norm.weight', new Float32Array(16));
        shapes['layers.1.ffn_norm.weight'] = [16];
      },
      {},
      'safetensors data: the file has, and the model has no place for, "layers.1.ffn_norm.weight": its depth, or its kind of model, is another',
    ],
    [
      'no head',
      (weights) => weights.delete('output.weight'),
      {},
      'safetensors data: the file lacks "output.weight": make the model with backboneVariant { tied: true }',
    ],
    [
      'a head that the model lacks',
      (weights, shapes) => {
        weights.set('output.weight', new Float32Array(12 * 16));
        shapes['output.weight'] = [12, 16];
      },
      { tied: true },
      'safetensors data: the file has, and the model has no place for, "output.weight": make the model with backboneVariant { tied: false }',
    ],
    [
      'a shape',
      (_, shapes) => (shapes['layers.0.feed_forward.w1.weight'] = [16, 20]),
      {},
      'safetensors data: tensor "layers.0.feed_forward.w1.weight" has shape [16, 20], [20, 16] was expected',
    ],
    [
      'a number that is none',
      (weights) => (weights.get('norm.weight')![3] = Number.NaN),
      {},
      'safetensors data: damaged: tensor "norm.weight" holds NaN at element 3',
    ],
  ])('%s', async (_, change, variant, message) => {
    const { model, weights, shapeOf } = await randomModel(variant);
    using _disposed = model;
    const shapes: Record<string, readonly number[]> = {};
    change(weights, shapes);
    const file = await fileOf(weights, (name) => shapes[name] ?? shapeOf(name));
    await expect(loadLlama(model, file)).rejects.toThrow(new RegExp(`^${message.replace(/[[\]{}.]/g, '\\$&')}$`));
    // Only a damaged number is found after the first parameter is written.
    const embedding = await model.parameters.get('model.embed_tokens.weight').read();
    expect(embedding.some((value) => value !== 0)).toBe(message.includes('NaN'));
  });

  test('tables of rotary angles are passed over', async () => {
    const { model, weights, shapeOf } = await randomModel({});
    using _disposed = model;
    weights.set('rope.freqs', new Float32Array(4));
    await loadLlama(model, await fileOf(weights, (name) => (name === 'rope.freqs' ? [4] : shapeOf(name))));
    expect(await model.parameters.get('model.norm.weight').read()).toEqual(weights.get('norm.weight'));
  });

  test('a model of another family, and a family that does not exist', async () => {
    const device = await testDevice('normal');
    using gemma = new Model(device, { ...languageModel(small, 4), backbone: 'gemma' });
    await expect(loadLlama(gemma, new Blob([]))).rejects.toThrow(
      'the model\'s backbone is "gemma"; Llama weights need "llama"',
    );
    const unknown = { ...languageModel(small, 4), backbone: 'lama' as 'llama' };
    expect(() => new Model(device, unknown)).toThrow('there is no backbone "lama"; there are gemma, llama');
  });
});

const shared = new URL('../../../shared/data/', import.meta.url);
const there = existsSync(new URL('pretrained/stories260K/model.safetensors', shared));

describe.skipIf(!there)(`stories260K${there ? '' : ' (skipped: ../shared/data is not there)'}`, () => {
  const sizes: LanguageModelSizes = {
    vocabulary: 512,
    width: 64,
    hidden: 172,
    depth: 5,
    heads: 8,
    kvHeads: 4,
    headDimension: 8,
  };
  const BOS = 1;
  const bytes = (name: string) => readFileSync(new URL(name, shared));
  const json = (name: string) => JSON.parse(bytes(`pretrained/stories260K/${name}`).toString('utf8'));
  const file = () => new Blob([bytes('pretrained/stories260K/model.safetensors')]);
  const golden = (): { greedy_ids: number[]; logits: number[][] } => json('golden.json');

  async function loaded(length: number, variant: Variant): Promise<Model> {
    const model = new Model(await testDevice('normal'), languageModel(sizes, length, variant));
    await loadLlama(model, file());
    return model;
  }

  /** Llama's sentence pieces: the pair whose piece has the highest score is merged first. */
  function encoder(): (text: string) => number[] {
    const { pieces } = json('tokenizer.json') as { pieces: [string, number][] };
    const idOf = new Map(pieces.map(([piece], id) => [piece, id]));
    const latin = (text: string) => Buffer.from(text, 'utf8').toString('latin1');
    return (text) => {
      const encoded = [...` ${text}`].flatMap(
        (character) => idOf.get(latin(character)) ?? [...Buffer.from(character, 'utf8')].map((byte) => byte + 3),
      );
      for (;;) {
        let best: { at: number; id: number } | null = null;
        for (let at = 0; at + 1 < encoded.length; at++) {
          const id = idOf.get(pieces[encoded[at]][0] + pieces[encoded[at + 1]][0]);
          if (id !== undefined && (!best || pieces[id][1] > pieces[best.id][1])) best = { at, id };
        }
        if (!best) return [BOS, ...encoded];
        encoded.splice(best.at, 2, best.id);
      }
    };
  }

  test('greedy decoding gives the golden ids and logits', async () => {
    const { greedy_ids, logits } = golden();
    using model = await loaded(greedy_ids.length, { tied: true });
    const written = [BOS];
    const scores: number[] = [];
    await act(model, sequenceBatch([[BOS]], greedy_ids.length), {
      onLogits: (own) => {
        if (written.length <= logits.length) scores.push(...own);
      },
      writer: { allowed: () => 'all', write: (_, id) => written.push(id) > 0 },
    });
    expect(written).toEqual(greedy_ids);
    expectClose(scores, logits.flat(), 2e-6, 'logits');
  });

  test('every layout and head gives the logits of the float64 reference', async () => {
    const { greedy_ids: story, logits: goldenLogits } = golden();
    const opened = await readSafetensors(file());
    const weights = new Map<string, Float32Array>();
    for (const name of opened.tensors.keys()) weights.set(name, await opened.readFloat32(name));
    const expected = referenceLogits(weights, sizes, story);
    expectClose(expected.subarray(0, 3 * sizes.vocabulary), goldenLogits.flat(), 1e-6, 'the reference itself');
    const batch = sequenceBatch([story], story.length);

    using tied = await loaded(story.length, { tied: true });
    const first = await passOf(tied, batch);
    expectClose(first.logits, expected, 2e-6, 'tied, pairs');

    using halves = await loaded(story.length, { tied: true, rotary: { layout: 'halves' } });
    const query = 'model.layers.0.self_attn.q_proj.weight';
    const rows = async (model: Model) => Array.from(await model.parameters.get(query).read());
    expect(await rows(halves)).not.toEqual(await rows(tied));
    const second = await passOf(halves, batch);
    expectClose(second.logits, expected, 2e-6, 'tied, halves');
    expectClose(second.logits, first.logits, 2e-6, 'halves and pairs');

    const untiedFile = async () => {
      const withHead = new Map(weights).set('output.weight', weights.get('tok_embeddings.weight')!);
      const shapeOf = (name: string) => opened.entry(name === 'output.weight' ? 'tok_embeddings.weight' : name).shape;
      return fileOf(withHead, shapeOf);
    };
    using untied = new Model(await testDevice('normal'), languageModel(sizes, story.length));
    await loadLlama(untied, await untiedFile());
    const third = await passOf(untied, batch);
    expect(third.logits).toEqual(first.logits);

    // The gradient of tied embeddings is the sum of the gradients as embeddings and as the matrix of logits.
    const [embedding, head] = ['model.embed_tokens.weight', 'lm_head.weight'].map((name) => third.gradients.get(name)!);
    expect(relativeError(embedding, head)).toBeGreaterThan(0.1);
    expectClose(
      embedding.map((value, i) => value + head[i]),
      first.gradients.get('model.embed_tokens.weight')!,
      2e-6,
      'gradients of embeddings',
    );
    // An id that no row reads has a gradient as a logit only.
    const unread = Array.from({ length: sizes.vocabulary }, (_, id) => id).find((id) => !story.includes(id))!;
    const rowOf = (gradient: Float32Array) => gradient.subarray(unread * sizes.width, (unread + 1) * sizes.width);
    expect(Math.hypot(...rowOf(embedding))).toBe(0);
    expect(Math.hypot(...rowOf(head))).toBeGreaterThan(0);
    await opened.close();
  });

  test('the first 256 ids of each of five TinyStories cost 1.251 nats a token, whole stories 1.266', async () => {
    const encode = encoder();
    const stories = bytes('text/tinystories_sample.txt')
      .toString('utf8')
      .split('<|endoftext|>')
      .map((story) => story.trim())
      .filter((story) => story !== '')
      .map(encode);
    expect(stories.map(({ length }) => length)).toEqual([374, 330, 223, 425, 457]);
    for (const [length, nats] of [
      [256, 1.25108],
      [457, 1.26644],
    ]) {
      using model = await loaded(length, { tied: true });
      const batch = sequenceBatch(
        stories.map((story) => story.slice(0, length)),
        length,
      );
      const { loss, rowLoss } = await passOf(model, batch);
      const counted = (from: number, to: number) =>
        Array.from(rowLoss.subarray(from, to)).filter((_, i) => batch.lossMask![from + i] === 1);
      expect(mean(counted(0, rowLoss.length))).toBeCloseTo(nats, 4);
      // The loss that is trained is a mean over stories of means over their tokens.
      const each = stories.map((_, i) => mean(counted(i * length, (i + 1) * length)));
      expect(Math.abs(loss - mean(each))).toBeLessThan(2e-6);
    }
  });
});
