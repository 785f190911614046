/** Matrices with the same columns, one below the other, as one matrix: one product instead of several. */
import { bytesPerElement, emptyTensor, type GradientSum, gradientSum, Tensor, viewTensor } from '../engine/index.ts';
import { reshape } from './reshape.ts';
import { concatenateTokens } from './tokens.ts';

interface Stacked {
  /** [sum of rows, width] */
  readonly whole: Tensor;
  /** The tensors on the tape, whose gradients are the rows of that of `whole`. */
  readonly parts: readonly Tensor[];
}

/** Each [rows, width]. Parameters that follow each other in their arena stay where they are; others are copied. */
export function stacked(matrices: readonly Tensor[]): Stacked {
  if (matrices.length === 1) return { whole: matrices[0], parts: matrices };
  const inPlace = stackedInPlace(matrices);
  if (inPlace) return inPlace;
  const rows = concatenateTokens(matrices.map((matrix) => reshape(matrix, [1, ...matrix.shape])));
  const whole = reshape(rows, rows.shape.slice(1));
  return { whole, parts: [whole] };
}

/** Parameters, or tensors without a gradient, that follow each other in their buffer; null for others. */
export function stackedInPlace(matrices: readonly Tensor[]): Stacked | null {
  const areLeaves = matrices.every((own) => !own.recorded && (own.gradientStorage || !own.wantsGradient));
  const whole = areLeaves ? together(matrices) : null;
  return whole && { whole, parts: matrices };
}

/** The gradients of the parts, null for those that are not wanted; `write` puts that of the whole into a tensor, or adds it. */
export function stackedGradients(
  { whole, parts }: Stacked,
  wants: readonly boolean[],
  op: string,
  write: (sum: GradientSum) => void,
): (Tensor | null)[] {
  if (!wants.includes(true)) return parts.map(() => null);
  if (wants.includes(false)) {
    const gradient = emptyTensor(whole.device, whole.shape, 'f32', op);
    write({ gradient, accumulate: false });
    const { firstElement } = parts[0];
    const bytesBefore = (part: Tensor) => bytesPerElement.f32 * (part.firstElement - firstElement);
    return parts.map((part, i) => (wants[i] ? viewTensor(gradient, part.shape, bytesBefore(part), op) : null));
  }
  const sums = parts.map((part) => gradientSum(part, op));
  // Several parts are parameters, whose gradients are always added to.
  const [{ accumulate }] = sums;
  const gradients = sums.map(({ gradient }) => gradient);
  write({ gradient: together(gradients)!, accumulate });
  return gradients;
}

/** One tensor over tensors that follow each other in one buffer, null if they do not. */
function together(parts: readonly Tensor[]): Tensor | null {
  const [{ device, buffer, offset, dtype, name, shape }] = parts;
  if (parts.length === 1) return parts[0];
  let end = offset;
  for (const part of parts) {
    if (part.buffer !== buffer || part.offset !== end || part.dtype !== dtype) return null;
    end += part.byteLength;
  }
  const rows = parts.reduce((sum, part) => sum + part.shape[0], 0);
  const size = rows * shape[1];
  if (parts.reduce((sum, part) => sum + part.size, 0) !== size) return null;
  return new Tensor(device, [rows, shape[1]], dtype, buffer, offset, name, 'persistent', false);
}
