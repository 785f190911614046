import { backward, type DataType, type Device, parameter, type Tensor, tensor } from '../../engine/index.ts';
import { expectClose, normals } from './numbers.ts';

export interface OperationCheck {
  /** Differentiable inputs: their shapes and numbers (standard normal ones where `data` is missing). */
  inputs: { shape: number[]; data?: Float32Array; name?: string }[];
  run: (inputs: Tensor[]) => Tensor;
  /** The same function in float64. */
  oracle: (inputs: Float64Array[]) => Float64Array;
  /** Relative L2 error allowed forward, and of each gradient. */
  tolerance: { forward: number; backward: number };
  seed?: number;
}

const DIFFERENCE = 1e-5;
const MOST_DIFFERENCES = 128;

/**
 * Compares an op with its float64 oracle, forward, and every gradient with central differences of the oracle, element by element
 * (of large inputs a spread of elements), for one random dOutput. Differences in float64 are exact to about 1e-9, far below any
 * tolerance here.
 */
export async function checkOperation(device: Device, check: OperationCheck): Promise<void> {
  const seed = check.seed ?? 1;
  const data = check.inputs.map(
    ({ shape, data }, i) =>
      data ??
      normals(
        shape.reduce((a, b) => a * b, 1),
        seed * 101 + i,
      ),
  );
  const exact = data.map((numbers) => Float64Array.from(numbers));
  const expected = check.oracle(exact);
  const dOutput = normals(expected.length, seed * 101 + 99);
  const leaves = check.inputs.map(({ shape, name }, i) =>
    parameter(device, data[i], shape, { name: name ?? `input ${i}` }),
  );
  try {
    const output = device.step(() => {
      const result = check.run(leaves);
      backward(result, { gradient: tensor(device, dOutput, result.shape) });
      return result;
    });
    expectClose(await output.read(), expected, check.tolerance.forward, 'forward');
    output.dispose();
    for (let i = 0; i < leaves.length; i++) {
      const actual = leaves[i].grad;
      if (!actual) throw new Error(`no gradient reached input ${i}`);
      const stride = Math.ceil(exact[i].length / MOST_DIFFERENCES);
      const gradient = differentiate(check.oracle, exact, i, dOutput, stride);
      expectClose(
        (await actual.read()).filter((_, k) => k % stride === 0),
        gradient,
        check.tolerance.backward,
        `gradient of ${check.inputs[i].name ?? `input ${i}`}`,
      );
    }
  } finally {
    for (const leaf of leaves) leaf.dispose();
  }
}

function differentiate(
  oracle: OperationCheck['oracle'],
  inputs: Float64Array[],
  which: number,
  dOutput: Float32Array,
  stride: number,
): Float64Array {
  const target = inputs[which];
  const elements = Array.from(target.keys()).filter((k) => k % stride === 0);
  return Float64Array.from(elements, (k) => {
    const value = target[k];
    target[k] = value + DIFFERENCE;
    const above = oracle(inputs);
    target[k] = value - DIFFERENCE;
    const below = oracle(inputs);
    target[k] = value;
    return dOutput.reduce((sum, weight, m) => sum + weight * (above[m] - below[m]), 0) / (2 * DIFFERENCE);
  });
}

/** Runs `fn` in a step without gradients and reads what it returns. */
export async function runOnce(device: Device, fn: () => Tensor): Promise<Float32Array> {
  const output = device.step(fn);
  const result = await output.read();
  output.dispose();
  return result;
}

export const storageTolerance: Readonly<Record<Exclude<DataType, 'u32'>, number>> = {
  f32: 1e-6,
  f16: 1e-3,
  bf16: 6e-3,
};
