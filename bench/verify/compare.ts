/** A tensor of the device beside its numbers in float64: units in the last place, the error relative to the norm, the first element that departs. */
import type { FloatType } from '../../kernels/index.ts';
import type { Numbers } from '../../kernels/reference/index.ts';

/** Bits of a number after its first, and the exponent of the least normal number. */
const formats: Readonly<Record<FloatType, { readonly bits: number; readonly least: number }>> = {
  f32: { bits: 23, least: -126 },
  f16: { bits: 10, least: -14 },
  bf16: { bits: 7, least: -126 },
};

/** The largest relative error of rounding to a storage: half a unit in the last place. */
export const roundingOf = (storage: FloatType): number => 2 ** -(formats[storage].bits + 1);

/** Upper ends of the bins of a histogram, in units in the last place; one more bin holds what lies above. 0.5 is correctly rounded. */
export const ulpBins: readonly number[] = [0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];

/** Elements that are much smaller than their tensor come from sums that cancel: below this part of its root mean square they count at that size. */
const SMALL = 2 ** -10;

/**
 * The result that is compared. `name` is the op with its sizes, `variant` the kernel's, 'shipped' for the one that this device takes by
 * itself, `storage` that of the operands, and `tensor` the output, the gradient of an operand ...
 */
type Subject = Readonly<Record<'op' | 'name' | 'variant' | 'storage' | 'tensor', string>>;

export type Comparison = Readonly<ReturnType<typeof compareTensors>>;

/** A tolerance of 0 asks for equal numbers; `stored` is the storage that units in the last place are those of. */
export function compareTensors(
  subject: Subject,
  actual: Numbers,
  expected: Numbers,
  tolerance: number,
  stored: FloatType = 'f32',
) {
  if (actual.length !== expected.length)
    throw new Error(`${subject.name}: ${subject.tensor} has ${actual.length} elements; float64 has ${expected.length}`);
  const { bits, least } = formats[stored];
  let [squares, norm] = [0, 0];
  for (let i = 0; i < expected.length; i++) {
    squares += (actual[i] - expected[i]) ** 2;
    norm += expected[i] ** 2;
  }
  const size = Math.sqrt(norm / Math.max(1, expected.length));
  const histogram = Array<number>(ulpBins.length + 1).fill(0);
  let worstUlp = 0;
  for (let i = 0; i < expected.length; i++) {
    const exponent = Math.floor(Math.log2(Math.max(Math.abs(expected[i]), SMALL * size)));
    const off = Math.abs(actual[i] - expected[i]) / 2 ** (Math.max(exponent, least) - bits);
    const bin = ulpBins.findIndex((end) => off <= end);
    histogram[bin < 0 ? ulpBins.length : bin] += 1;
    worstUlp = Math.max(worstUlp, Number.isNaN(off) ? Number.POSITIVE_INFINITY : off);
  }
  // Relative in the L2 norm; absolute where zeros are expected.
  const error = Math.sqrt(norm === 0 ? squares : squares / norm);
  const passed = error <= tolerance; // false for what is no number
  const allowed = tolerance * (norm === 0 ? 1 : size);
  // The first element that is off by more than the tolerance times the root mean square.
  const index = passed ? -1 : Array.from(expected).findIndex((value, i) => !(Math.abs(actual[i] - value) <= allowed));
  const departs = index < 0 ? null : { index, expected: expected[index], actual: actual[index] };
  return { ...subject, stored, elements: expected.length, worstUlp, histogram, error, tolerance, passed, departs };
}
