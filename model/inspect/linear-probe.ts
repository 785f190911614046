/** A linear probe: how well classes can be read from features by a linear map (Alain and Bengio 2016, arXiv 1610.01644). */

/** Features [width], and their class from 0. */
export interface Labelled {
  readonly features: Float32Array;
  readonly label: number;
}

/** Features [width], and the numbers that a linear map of them is to give. */
export interface Sampled {
  readonly features: Float32Array;
  readonly targets: readonly number[];
}

/** Added to the diagonal, in units of the mean square of the features: features that are nearly dependent have a solution too. */
const RIDGE = 1e-3;

/** The map [targets, width + 1] of least squared error; its last column is the bias. */
export function fitLinearMap(all: readonly Sampled[]): Float64Array[] {
  const size = all[0].features.length + 1;
  const count = all[0].targets.length;
  const products = Array.from({ length: size }, () => new Float64Array(size + count));
  for (const { features, targets } of all) {
    const row = Float64Array.of(...features, 1, ...targets);
    for (let a = 0; a < size; a++) for (let b = 0; b < size + count; b++) products[a][b] += row[a] * row[b];
  }
  const meanSquare = products.reduce((sum, row, i) => sum + row[i], 0) / size;
  for (let i = 0; i < size - 1; i++) products[i][i] += RIDGE * meanSquare;
  eliminate(products);
  return Array.from({ length: count }, (_, own) => Float64Array.from(products, (row) => row[size + own]));
}

/** The numbers that a map gives for features. */
export const mappedBy = (map: readonly Float64Array[], features: Float32Array): number[] =>
  map.map((weights) => features.reduce((sum, value, i) => sum + weights[i] * value, weights[features.length]));

/** The map [classes, width + 1] of least squared error to one-hot classes. */
export function fitLinearProbe(all: readonly Labelled[], classCount: number): Float64Array[] {
  const oneHot = (label: number) => Array.from({ length: classCount }, (_, own) => (own === label ? 1 : 0));
  return fitLinearMap(all.map(({ features, label }) => ({ features, targets: oneHot(label) })));
}

/** The share of features of the right class. */
export function probeAccuracy(probe: readonly Float64Array[], all: readonly Labelled[]): number {
  const right = all.filter(({ features, label }) => {
    const scores = mappedBy(probe, features);
    return scores.indexOf(Math.max(...scores)) === label;
  });
  return right.length / all.length;
}

/** Gauss-Jordan elimination in place; the matrix in front of the right-hand sides is positive definite, so that no pivot is 0. */
function eliminate(rows: readonly Float64Array[]): void {
  rows.forEach((pivot, column) => {
    const scale = pivot[column];
    for (let i = column; i < pivot.length; i++) pivot[i] /= scale;
    for (const row of rows) {
      if (row === pivot) continue;
      const factor = row[column];
      for (let i = column; factor !== 0 && i < row.length; i++) row[i] -= factor * pivot[i];
    }
  });
}
