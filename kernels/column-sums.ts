import { emptyTensor, gradientTensor, loadKernel, type Tensor } from '../engine/index.ts';
import { type Matrix, mapOf } from './product.ts';

const kernel = await loadKernel(new URL('./column-sums.wgsl', import.meta.url));
const THREADS = 64;
const SLICES = 16;

/** The gradient of `bias` [width]: sums of the columns of one or several matrices in `dOutput` [..., width], `width` a multiple of four. */
export function columnSums(
  dOutput: Tensor,
  matrices: readonly Omit<Matrix, 'tensor'>[],
  bias: Tensor,
  op: string,
): Tensor {
  const { device } = dOutput;
  const groups = dOutput.shape.at(-1)! / 4;
  const columns = Math.ceil(groups / THREADS);
  const partials = SLICES * matrices.length;
  const partial = emptyTensor(device, [partials, groups * 4], 'f32', op);
  const sums = gradientTensor(bias, op);
  const run = (
    entry: string,
    bindings: Record<string, Tensor>,
    shape: Record<string, number>,
    slices: number,
    cost: { flops: number; bytes?: number },
  ) =>
    device.dispatch({
      kernel,
      entry,
      parameters: { SLICES },
      bindings,
      uniform: { rows: 0, length: 1, stride: 0, offset: 0, firstPartial: 0, groups, partials, ...shape },
      workgroups: [columns, slices],
      ...cost,
    });
  matrices.forEach((matrix, i) => {
    const shape = { rows: matrix.rows, ...mapOf(matrix), firstPartial: i * SLICES };
    const elements = matrix.rows * groups * 4;
    run('slice', { dOutput, partial }, shape, SLICES, { flops: elements, bytes: 4 * (elements + SLICES * groups * 4) });
  });
  run('total', { partial, sums }, {}, 1, { flops: partial.size });
  device.currentStep(op).release(partial.buffer);
  return sums;
}
