/** A linear probe: how well classes can be read from features by a linear map (Alain and Bengio 2016, arXiv 1610.01644). */

/** Features [width], of which all have the same width, and their class from 0. */
export interface Labelled {
  readonly features: Float32Array;
  readonly label: number;
}

/** Added to the diagonal, in units of the mean square of the features: features that are nearly dependent have a solution too. */
const RIDGE = 1e-3;

/** The map [classes, width + 1] of least squared error to one-hot classes; its last column is the bias. */
export function fitLinearProbe(all: readonly Labelled[], classCount: number): Float64Array[] {
  const width = all[0].features.length;
  const size = width + 1;
  const products = Array.from({ length: size }, () => new Float64Array(size + classCount));
  for (const { features, label } of all) {
    const row = [...features, 1];
    for (let a = 0; a < size; a++) {
      for (let b = 0; b < size; b++) products[a][b] += row[a] * row[b];
      products[a][size + label] += row[a];
    }
  }
  const meanSquare = products.reduce((sum, row, i) => sum + row[i], 0) / size;
  for (let i = 0; i < width; i++) products[i][i] += RIDGE * meanSquare;
  eliminate(products);
  return Array.from({ length: classCount }, (_, own) => Float64Array.from(products, (row) => row[size + own]));
}

/** The share of features of the right class. */
export function probeAccuracy(probe: readonly Float64Array[], all: readonly Labelled[]): number {
  const right = all.filter(({ features, label }) => {
    const row = [...features, 1];
    const scores = probe.map((weights) => weights.reduce((sum, weight, a) => sum + weight * row[a], 0));
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
