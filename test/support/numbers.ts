import { expect } from 'vitest';
import { randomStream } from '../../engine/random.ts';

export type Numbers = Float32Array | Float64Array | Int32Array | Uint32Array | Uint8Array | readonly number[];

/** |actual - expected| / |expected| in the L2 norm; the absolute error where `expected` is zero. */
export function relativeError(actual: Numbers, expected: Numbers): number {
  expect(actual.length).toBe(expected.length);
  let difference = 0;
  let norm = 0;
  for (let i = 0; i < expected.length; i++) {
    if (!Number.isFinite(actual[i])) return Number.POSITIVE_INFINITY;
    difference += (actual[i] - expected[i]) ** 2;
    norm += expected[i] ** 2;
  }
  return norm === 0 ? Math.sqrt(difference) : Math.sqrt(difference / norm);
}

export function expectClose(actual: Numbers, expected: Numbers, tolerance: number, what: string): void {
  const error = relativeError(actual, expected);
  expect(
    error,
    `${what}: relative L2 error ${error.toExponential(2)}, allowed ${tolerance.toExponential(2)}`,
  ).toBeLessThanOrEqual(tolerance);
}

/** Every element is zero; a negative zero counts as zero. */
export function expectZero(actual: Numbers, what: string): void {
  let nonzero = 0;
  for (const value of actual) if (value !== 0) nonzero += 1;
  expect(nonzero, `${what}: elements that are not zero`).toBe(0);
}

/** Standard normal numbers, rounded to f32, the same on every run. */
export function normals(count: number, seed: number, scale = 1): Float32Array {
  const stream = randomStream(seed, 0, 0);
  return Float32Array.from({ length: count }, (_, i) => stream.normal(i) * scale);
}

/** Whole numbers from 0 to below - 1, the same on every run. */
export function integers(count: number, below: number, seed: number): Uint32Array {
  const stream = randomStream(seed, 0, 0);
  return Uint32Array.from({ length: count }, (_, i) => stream.integer(i, below));
}

/** Multiples of 1/8 between -4 and 4, which every storage holds exactly, the same on every run. */
export function eighths(count: number, seed: number): Float32Array {
  return Float32Array.from(integers(count, 65, seed), (value) => (value - 32) / 8);
}
