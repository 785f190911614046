/** The ops of a step at the sizes of a model, each on the device and, by its formula, in float64. */
import { elementCount, type Shape, type Tensor } from '../../engine/index.ts';
import * as kernels from '../../kernels/index.ts';
import * as reference from '../../kernels/reference/index.ts';
import type { ModelShape } from './shapes.ts';

/** An operand that wants a gradient, by its shape; or one that does not: floats, or the ids that are given. */
export type Operand = Shape | { readonly shape: Shape; readonly ids?: Uint32Array };
type Named<T> = Readonly<Record<string, T>>;

/** An op on operands by name, on the device and in float64. */
export interface Problem {
  readonly name: string;
  readonly operands: Named<Operand>;
  readonly run: (operands: Named<Tensor>) => Tensor;
  readonly oracle: (numbers: Named<Float64Array>) => Float64Array;
  /** The gradients in float64, where they are no derivatives of the oracle: behind a stop. */
  readonly gradients?: (numbers: Named<Float64Array>, dOutput: Float64Array) => Named<Float64Array>;
  readonly backward: boolean;
}

/** A problem with the names of its operands checked by the compiler. */
export function problemOf<K extends string>(
  name: string,
  operands: Record<K, Operand>,
  run: (operands: Readonly<Record<K, Tensor>>) => Tensor,
  oracle: (numbers: Readonly<Record<K, Float64Array>>) => Float64Array,
  others: Partial<Pick<Problem, 'gradients' | 'backward'>> = {},
): Problem {
  return {
    ...{ name, operands, backward: true },
    run: run as Problem['run'],
    oracle: oracle as Problem['oracle'],
    ...others,
  };
}

/** Every op of a model but the optimizer. */
export function problemsOf(model: ModelShape): Problem[] {
  const { batch: B, prefix, fast, action, width: W, hidden, expertWidth: E, expertHidden, heads, kvHeads } = model;
  const { headDimension: D, vocabulary: V, image, patch } = model;
  const backbone = prefix + fast;
  const all = backbone + action;
  const owners = [
    { input: 0, length: backbone },
    { input: 1, length: action },
  ];
  const ids = (shape: Shape, below: number) => ({
    shape,
    ids: Uint32Array.from({ length: elementCount(shape) }, (_, i) => (i * 7919 + 13) % below),
  });
  const constant = (shape: Shape) => ({ shape });
  const { gelu, swish, rmsNorm, layerNorm, adaptiveRmsNorm, gatedResidual, gatedMlp, linear } = kernels;
  const inner = heads * D;
  // Tokens of the backbone and of the expert.
  const x = [B, backbone, W];
  const y = [B, action, E];
  const token = [B, fast, W];
  const modulation = [B, 3 * E];
  const mlp = (name: string, x: Shape, width: number, hidden: number) =>
    problemOf(
      `gatedMlp, ${name}, ${x[1]} x ${width}, hidden ${hidden}`,
      { x, gate: [hidden, width], up: [hidden, width], down: [width, hidden] },
      ({ x, gate, up, down }) => gatedMlp(x, gate, up, down),
      ({ x, gate, up, down }) => reference.gatedMlp([x, gate, up, down], width),
    );
  const { full, causal, insulated } = kernels;
  const table = kernels.attentionTable(kernels.sequence({ prefix, fast, action }), {
    prefix: { prefix: full },
    fast: { prefix: full, fast: causal },
    action: { prefix: insulated, action: full },
  });
  const targets = ids([B, fast], V);
  const mask = { shape: [B, fast], ids: new Uint32Array(B * fast).fill(1) };
  const address = { seed: 1, step: 2, stream: 3 };
  return [
    problemOf(
      `linear, ${backbone} x ${W} to ${W}`,
      { x, weight: [W, W] },
      ({ x, weight }) => linear(x, weight),
      ({ x, weight }) => reference.linear(x, weight, W),
    ),
    problemOf(
      `linear, ${B} x ${E} to ${3 * E}, bias`,
      { x: [B, E], weight: [3 * E, E], bias: [3 * E] },
      ({ x, weight, bias }) => linear(x, weight, bias),
      ({ x, weight, bias }) => reference.linear(x, weight, E, { bias }),
    ),
    problemOf(
      `blockLinear, joint queries of ${all} x ${inner}`,
      { x, y, ofX: [inner, W], ofY: [inner, E] },
      ({ x, y, ofX, ofY }) => kernels.blockLinear([x, y], [ofX, ofY], owners),
      ({ x, y, ofX, ofY }) => reference.blockLinear([x, y], [ofX, ofY], owners, B),
    ),
    problemOf(
      `blockSplitLinear, joint output of ${all} x ${inner}`,
      { joint: [B, all, inner], ofX: [W, inner], ofY: [E, inner] },
      ({ joint, ofX, ofY }) => kernels.blockSplitLinear(joint, [ofX, ofY], owners)[0]!,
      ({ joint, ofX, ofY }) => reference.blockSplitLinear(joint, [ofX, ofY], owners, B)[0],
    ),
    mlp('backbone', x, W, hidden),
    mlp('expert', y, E, expertHidden),
    attentionProblem('knowledge insulation', table, { batch: B, heads, kvHeads, headDimension: D }),
    problemOf(
      `matmul, ${all} x ${all} x ${D}, ${heads} matrices`,
      { a: [heads, all, all], b: [heads, all, D] },
      ({ a, b }) => kernels.matmul(a, b),
      ({ a, b }) => reference.matmul(a, b, { batch: heads, m: all, n: D, k: all, shared: false }),
    ),
    problemOf(
      `softmax, ${heads * all} x ${all}`,
      { x: [heads * all, all] },
      ({ x }) => kernels.softmax(x),
      ({ x }) => reference.softmax(x, all),
    ),
    problemOf(
      `rmsNorm, ${backbone} x ${W}`,
      { x, weight: [W] },
      ({ x, weight }) => rmsNorm(x, weight),
      ({ x, weight }) => reference.rmsNorm(x, weight),
    ),
    problemOf(
      `adaptiveRmsNorm, ${action} x ${E}`,
      { x: y, modulation },
      ({ x, modulation }) => adaptiveRmsNorm(x, modulation),
      ({ x, modulation }) => reference.adaptiveRmsNorm(x, modulation, E),
    ),
    problemOf(
      `gatedResidual, ${action} x ${E}`,
      { x: y, branch: y, modulation },
      ({ x, branch, modulation }) => gatedResidual(x, branch, modulation),
      ({ x, branch, modulation }) => reference.gatedResidual(x, branch, modulation, E),
    ),
    problemOf(
      `layerNorm, ${backbone} x ${W}`,
      { x, weight: [W], bias: [W] },
      ({ x, weight, bias }) => layerNorm(x, weight, bias),
      ({ x, weight, bias }) => reference.layerNorm(x, weight, bias),
    ),
    problemOf(
      `gelu, ${backbone} x ${hidden}`,
      { x: [B, backbone, hidden] },
      ({ x }) => gelu(x),
      ({ x }) => x.map(reference.activations.gelu),
    ),
    problemOf(
      `swish, ${action} x ${E}`,
      { x: y },
      ({ x }) => swish(x),
      ({ x }) => x.map(reference.activations.swish),
    ),
    problemOf(
      `add, ${backbone} x ${W}`,
      { a: x, b: x },
      ({ a, b }) => kernels.add(a, b),
      ({ a, b }) => reference.add(a, b),
    ),
    problemOf(
      `multiply, ${backbone} x ${W} by ${W}`,
      { a: x, b: [W] },
      ({ a, b }) => kernels.multiply(a, b),
      ({ a, b }) => reference.pairwise(a, b, (p, q) => p * q),
    ),
    problemOf(
      `scale, ${backbone} x ${W}`,
      { x },
      ({ x }) => kernels.scale(x, 0.5),
      ({ x }) => x.map((value) => 0.5 * value),
    ),
    problemOf(
      `cast to bf16, ${backbone} x ${W}`,
      { x },
      ({ x }) => kernels.cast(x, 'bf16'),
      ({ x }) => Float64Array.from(reference.cast(x, 'bf16')),
      // The gradient passes unrounded.
      { gradients: (_, dOutput) => ({ x: dOutput }) },
    ),
    problemOf(
      `rotary, ${all} x ${heads} x ${D}`,
      { x: [B, all, heads, D], angles: constant([B, all, D / 2, 2]) },
      ({ x, angles }) => kernels.rotary(x, angles),
      ({ x, angles }) => reference.rotary(x, angles, heads, D),
    ),
    problemOf(
      `embedding, ${backbone} of ${V} x ${W}`,
      { tokens: ids([B, backbone], V), table: [V, W] },
      ({ tokens, table }) => kernels.embedding(tokens, table),
      ({ tokens, table }) => reference.embedding(tokens, table, W),
    ),
    problemOf(
      `patchEmbedding, ${image} x ${image}, patch ${patch}`,
      {
        ...{ images: [B, image, image, 3], weight: [W, 3, patch, patch], bias: [W] },
        position: [(image / patch) ** 2, W],
      },
      ({ images, weight, bias, position }) => kernels.patchEmbedding(images, weight, bias, position),
      ({ images, weight, bias, position }) =>
        reference.patchEmbedding([images, weight, bias, position], { height: image, width: image, patch }),
    ),
    problemOf(
      `concatenateTokens, ${prefix} + ${fast} x ${W}`,
      { first: [B, prefix, W], second: token },
      ({ first, second }) => kernels.concatenateTokens([first, second]),
      ({ first, second }) => reference.concatenateTokens([first, second], B),
    ),
    problemOf(
      `sliceTokens, ${fast} of ${backbone} x ${W}`,
      { x },
      ({ x }) => kernels.sliceTokens(x, prefix, fast),
      (given) => reference.sliceTokens(given.x, x, prefix, fast),
    ),
    problemOf(
      `linearCrossEntropy, ${fast} x ${W}, vocabulary ${V}`,
      { hidden: token, embedding: [V, W], targets, mask },
      ({ hidden, embedding, targets, mask }) => kernels.linearCrossEntropy(hidden, embedding, targets, mask),
      ({ hidden, embedding, targets, mask }) =>
        reference.linearCrossEntropy(hidden, embedding, { targets, mask, tokens: fast }),
    ),
    problemOf(
      `meanSquaredError, ${action} x ${E}`,
      { prediction: y, target: constant(y) },
      ({ prediction, target }) => kernels.meanSquaredError(prediction, target),
      ({ prediction, target }) => reference.meanLoss(reference.errors.meanSquaredError, prediction, target),
    ),
    problemOf(
      `eulerStep, ${action} x ${E}`,
      { x: y, velocity: y },
      ({ x, velocity }) => kernels.eulerStep(x, velocity, -0.1),
      ({ x, velocity }) => reference.pairwise(x, velocity, (a, v) => a - 0.1 * v),
    ),
    problemOf(
      `flowInterpolate, ${action} x ${E}`,
      { actions: constant(y), noise: constant(y), time: constant([B]) },
      ({ actions, noise, time }) => kernels.flowInterpolate(actions, noise, time).noisy,
      ({ actions, noise, time }) => reference.flowInterpolate(actions, noise, time).noisy,
      { backward: false },
    ),
    problemOf(
      `randomUniform, ${backbone} x ${W}`,
      { address: { shape: [4], ids: kernels.randomAddress(address) } },
      (given) => kernels.randomUniform([backbone * W], given.address),
      () => Float64Array.from(reference.randomUniform(backbone * W, address)),
      { backward: false },
    ),
    problemOf(
      `sum, ${backbone} x ${W}`,
      { x },
      ({ x }) => kernels.sum(x),
      ({ x }) => Float64Array.of(reference.total(x)),
    ),
  ];
}

/** Attention by a table; validity [batch, tokens] is 1 for real tokens, which all are by default. */
export function attentionProblem(
  title: string,
  table: kernels.AttentionTable,
  sizes: { readonly batch: number; readonly heads: number; readonly kvHeads: number; readonly headDimension: number },
  validity?: Uint8Array,
): Problem {
  const { batch, heads, kvHeads, headDimension: D } = sizes;
  const { blocks, length: tokens } = table.layout;
  const exact = ({ query, key, value }: Named<Float64Array>, dOutput?: Float64Array) => {
    const real = validity ?? new Uint8Array(batch * tokens).fill(1);
    return reference.attention({ ...{ table, ...sizes, query, key, value, dOutput }, validity: real });
  };
  return problemOf(
    `attention, ${title}, ${blocks.map(({ length }) => length).join('+')}, ${heads}/${kvHeads} heads of ${D}`,
    { query: [batch, tokens, heads, D], key: [batch, tokens, kvHeads, D], value: [batch, tokens, kvHeads, D] },
    ({ query, key, value }) => kernels.attention(query, key, value, { table, validity }),
    (numbers) => exact(numbers).output,
    {
      gradients: (numbers, dOutput) => {
        const { dQuery, dKey, dValue } = exact(numbers, dOutput);
        return { query: dQuery, key: dKey, value: dValue };
      },
    },
  );
}
