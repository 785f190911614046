import { type DataType, formatShape, type Parameters, type Tensor } from '../engine/index.ts';
import { storage } from './operand.ts';

/** How a kernel walks along an axis: its parameters Value, Word, unpack and pack. */
export interface Groups {
  readonly size: 1 | 4;
  readonly parameters: Parameters;
}

/**
 * Four elements to a group where `length`, the run of elements that a kernel walks along, is a multiple of four; otherwise one to
 * a group, which is slow and takes f32 only.
 */
export function groupsOf(op: string, argument: string, operand: Tensor, length: number): Groups {
  if (length % 4 === 0) return fours(operand.dtype);
  if (operand.dtype !== 'f32')
    throw new Error(
      `${op}: ${argument} is ${operand.dtype} ${formatShape(operand.shape)}; rows of ${length}, no multiple of four, are taken in f32 only: cast it`,
    );
  return ones;
}

export function fours(dtype: DataType): Groups {
  return { size: 4, parameters: storage(dtype) };
}

export const ones: Groups = {
  size: 1,
  parameters: { Value: 'single', Word: 'single', unpack: 'single', pack: 'single' },
};

/** The parameters that a kernel file needs for `groups` if it only reads and writes f32. */
export function valueAlias(groups: Groups): Parameters {
  return groups.size === 1 ? { Value: 'single' } : {};
}
