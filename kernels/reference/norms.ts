/** Operations within a row: norms and softmax. */
import { byRow, make, type Numbers, sum } from './numbers.ts';

const normed = (row: Float64Array, epsilon: number): Float64Array => {
  const root = Math.sqrt(sum(row.length, (i) => row[i] ** 2) / row.length + epsilon);
  return row.map((value) => value / root);
};

/** y = x / sqrt(mean(x^2) + epsilon) * (1 + weight), or * weight for the plain gain */
export function rmsNorm(x: Numbers, weight: Numbers, { gain = 'onePlus', epsilon = 1e-6 } = {}): Float64Array {
  const offset = gain === 'plain' ? 0 : 1;
  return byRow(x, weight.length, (row) => normed(row, epsilon).map((value, i) => value * (offset + weight[i])));
}

/** y = (x - mean(x)) / sqrt(variance(x) + epsilon) * weight + bias */
export function layerNorm(x: Numbers, weight: Numbers, bias: Numbers, epsilon = 1e-6): Float64Array {
  return byRow(x, weight.length, (row) => {
    const mean = sum(row.length, (i) => row[i]) / row.length;
    const centred = row.map((value) => value - mean);
    return normed(centred, epsilon).map((value, i) => value * weight[i] + bias[i]);
  });
}

/** Scale, shift and gate of an element: modulation [samples, 3 width] holds them one after another, for all rows of a sample. */
function modulationOf(modulation: Numbers, x: Numbers, width: number) {
  const elements = (x.length * 3 * width) / modulation.length;
  return (third: 0 | 1 | 2, i: number) => modulation[(Math.floor(i / elements) * 3 + third) * width + (i % width)];
}

/** y = x / sqrt(mean(x^2) + epsilon) * (1 + scale) + shift */
export function adaptiveRmsNorm(x: Numbers, modulation: Numbers, width: number, epsilon = 1e-6): Float64Array {
  const own = modulationOf(modulation, x, width);
  return byRow(x, width, (row) => normed(row, epsilon)).map((value, i) => value * (1 + own(0, i)) + own(1, i));
}

/** y = x + gate * branch */
export function gatedResidual(x: Numbers, branch: Numbers, modulation: Numbers, width: number): Float64Array {
  const own = modulationOf(modulation, x, width);
  return make(x.length, (i) => x[i] + own(2, i) * branch[i]);
}

/** y = exp(x) / sum(exp(x)) */
export function softmax(x: Numbers, width: number): Float64Array {
  return byRow(x, width, (row) => {
    const most = row.reduce((a, b) => Math.max(a, b));
    const powers = row.map((value) => Math.exp(value - most));
    const total = sum(width, (i) => powers[i]);
    return powers.map((value) => value / total);
  });
}
