/** The ops and sizes that are verified: those of a model's step at odd sizes, and what `insula bench kernels` does not time. */
import { elementCount, type Shape, type Tensor } from '../../engine/index.ts';
import * as kernels from '../../kernels/index.ts';
import * as reference from '../../kernels/reference/index.ts';
import { type Problem, problemOf, problemsOf } from '../kernels/problems.ts';
import type { ModelShape } from '../kernels/shapes.ts';
import type { Check } from './check.ts';

/** Whole groups of four, which every storage takes; widths that are none; and rows that no workgroup covers at once. */
const shapes: readonly ModelShape[] = [
  {
    ...{ name: 'groups', batch: 2, prefix: 19, fast: 5, action: 7, width: 12, hidden: 20, expertWidth: 8 },
    ...{ expertHidden: 16, heads: 4, kvHeads: 2, headDimension: 16, vocabulary: 37, image: 8, patch: 4 },
  },
  {
    ...{ name: 'odd', batch: 3, prefix: 5, fast: 3, action: 6, width: 7, hidden: 13, expertWidth: 5 },
    ...{ expertHidden: 9, heads: 3, kvHeads: 1, headDimension: 12, vocabulary: 21, image: 6, patch: 3 },
  },
  {
    ...{ name: 'long', batch: 1, prefix: 9, fast: 1, action: 2, width: 260, hidden: 20, expertWidth: 268 },
    ...{ expertHidden: 12, heads: 2, kvHeads: 1, headDimension: 72, vocabulary: 131, image: 4, patch: 2 },
  },
];

const problems = (shape: ModelShape): Problem[] => [...problemsOf(shape), ...others(shape)];

export const everyProblem = (): Problem[] => shapes.flatMap(problems);

/** The ops that take f16 and bf16. */
export const inStorage = (): Problem[] =>
  problems(shapes[0]).filter(
    ({ name }) =>
      !/^(softmax|patchEmbedding|linearCrossEntropy|meanSquaredError|l1|huber|binary|eulerStep|flow|random|sum|mean|pad)/.test(
        name,
      ),
  );

/** The ops that compare a variant of matrix products: every orientation with its gradients, storages, the two products of a gated MLP. */
export const productProblems: readonly {
  readonly problem: Problem;
  readonly sides: 1 | 2;
  readonly storages: readonly Check['storage'][];
}[] = [
  {
    problem: problemOf(
      'linear, 70 x 39 to 67, bias',
      { x: [70, 39], weight: [67, 39], bias: [67] },
      ({ x, weight, bias }) => kernels.linear(x, weight, bias),
      ({ x, weight, bias }) => reference.linear(x, weight, 39, { bias }),
    ),
    ...{ sides: 1, storages: ['f32'] },
  },
  {
    problem: problemOf(
      'linear, 20 x 40 to 24, bias',
      { x: [20, 40], weight: [24, 40], bias: [24] },
      ({ x, weight, bias }) => kernels.linear(x, weight, bias),
      ({ x, weight, bias }) => reference.linear(x, weight, 40, { bias }),
    ),
    ...{ sides: 1, storages: ['f16', 'bf16', { weight: 'bf16', bias: 'bf16' }] },
  },
  {
    problem: problemOf(
      'matmul, 21 x 18 x 35, both transposed',
      { a: [2, 35, 21], b: [2, 18, 35] },
      ({ a, b }) => kernels.matmul(a, b, { transposeA: true, transposeB: true }),
      ({ a, b }) => reference.matmul(a, b, { batch: 2, m: 21, n: 18, k: 35, transposeA: true, transposeB: true }),
    ),
    ...{ sides: 1, storages: ['f32'] },
  },
  {
    problem: problemOf(
      'gatedMlp, 18 x 20, hidden 28',
      { x: [18, 20], gate: [28, 20], up: [28, 20], down: [20, 28] },
      ({ x, gate, up, down }) => kernels.gatedMlp(x, gate, up, down),
      ({ x, gate, up, down }) => reference.gatedMlp([x, gate, up, down], 20),
    ),
    ...{ sides: 2, storages: ['f32', 'bf16'] },
  },
];

/** Ids of an operand, the same on every run. */
const marks = (shape: Shape, period: number) => ({
  shape,
  ids: Uint32Array.from({ length: elementCount(shape) }, (_, i) => (i % period === 1 ? 0 : 1)),
});

function others({ batch: B, prefix, action, width: W, expertWidth: E, heads, headDimension: D, ...model }: ModelShape) {
  const x = [B, prefix, W];
  const y = [B, action, E];
  const table = [B, prefix, heads, D];
  const { vocabulary: V, fast, kvHeads } = model;
  const rotated = heads + kvHeads;
  const activation = (name: keyof typeof reference.activations, run: (x: Tensor) => Tensor) =>
    problemOf(
      `${name}, ${prefix} x ${W}`,
      { x },
      ({ x }) => run(x),
      ({ x }) => x.map(reference.activations[name]),
    );
  const loss = (name: keyof typeof reference.errors, run: typeof kernels.l1) =>
    problemOf(
      `${name}, ${action} x ${E}, masks`,
      { prediction: y, target: { shape: y }, valid: marks([B, action], 3), dimensions: marks([B, E], 4) },
      ({ prediction, target, ...masks }) => run(prediction, target, masks),
      ({ prediction, target, ...masks }) =>
        reference.meanLoss(reference.errors[name], prediction, target, reference.countedElements(y, masks)),
    );
  const targets = { shape: [B, fast], ids: Uint32Array.from({ length: B * fast }, (_, i) => (i * 31 + 5) % V) };
  const owners = [
    { input: 0, length: 2 },
    { input: 1, length: action },
    { input: 0, length: prefix - 2 },
  ];
  return [
    activation('tanh', kernels.tanh),
    activation('sigmoid', kernels.sigmoid),
    activation('relu', kernels.relu),
    loss('l1', kernels.l1),
    loss('huber', kernels.huber),
    loss('binaryCrossEntropyWithLogits', kernels.binaryCrossEntropyWithLogits),
    problemOf(
      `subtract, ${prefix} x ${W}, one row of ${W}`,
      { a: x, b: [W] },
      ({ a, b }) => kernels.subtract(a, b),
      ({ a, b }) => reference.pairwise(a, b, (p, q) => p - q),
    ),
    problemOf(
      `mean, ${prefix} x ${W}`,
      { x },
      ({ x }) => kernels.mean(x),
      ({ x }) => Float64Array.of(reference.total(x) / x.length),
    ),
    problemOf(
      `sumRows, ${prefix} x ${W}`,
      { x },
      ({ x }) => kernels.sumRows(x),
      ({ x }) => reference.sumRows(x, W),
    ),
    problemOf(
      `pad, ${prefix} x ${W} to ${W + 3}`,
      { x },
      ({ x }) => kernels.pad(x, W + 3),
      ({ x }) => reference.pad(x, W, W + 3),
    ),
    problemOf(
      `cast to f16, ${prefix} x ${W}`,
      { x },
      ({ x }) => kernels.cast(x, 'f16'),
      ({ x }) => Float64Array.from(reference.cast(x, 'f16')),
      { gradients: (_, dOutput) => ({ x: dOutput }) },
    ),
    problemOf(
      `rmsNorm, ${prefix} x ${W}, plain gain`,
      { x, weight: [W] },
      ({ x, weight }) => kernels.rmsNorm(x, weight, { gain: 'plain', epsilon: 0.5 }),
      ({ x, weight }) => reference.rmsNorm(x, weight, { gain: 'plain', epsilon: 0.5 }),
    ),
    problemOf(
      `rotary, ${prefix} x ${heads} x ${D}, pairs`,
      { x: table, angles: { shape: [B, prefix, D / 2, 2] } },
      ({ x, angles }) => kernels.rotary(x, angles, { layout: 'pairs' }),
      ({ x, angles }) => reference.rotary(x, angles, heads, D, 'pairs'),
    ),
    problemOf(
      `rotaryHeads, ${prefix} x ${heads} and ${kvHeads} x ${D}`,
      { x: [B, prefix, rotated + kvHeads, D], angles: { shape: [B, prefix, D / 2, 2] } },
      ({ x, angles }) => {
        const parts = Object.values(kernels.rotaryHeads(x, angles, { heads, kvHeads }));
        return kernels.concatenateTokens(parts.map((part) => kernels.reshape(part, [B * prefix, part.shape[2], D])));
      },
      ({ x, angles }) => {
        const part = (start: number, count: number) =>
          reference.sliceTokens(x, [B * prefix, rotated + kvHeads], start, count);
        const queriesAndKeys = reference.rotary(part(0, rotated), angles, rotated, D);
        return reference.concatenateTokens([queriesAndKeys, part(rotated, kvHeads)], B * prefix);
      },
    ),
    problemOf(
      `linear, ${prefix} x ${W} to ${E}, bias, gelu and residual`,
      { x, weight: [E, W], bias: [E], residual: [B, prefix, E] },
      ({ x, weight, bias, residual }) => kernels.linear(x, weight, bias, { activation: 'gelu', residual }),
      ({ x, weight, bias, residual }) => reference.linear(x, weight, W, { bias, activation: 'gelu', residual }),
    ),
    problemOf(
      `gatedMlp, ${action} x ${E}, swish and residual`,
      { x: y, gate: [W, E], up: [W, E], down: [E, W], residual: y },
      ({ x, gate, up, down, residual }) => kernels.gatedMlp(x, gate, up, down, { activation: 'swish', residual }),
      ({ x, gate, up, down, residual }) =>
        reference.gatedMlp([x, gate, up, down], E, { activation: 'swish', residual }),
    ),
    problemOf(
      `blockLinear, interleaved rows of ${W} and ${E}, biases`,
      { x, y, ofX: [W, W], ofY: [W, E], biasOfX: [W], biasOfY: [W] },
      ({ x, y, ofX, ofY, biasOfX, biasOfY }) => kernels.blockLinear([x, y], [ofX, ofY], owners, [biasOfX, biasOfY]),
      ({ x, y, ofX, ofY, biasOfX, biasOfY }) =>
        reference.blockLinear([x, y], [ofX, ofY], owners, B, [biasOfX, biasOfY]),
    ),
    problemOf(
      `blockSplitLinear, interleaved rows of ${W} to ${E}, residual`,
      { joint: [B, prefix + action, W], ofX: [W, W], ofY: [E, W], residual: y },
      ({ joint, ofX, ofY, residual }) =>
        kernels.blockSplitLinear(joint, [ofX, ofY], owners, { residuals: [null, residual] })[1]!,
      ({ joint, ofX, ofY, residual }) => reference.blockSplitLinear(joint, [ofX, ofY], owners, B, [null, residual])[1],
    ),
    problemOf(
      `matmul, ${W} x ${E} x ${prefix}, both transposed, bias`,
      { a: [B, prefix, W], b: [E, prefix], bias: [E] },
      ({ a, b, bias }) => kernels.matmul(a, b, { transposeA: true, transposeB: true, bias }),
      ({ a, b, bias }) =>
        reference.matmul(
          ...[a, b],
          { batch: B, m: W, n: E, k: prefix, transposeA: true, transposeB: true, shared: true },
          bias,
        ),
    ),
    problemOf(
      `linearCrossEntropy, ${fast} x ${W}, masked, mean over rows`,
      { hidden: [B, fast, W], embedding: [V, W], targets, mask: marks([B, fast], 2) },
      ({ hidden, embedding, targets, mask }) =>
        kernels.linearCrossEntropy(hidden, embedding, targets, mask, { reduction: 'perToken' }),
      ({ hidden, embedding, targets, mask }) =>
        reference.linearCrossEntropy(hidden, embedding, { targets, mask, tokens: fast, reduction: 'perToken' }),
    ),
    problemOf(
      `writeTokens, ${fast} of ${prefix} x ${4 * W}`,
      { cache: [B, prefix, 4 * W], rows: [B, fast, 4 * W] },
      ({ cache, rows }) => {
        kernels.writeTokens(cache, rows, 2);
        return kernels.scale(cache, 1);
      },
      ({ cache, rows }) => reference.writeTokens(cache, rows, [B, prefix], 2),
      { backward: false },
    ),
  ];
}
