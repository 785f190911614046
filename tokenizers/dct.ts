/**
 * Orthonormal DCT-II over time, and its inverse, for chunks [horizon, dimension]:
 *
 *   C[k, d] = s(k) * sum over n of x[n, d] * cos(pi * (2n + 1) * k / (2 * horizon))
 *   s(0) = sqrt(1 / horizon), s(k) = sqrt(2 / horizon) otherwise
 *
 * The basis is orthonormal, so the inverse is its transpose. (The transform of FAST, arXiv 2501.09747.)
 */

const bases = new Map<number, Float64Array>();
/** The most cached bases: few horizons are in use at a time, and the largest, 4096, takes 128 MiB. */
const KEPT = 4;

/** [horizon, horizon], row k = frequency k; cached. */
function basis(horizon: number): Float64Array {
  const known = bases.get(horizon);
  if (known) return known;
  const matrix = new Float64Array(horizon * horizon);
  for (let frequency = 0; frequency < horizon; frequency++) {
    const norm = Math.sqrt((frequency === 0 ? 1 : 2) / horizon);
    for (let step = 0; step < horizon; step++)
      matrix[frequency * horizon + step] = norm * Math.cos((Math.PI * (2 * step + 1) * frequency) / (2 * horizon));
  }
  if (bases.size === KEPT) bases.delete(bases.keys().next().value!);
  bases.set(horizon, matrix);
  return matrix;
}

/** values [horizon, dimension] -> coefficients [horizon, dimension], frequency first, in float64. */
export function dct(values: ArrayLike<number>, horizon: number, dimension: number): Float64Array {
  return transformed(values, horizon, dimension, (frequency, step) => frequency * horizon + step);
}

/** coefficients [horizon, dimension] -> values [horizon, dimension], in float64. */
export function inverseDct(coefficients: ArrayLike<number>, horizon: number, dimension: number): Float64Array {
  return transformed(coefficients, horizon, dimension, (step, frequency) => frequency * horizon + step);
}

/** The product of the basis, or of its transpose, with a chunk; `place` is that of a factor in the basis. */
function transformed(
  chunk: ArrayLike<number>,
  horizon: number,
  dimension: number,
  place: (row: number, term: number) => number,
): Float64Array {
  const matrix = basis(horizon);
  const product = new Float64Array(horizon * dimension);
  for (let row = 0; row < horizon; row++)
    for (let term = 0; term < horizon; term++) {
      const weight = matrix[place(row, term)];
      for (let d = 0; d < dimension; d++) product[row * dimension + d] += weight * chunk[term * dimension + d];
    }
  return product;
}
