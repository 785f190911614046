/** Checks and storage that every op shares: a wrong operand is named, with both shapes, before anything is encoded. */
import {
  type DataType,
  type Device,
  type Dispatch,
  formatShape,
  type Parameters,
  record,
  type Shape,
  type Tensor,
} from '../engine/index.ts';

/** Tensors by the names of their bindings in a kernel file. */
export type Bindings = Readonly<Record<string, Tensor>>;
/** The cost of a dispatch by the cost model. */
export type Costs = Pick<Dispatch, 'flops' | 'bytes'>;

/** Throws unless `tensor` has `shape`; a null stands for any size. */
export function expectShape(op: string, argument: string, tensor: Tensor, shape: readonly (number | null)[]): void {
  tensor.assertAlive(op);
  const fits =
    tensor.shape.length === shape.length && shape.every((size, i) => size === null || size === tensor.shape[i]);
  const wanted = `[${shape.map((size) => size ?? '*').join(', ')}]`;
  if (!fits) throw new Error(`${op}: ${argument} has shape ${formatShape(tensor.shape)}; expected ${wanted}`);
}

/** Throws unless the element type of `tensor` is one of `dtypes`. */
export function expectDtype(op: string, argument: string, tensor: Tensor, ...dtypes: DataType[]): void {
  tensor.assertAlive(op);
  if (!dtypes.includes(tensor.dtype))
    throw new Error(
      `${op}: ${argument} is ${tensor.dtype} ${formatShape(tensor.shape)}; expected ${dtypes.join(' or ')}`,
    );
}

/** Throws unless `tensor`, where it is there, has this element type and this shape. */
export function expectLike(
  op: string,
  argument: string,
  tensor: Tensor | null | undefined,
  dtype: DataType,
  shape: readonly (number | null)[],
): void {
  if (!tensor) return;
  expectDtype(op, argument, tensor, dtype);
  expectShape(op, argument, tensor, shape);
}

/** Throws unless `factor`, a bias or a gain where it is there, is [columns] in f32 or in the storage of `like`. */
export function expectFactor(
  op: string,
  argument: string,
  factor: Tensor | null | undefined,
  like: Tensor,
  columns: number,
): void {
  if (!factor) return;
  expectDtype(op, argument, factor, ...new Set([like.dtype, 'f32' as const]));
  expectShape(op, argument, factor, [columns]);
}

/** Throws unless `tensor` has at least one axis; returns the sizes of all axes but the last, multiplied, and of the last. */
export function rowsAndWidth(op: string, argument: string, tensor: Tensor): { rows: number; width: number } {
  tensor.assertAlive(op);
  const width = tensor.shape.at(-1);
  if (width === undefined) throw new Error(`${op}: ${argument} is a scalar; expected at least one axis`);
  if (width === 0) throw new Error(`${op}: ${argument} has shape ${formatShape(tensor.shape)}; its last axis is empty`);
  return { rows: tensor.size / width, width };
}

export function withLastAxis(shape: Shape, width: number): number[] {
  return [...shape.slice(0, -1), width];
}

/**
 * The alternatives of a kernel's Word, unpack and pack, which store groups of four elements. Packing rounds to nearest. It clamps
 * what f16 cannot hold, because pack2x16float is indeterminate there, and NaN stays NaN, so that a run that diverges is noticed; its
 * bits tell it, because WGSL may assume that no number is one.
 */
export function storage(dtype: DataType): Parameters {
  if (dtype === 'u32') throw new Error('storage: u32 holds no fractions');
  return dtype === 'f32' ? {} : { Word: dtype, unpack: dtype, pack: dtype };
}

export function sharedDevice(op: string, ...tensors: readonly Tensor[]): Device {
  const { device } = tensors[0];
  if (tensors.some((tensor) => tensor.device !== device)) throw new Error(`${op}: operands are on different devices`);
  return device;
}

/** `record` for an op with one output. Its rule does not run without that output's gradient, which it therefore gets in any case. */
export function recordOne(
  op: string,
  inputs: readonly Tensor[],
  output: Tensor,
  rule: (dOutput: Tensor, wants: boolean[]) => (Tensor | null)[],
): void {
  record(op, inputs, [output], ([dOutput], wants) => rule(dOutput!, wants));
}
