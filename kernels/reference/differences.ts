/** Gradients without a derivation. */
import { make, type Numbers } from './numbers.ts';

type Oracle = (inputs: Float64Array[]) => Float64Array;
const DIFFERENCE = 1e-5;

/** Elements of a gradient that are compared; of a larger one every second, third ... element. */
export const strideOf = (length: number, most = 128): number => Math.ceil(length / most);

/**
 * The gradient of sum(dOutput * f(inputs)) by inputs[which], by central differences: in float64 they are right to about 1e-9.
 * Nobody derives it by hand, so that no derivation can be wrong twice.
 */
export function differentiate(f: Oracle, inputs: Float64Array[], which: number, dOutput: Numbers, stride = 1) {
  return make(Math.ceil(inputs[which].length / stride), (n) => derivativeAt(f, inputs, which, dOutput, n * stride));
}

/** The derivative by one element of one input. */
export function derivativeAt(f: Oracle, inputs: Float64Array[], which: number, dOutput: Numbers, element: number) {
  const target = inputs[which];
  const value = target[element];
  target[element] = value + DIFFERENCE;
  const above = f(inputs);
  target[element] = value - DIFFERENCE;
  const below = f(inputs);
  target[element] = value;
  return above.reduce((sum, y, m) => sum + dOutput[m] * (y - below[m]), 0) / (2 * DIFFERENCE);
}
