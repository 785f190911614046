/** Checks and storage that every op shares: a wrong operand is named, with both shapes, before anything is encoded. */
import { type DataType, type Device, formatShape, type Parameters, type Shape, type Tensor } from '../engine/index.ts';

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

// WGSL may assume that there are no NaNs in arithmetic and comparisons; in integers it may not.
const isNan = '((bitcast<vec4u>(value) & vec4u(0x7fffffffu)) > vec4u(0x7f800000u))';

/** How a kernel file stores groups of four elements: its parameters Word, unpack and pack. */
export function storage(dtype: DataType): Parameters {
  switch (dtype) {
    case 'f32':
      return {};
    case 'f16':
      return {
        Word: 'alias Word = vec2u;',
        unpack: 'fn unpack(word: Word) -> vec4f { return vec4f(unpack2x16float(word.x), unpack2x16float(word.y)); }',
        // pack2x16float outside the range of f16 is indeterminate. What is no number stays none: a run that diverges is noticed.
        pack: `fn pack(value: vec4f) -> Word { let safe = clamp(value, vec4f(-65504.0), vec4f(65504.0)); let nan = ${isNan}; return vec2u(pack2x16float(safe.xy) | select(0u, 0x7e00u, nan.x) | select(0u, 0x7e000000u, nan.y), pack2x16float(safe.zw) | select(0u, 0x7e00u, nan.z) | select(0u, 0x7e000000u, nan.w)); }`,
      };
    case 'bf16':
      return {
        Word: 'alias Word = vec2u;',
        unpack:
          'fn unpack(word: Word) -> vec4f { return bitcast<vec4f>(vec4u(word.x << 16u, word.x & 0xffff0000u, word.y << 16u, word.y & 0xffff0000u)); }',
        // Round to nearest even: add half of the last kept place, or a hair less when that place is even.
        pack: `fn pack(value: vec4f) -> Word { let bits = bitcast<vec4u>(value); let rounded = (bits + 0x7fffu + ((bits >> vec4u(16u)) & vec4u(1u))) >> vec4u(16u); let kept = select(rounded, vec4u(0x7fc0u), ${isNan}); return vec2u(kept.x | (kept.y << 16u), kept.z | (kept.w << 16u)); }`,
      };
    default:
      throw new Error(`storage: ${dtype} holds no fractions`);
  }
}

/** The parameter Word of `storage` alone, for kernels that move groups of four elements and compute nothing. */
export function wordOf(dtype: DataType): Parameters {
  const { Word } = storage(dtype);
  return Word === undefined ? {} : { Word };
}

/** The device of the operands; throws when they are on different ones. */
export function sharedDevice(op: string, ...tensors: readonly Tensor[]): Device {
  const { device } = tensors[0];
  if (tensors.some((tensor) => tensor.device !== device)) throw new Error(`${op}: operands are on different devices`);
  return device;
}
