/**
 * How an operation is tested. test/kernels/rms-norm.test.ts is the shortest example; the test of every operation has
 * these parts:
 *
 * 1. An oracle. kernels/reference/ has the operation a second time, as its formula reads, over plain arrays in float64.
 *    It shares no code with the kernel, and its rounding errors are far below those of a kernel in float32.
 * 2. Forward. `checkOperation` draws standard normal inputs from a fixed seed, runs the operation on the device, and
 *    compares the output with the oracle's.
 * 3. Backward. For one random dOutput, let f(x) = sum(dOutput * oracle(x)). The gradient that backward leaves on each
 *    input is compared with central differences of f, (f(x + h) - f(x - h)) / 2h, one element of x at a time. In float64
 *    with h = 1e-5 they are exact to about 1e-9. Nobody has to derive a gradient by hand, so no derivation can be wrong
 *    twice. For large inputs the elements are a sample, evenly spaced.
 * 4. A tolerance for the output and one for gradients: the relative error |actual - expected| / |expected| in the L2
 *    norm. It is a few roundings of float32, about 1e-6, so that a missing term or a wrong index fails by far.
 * 5. Shapes that are no multiples of a tile, of a workgroup or of four; `describeOnDevices` runs all of it on a device
 *    with everything that the adapter offers and on one with WebGPU's default limits, which take different kernels.
 * 6. What is exact is compared exactly: gradients that must be zero (`expectZero`), equal bits of two runs.
 * 7. A golden case: numbers that an independent program computed (fixtures.ts), against errors that oracle and kernel
 *    would share.
 *
 * A new operation needs a test file with parts 1 to 5:
 *
 *   describeOnDevices('square', (device) => {
 *     test.each([[8], [3, 5]])('agrees with float64, forward and backward', async (...shape) => {
 *       await checkOperation(await device(), {
 *         inputs: [{ shape, name: 'x' }],
 *         run: ([x]) => square(x),
 *         oracle: ([x]) => x.map((value) => value * value),
 *         tolerance: { forward: 1e-6, backward: 1e-6 },
 *       });
 *     });
 *   });
 *
 * test/wgsl.test.ts must also run it once with every set of parameters, so that each is compiled at the default limits.
 */
import { backward, type DataType, type Device, parameter, type Tensor, tensor } from '../../engine/index.ts';
import { differentiate, strideOf } from '../../kernels/reference/index.ts';
import { expectClose, normals } from './numbers.ts';

interface OperationCheck {
  /**
   * Differentiable inputs: their shapes and numbers (standard normal ones where `data` is missing). With `pieceRows`, a multiple of 64, a
   * matrix lies in pieces of so many rows.
   */
  inputs: { shape: number[]; data?: Float32Array; name?: string; pieceRows?: number }[];
  run: (inputs: Tensor[]) => Tensor;
  /** The same function in float64. */
  oracle: (inputs: Float64Array[]) => Float64Array;
  /** The relative L2 error that is allowed for the output, and for each gradient. */
  tolerance: { forward: number; backward: number };
  seed?: number;
}

/** Parts 2 to 4 above: compares the output with the oracle's, and every gradient with central differences of the oracle. */
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
  const leaves = check.inputs.map(({ shape, name, pieceRows }, i) =>
    parameter(device, data[i], shape, {
      name: name ?? `input ${i}`,
      pieceBytes: pieceRows && 4 * pieceRows * shape[1],
    }),
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
      const stride = strideOf(exact[i].length);
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
