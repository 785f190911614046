/** The ops and sizes that are verified: those of a model's step at odd sizes, and what `insula bench kernels` does not time. */
import * as kernels from '../../kernels/index.ts';
import * as exact from '../../kernels/reference/index.ts';
import * as problem from '../kernels/problem.ts';
import { marks, type Problem, problemOf } from '../kernels/problem.ts';
import { problemsOf } from '../kernels/problems.ts';
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

/** Rows so long that a graphics adapter holds them in registers. */
const wide = (rows: number, width: number) =>
  problemOf(`rmsNorm, ${rows} x ${width}`, { x: [rows, width], weight: [width] }, [
    (x, weight) => kernels.rmsNorm(x, weight),
    (x, weight) => exact.rmsNorm(x, weight),
  ]);

export const everyProblem = (): Problem[] => [...shapes.flatMap(problems), wide(6, 1028)];

/** The ops that take f16 and bf16. */
export const inStorage = (): Problem[] =>
  problems(shapes[0]).filter(
    ({ name }) =>
      !/^(softmax|patchEmbedding|linearCrossEntropy|meanSquaredError|l1|huber|binary|eulerStep|flow|random|sum|mean|pad|lstm)/.test(
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
    problem: problem.linear('70 x 39 to 67, bias', { x: [70, 39], weight: [67, 39], bias: [67] }),
    ...{ sides: 1, storages: ['f32'] },
  },
  {
    problem: problem.linear('20 x 40 to 24, bias', { x: [20, 40], weight: [24, 40], bias: [24] }),
    ...{ sides: 1, storages: ['f16', 'bf16', { weight: 'bf16', bias: 'bf16' }] },
  },
  {
    problem: problem.matmul(
      '21 x 18 x 35, both transposed',
      { a: [2, 35, 21], b: [2, 18, 35] },
      { batch: 2, m: 21, n: 18, k: 35, transposeA: true, transposeB: true },
    ),
    ...{ sides: 1, storages: ['f32'] },
  },
  { problem: problem.gatedMlp('18 x 20, hidden 28', [18, 20], 28), sides: 2, storages: ['f32', 'f16', 'bf16'] },
];

function others({ batch: B, prefix, action, width: W, expertWidth: E, heads, headDimension: D, ...model }: ModelShape) {
  const { vocabulary: V, fast, kvHeads } = model;
  const x = [B, prefix, W];
  const y = [B, action, E];
  const [ofX, ofY] = [`${prefix} x ${W}`, `${action} x ${E}`];
  const weights = { ofX: [W, W], ofY: [W, E], biasOfX: [W], biasOfY: [W] };
  const residual = [B, prefix, E];
  const rotated = heads + kvHeads;
  const counted = { valid: marks([B, action], 3), dimensions: marks([B, E], 4) };
  const owners = [
    { input: 0, length: 2 },
    { input: 1, length: action },
    { input: 0, length: prefix - 2 },
  ];
  const { tanh, sigmoid, relu, l1, huber, binaryCrossEntropyWithLogits } = kernels;
  return [
    ...[tanh, sigmoid, relu].map((run) => problem.activation(run, ofX, x)),
    ...[l1, huber, binaryCrossEntropyWithLogits].map((run) => problem.loss(run, `${ofY}, masks`, y, counted)),
    problemOf(`subtract, ${ofX}, one row of ${W}`, { a: x, b: [W] }, [
      kernels.subtract,
      (a, b) => exact.pairwise(a, b, (p, q) => p - q),
    ]),
    problemOf(`mean, ${ofX}`, { x }, [kernels.mean, (x) => Float64Array.of(exact.total(x) / x.length)]),
    problemOf(`sumRows, ${ofX}`, { x }, [kernels.sumRows, (x) => exact.sumRows(x, W)]),
    problemOf(`pad, ${ofX} to ${W + 3}`, { x }, [(x) => kernels.pad(x, W + 3), (x) => exact.pad(x, W, W + 3)]),
    problem.cast('f16', ofX, x),
    problemOf(`rmsNorm, ${ofX}, plain gain`, { x, weight: [W] }, [
      (x, weight) => kernels.rmsNorm(x, weight, { gain: 'plain', epsilon: 0.5 }),
      (x, weight) => exact.rmsNorm(x, weight, { gain: 'plain', epsilon: 0.5 }),
    ]),
    problemOf(
      `lstm, ${action} steps of ${W} to ${E}`,
      { x: [B, action, W], ofX: [4 * E, W], ofHidden: [4 * E, E], biasOfX: [4 * E], biasOfHidden: [4 * E] },
      [
        (x, inputWeight, hiddenWeight, inputBias, hiddenBias) =>
          kernels.lstm(x, { inputWeight, hiddenWeight, inputBias, hiddenBias }),
        (...operands) => exact.lstm(operands, [B, action]),
      ],
    ),
    problem.rotary(`${prefix} x ${heads} x ${D}, pairs`, [B, prefix, heads, D], 'pairs'),
    problemOf(
      `rotaryHeads, ${prefix} x ${heads} and ${kvHeads} x ${D}`,
      { x: [B, prefix, rotated + kvHeads, D], angles: { shape: [B, prefix, D / 2, 2] } },
      [
        (x, angles) => {
          const parts = Object.values(kernels.rotaryHeads(x, angles, { heads, kvHeads }));
          return kernels.concatenateTokens(parts.map((part) => kernels.reshape(part, [B * prefix, part.shape[2], D])));
        },
        (x, angles) => {
          const part = (start: number, count: number) =>
            exact.sliceTokens(x, [B * prefix, rotated + kvHeads], start, count);
          const queriesAndKeys = exact.rotary(part(0, rotated), angles, rotated, D);
          return exact.concatenateTokens([queriesAndKeys, part(rotated, kvHeads)], B * prefix);
        },
      ],
    ),
    problem.linear(`${ofX} to ${E}, bias, gelu and residual`, { x, weight: [E, W], bias: [E], residual }, 'gelu'),
    problem.gatedMlp(`${ofY}, swish and residual`, y, W, y, 'swish'),
    problem.blockLinear(`interleaved rows of ${W} and ${E}, biases`, { x, y, ...weights }, owners, B),
    problem.blockSplitLinear(
      `interleaved rows of ${W} to ${E}, residual`,
      { joint: [B, prefix + action, W], ofX: [W, W], ofY: [E, W], residual: y },
      owners,
      1,
    ),
    problem.matmul(
      `${W} x ${E} x ${prefix}, both transposed, bias`,
      { a: [B, prefix, W], b: [E, prefix], bias: [E] },
      { batch: B, m: W, n: E, k: prefix, transposeA: true, transposeB: true, shared: true },
    ),
    problem.linearCrossEntropy(
      `${fast} x ${W}, masked, mean over rows`,
      { hidden: [B, fast, W], embedding: [V, W], mask: marks([B, fast], 2) },
      'perToken',
    ),
    {
      ...problemOf(
        `writeTokens, ${fast} of ${prefix} x ${4 * W}`,
        { cache: [B, prefix, 4 * W], rows: [B, fast, 4 * W] },
        [
          (cache, rows) => {
            kernels.writeTokens(cache, rows, 2);
            return kernels.scale(cache, 1);
          },
          (cache, rows) => exact.writeTokens(cache, rows, [B, prefix], 2),
        ],
      ),
      backward: false,
    },
  ];
}
