import { InputError } from '../../../engine/files/errors.ts';
import type { Image } from '../dataset.ts';
import type { SourceField } from './source.ts';

// Pictures that are arrays of numbers, as npz and HDF5 files hold them.

/** An array with a row for each step; `scale` makes the numbers of its pictures 0 to 255. */
export type FoundArray = Pick<SourceField, 'kind' | 'shape' | 'reason'> & { readonly scale?: number };

/** The numbers of an array: unsigned bytes, other whole numbers, or floats. */
export type Element = 'byte' | 'integer' | 'float';

/** The layout of [steps, height, width, channels], [steps, channels, height, width] or, of bytes, [steps, height, width]; or null. */
function layoutOf(shape: readonly number[], bytes: boolean) {
  const [, a, b, c] = shape;
  const isChannels = (count: number) => [1, 3, 4].includes(count);
  const grey = shape.length === 3 && bytes;
  if (!grey && (shape.length !== 4 || !(isChannels(c) || isChannels(a)))) return null;
  const planar = !grey && !isChannels(c);
  const [height, width, channels] = planar ? [b, c, a] : [a, b, grey ? 1 : c];
  // Smaller tables are matrices, such as rotations.
  const least = grey ? 16 : bytes ? 1 : 8;
  return Math.min(height, width) < least ? null : { height, width, channels, planar };
}

/** The steps of `length` whose numbers say what pictures are: up to 8, spread over all. A single one may be black. */
export function sampledSteps(length: number): number[] {
  const count = Math.min(8, length);
  return Array.from({ length: count }, (_, i) => Math.round((i * (length - 1)) / Math.max(1, count - 1)));
}

/** How far numbers from 0 to 1 may lie outside, as bicubic resizing leaves them: such are clamped. */
const OVERSHOOT = 0.1;

/** Decides what an array [steps, ...] of numbers holds; `sampled` are the numbers of some of its steps, where they can be read. */
export function describeArray(
  name: string,
  shape: readonly number[],
  element: Element,
  sampled: readonly ArrayLike<number>[],
): FoundArray {
  const layout = layoutOf(shape, element === 'byte');
  if ((/depth/i.test(name) && shape.length > 2) || (layout?.channels === 1 && element !== 'byte'))
    return { kind: 'depth', shape: shape.slice(1), reason: 'depth is no colour' };
  if (!layout) return { kind: 'numbers', shape: [productOf(shape.slice(1))] };
  const picture: FoundArray = { kind: 'pictures', shape: [layout.height, layout.width, layout.channels], scale: 1 };
  if (element === 'byte' || sampled.length === 0) return picture;
  let [least, most] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  // NaN counts for neither: it is an error in the picture that has it.
  for (const values of sampled)
    for (let i = 0; i < values.length; i++) {
      if (values[i] < least) least = values[i];
      if (values[i] > most) most = values[i];
    }
  if (element === 'float' && least >= -OVERSHOOT && most <= 1 + OVERSHOOT)
    return { ...picture, scale: 255, reason: 'numbers from 0 to 1, which are multiplied by 255' };
  if (least >= 0 && most <= 255) return picture;
  return { kind: 'other', reason: `numbers from ${least} to ${most}; pictures have 0 to 1 or 0 to 255` };
}

/** Makes the picture of a step of an array: grey is repeated, alpha is dropped. @throws InputError if a number is no colour */
export function imageOf(
  shape: readonly number[],
  values: Uint8Array<ArrayBuffer> | Float32Array | Float64Array,
  scale: number,
  what: string,
): Image {
  const { height, width, channels, planar } = layoutOf(shape, values instanceof Uint8Array)!;
  if (values instanceof Uint8Array && channels === 3 && !planar) return { height, width, pixels: values };
  const pixels = new Uint8Array(3 * height * width);
  const [next, plane] = planar ? [1, height * width] : [channels, 1];
  const beyond = scale === 1 ? 0.5 : OVERSHOOT * scale;
  for (let i = 0; i < height * width; i++)
    for (let c = 0; c < 3; c++) {
      const value = scale * values[i * next + (channels === 1 ? 0 : c * plane)];
      if (!(value >= -beyond && value <= 255 + beyond))
        throw new InputError(`${what}: ${value / scale} at pixel ${i} is not between 0 and ${255 / scale}`);
      pixels[3 * i + c] = Math.min(255, Math.max(0, Math.round(value)));
    }
  return { height, width, pixels };
}

export const productOf = (sizes: readonly number[]) => sizes.reduce((product, size) => product * size, 1);
