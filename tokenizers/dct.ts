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
  const matrix = basis(horizon);
  const coefficients = new Float64Array(horizon * dimension);
  for (let frequency = 0; frequency < horizon; frequency++) {
    const out = frequency * dimension;
    for (let step = 0; step < horizon; step++) {
      const weight = matrix[frequency * horizon + step];
      for (let d = 0; d < dimension; d++) coefficients[out + d] += weight * values[step * dimension + d];
    }
  }
  return coefficients;
}

/** coefficients [horizon, dimension] -> values [horizon, dimension], in float64. */
export function inverseDct(coefficients: ArrayLike<number>, horizon: number, dimension: number): Float64Array {
  const matrix = basis(horizon);
  const values = new Float64Array(horizon * dimension);
  for (let frequency = 0; frequency < horizon; frequency++) {
    const row = frequency * dimension;
    for (let step = 0; step < horizon; step++) {
      const weight = matrix[frequency * horizon + step];
      for (let d = 0; d < dimension; d++) values[step * dimension + d] += weight * coefficients[row + d];
    }
  }
  return values;
}
