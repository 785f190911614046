/** An op on operands by name, on the device and in float64; and ops of several sizes or options. */
import { elementCount, type Shape, type Tensor } from '../../engine/index.ts';
import * as kernels from '../../kernels/index.ts';
import * as exact from '../../kernels/reference/index.ts';

/** An operand that wants a gradient, by its shape; or one that does not: floats, or the ids that are given. */
export type Operand = Shape | { readonly shape: Shape; readonly ids?: Uint32Array };

/** An op on the device and in float64, each of the operands in their order. */
type Pair = readonly [run: (...tensors: Tensor[]) => Tensor, oracle: (...numbers: Float64Array[]) => Float64Array];

export interface Problem {
  /** The op, and after a comma or a space its sizes. */
  readonly name: string;
  readonly operands: Readonly<Record<string, Operand>>;
  readonly pair: Pair;
  /** The gradients in float64 by operand, where they are no derivatives of the oracle: behind a stop. */
  readonly gradients?: (numbers: readonly Float64Array[], dOutput: Float64Array) => readonly Float64Array[];
  readonly backward: boolean;
}

export const opOf = ({ name }: { readonly name: string }): string => name.split(/[ ,]/)[0];

export const problemOf = (name: string, operands: Problem['operands'], pair: Pair): Problem => ({
  ...{ name, operands, pair, backward: true },
});

/** Ids below a number, the same on every run. */
export const ids = (shape: Shape, below: number): Operand => ({
  shape,
  ids: Uint32Array.from({ length: elementCount(shape) }, (_, i) => (i * 7919 + 13) % below),
});

/** Ones, and zeros in the second place of each period if there is one. */
export const marks = (shape: Shape, period?: number): Operand => ({
  shape,
  ids: Uint32Array.from({ length: elementCount(shape) }, (_, i) => (period && i % period === 1 ? 0 : 1)),
});

type Operands = Problem['operands'];
type Activation = 'gelu' | 'swish';
const last = (shape: Shape) => shape[shape.length - 1];

export const linear = (title: string, given: Operands & { readonly x: Shape }, activation?: Activation): Problem =>
  problemOf(`linear, ${title}`, given, [
    (x, weight, bias, residual) => kernels.linear(x, weight, bias, { activation, residual }),
    (x, weight, bias, residual) => exact.linear(x, weight, last(given.x), { bias, activation, residual }),
  ]);

export const gatedMlp = (
  title: string,
  x: Shape,
  hidden: number,
  residual?: Shape,
  activation?: Activation,
): Problem => {
  const gate = [hidden, last(x)];
  const operands = { x, gate, up: gate, down: [last(x), hidden], ...(residual && { residual }) };
  return problemOf(`gatedMlp, ${title}`, operands, [
    (x, gate, up, down, residual) => kernels.gatedMlp(x, gate, up, down, { activation, residual }),
    (...[x, gate, up, down, residual]) =>
      exact.gatedMlp([x, gate, up, down], last(operands.x), { activation, residual }),
  ]);
};

export const matmul = (title: string, given: Operands, sizes: exact.ProductSizes): Problem =>
  problemOf(`matmul, ${title}`, given, [
    (a, b, bias) => kernels.matmul(a, b, { transposeA: sizes.transposeA, transposeB: sizes.transposeB, bias }),
    (a, b, bias) => exact.matmul(a, b, sizes, bias),
  ]);

export const blockLinear = (title: string, given: Operands, blocks: exact.Blocks, batch: number): Problem =>
  problemOf(`blockLinear, ${title}`, given, [
    (x, y, ofX, ofY, ...biases) => kernels.blockLinear([x, y], [ofX, ofY], blocks, biases),
    (x, y, ofX, ofY, ...biases) => exact.blockLinear([x, y], [ofX, ofY], blocks, batch, biases),
  ]);

/** The result of one owner; a residual is that of the second. */
export const blockSplitLinear = (
  title: string,
  given: Operands & { readonly joint: Shape },
  blocks: exact.Blocks,
  owner: 0 | 1,
): Problem =>
  problemOf(`blockSplitLinear, ${title}`, given, [
    (joint, a, b, added) => kernels.blockSplitLinear(joint, [a, b], blocks, { residuals: [null, added] })[owner]!,
    (joint, a, b, added) => exact.blockSplitLinear(joint, [a, b], blocks, given.joint[0], [null, added ?? null])[owner],
  ]);

export const rotary = (title: string, shape: Shape, layout?: 'pairs'): Problem =>
  problemOf(`rotary, ${title}`, { x: shape, angles: { shape: [shape[0], shape[1], shape[3] / 2, 2] } }, [
    (x, angles) => kernels.rotary(x, angles, { layout }),
    (x, angles) => exact.rotary(x, angles, shape[2], shape[3], layout),
  ]);

export const linearCrossEntropy = (
  title: string,
  given: { readonly hidden: Shape; readonly embedding: Shape; readonly mask: Operand },
  reduction?: 'perToken',
): Problem => {
  const [batch, tokens] = given.hidden;
  return problemOf(`linearCrossEntropy, ${title}`, { ...given, targets: ids([batch, tokens], given.embedding[0]) }, [
    (hidden, embedding, mask, targets) => kernels.linearCrossEntropy(hidden, embedding, targets, mask, { reduction }),
    (...[hidden, embedding, mask, targets]) =>
      exact.linearCrossEntropy(hidden, embedding, { targets, mask, tokens, reduction }),
  ]);
};

export const activation = (run: typeof kernels.gelu, title: string, x: Shape): Problem =>
  problemOf(`${run.name}, ${title}`, { x }, [
    run,
    (x) => x.map(exact.activations[run.name as keyof typeof exact.activations]),
  ]);

/** The mean error over the elements that count. */
export const loss = (run: typeof kernels.l1, title: string, shape: Shape, masks: Operands = {}): Problem =>
  problemOf(`${run.name}, ${title}`, { prediction: shape, target: { shape }, ...masks }, [
    (prediction, target, valid, dimensions) => run(prediction, target, { valid, dimensions }),
    (prediction, target, valid, dimensions) => {
      const error = exact.errors[run.name as keyof typeof exact.errors];
      return exact.meanLoss(error, prediction, target, exact.countedElements(shape, { valid, dimensions }));
    },
  ]);

/** The gradient passes unrounded. */
export const cast = (dtype: 'f16' | 'bf16', sizes: string, x: Shape): Problem => ({
  ...problemOf(`cast to ${dtype}, ${sizes}`, { x }, [
    (x) => kernels.cast(x, dtype),
    (x) => Float64Array.from(exact.cast(x, dtype)),
  ]),
  gradients: (_, dOutput) => [dOutput],
});

/** Attention by a table; validity [batch, tokens] is 1 for real tokens, which all are by default. */
export function attention(
  title: string,
  table: kernels.AttentionTable,
  sizes: { readonly batch: number; readonly heads: number; readonly kvHeads: number; readonly headDimension: number },
  validity?: Uint8Array,
): Problem {
  const { batch, heads, kvHeads, headDimension: D } = sizes;
  const { blocks, length: tokens } = table.layout;
  const real = validity ?? new Uint8Array(batch * tokens).fill(1);
  const solved = ([query, key, value]: readonly Float64Array[], dOutput?: Float64Array) =>
    exact.attention({ ...{ table, ...sizes, query, key, value, dOutput }, validity: real });
  const row = [batch, tokens, kvHeads, D];
  return {
    ...problemOf(
      `attention, ${title}, ${blocks.map(({ length }) => length).join('+')}, ${heads}/${kvHeads} heads of ${D}`,
      { query: [batch, tokens, heads, D], key: row, value: row },
      [(q, k, v) => kernels.attention(q, k, v, { table, validity }), (...numbers) => solved(numbers).output],
    ),
    gradients(numbers, dOutput) {
      const { dQuery, dKey, dValue } = solved(numbers, dOutput);
      return [dQuery, dKey, dValue];
    },
  };
}
