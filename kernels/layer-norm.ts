import { emptyTensor, gradientSum, gridFor, loadKernel, type Tensor } from '../engine/index.ts';
import { cast } from './cast.ts';
import { groupsOf } from './groups.ts';
import { expectDtype, expectFactor, recordOne, rowsAndWidth, sharedDevice } from './operand.ts';
import { sumOfRows } from './reduce.ts';
import { forwardSlices, inputGradient, rowParameters, slicesOfRows } from './rows.ts';

const kernel = await loadKernel(new URL('./layer-norm.wgsl', import.meta.url));
const oneElement = { total: 'single', firstOf: 'single' };

/**
 * y = (x - mean(x)) / sqrt(variance(x) + epsilon) * weight + bias, over the last axis, with the biased variance (Ba, Kiros and
 * Hinton 2016, arXiv 1607.06450).
 *
 * x [..., width], weight and bias [width] -> y [..., width], in the storage of x: f32, f16 or bf16; weight and bias have the same, or f32.
 */
export function layerNorm(x: Tensor, ofWeight: Tensor, ofBias: Tensor, options: { epsilon?: number } = {}): Tensor {
  const { epsilon = 1e-6 } = options;
  const { rows, width } = rowsAndWidth('layerNorm', 'x', x);
  expectDtype('layerNorm', 'x', x, 'f32', 'f16', 'bf16');
  expectFactor('layerNorm', 'weight', ofWeight, x, width);
  expectFactor('layerNorm', 'bias', ofBias, x, width);
  const device = sharedDevice('layerNorm', x, ofWeight, ofBias);
  const { size, parameters } = groupsOf('layerNorm', 'x', x, width);
  const groups = width / size;
  const slices = slicesOfRows(device, rows);
  const run = (entry: string, bindings: Record<string, Tensor>, slices: number, flops: number, accumulate = false) =>
    device.dispatch({
      kernel,
      entry,
      parameters: { ...rowParameters(device, groups), ...parameters, ...(size === 1 && oneElement) },
      bindings,
      uniform: { rows, groups, rowsOfSlice: Math.ceil(rows / slices), width, epsilon, accumulate: accumulate ? 1 : 0 },
      workgroups: gridFor(slices, 1),
      flops,
    });

  const [weight, bias] = [ofWeight, ofBias].map((factor) => cast(factor, 'f32'));
  const y = emptyTensor(device, x.shape, x.dtype, 'layerNorm');
  const statistics = emptyTensor(device, [rows, 4], 'f32', 'layerNorm');
  run('forward', { x, weight, bias, y, statistics }, forwardSlices(device, rows), 14 * x.size);
  recordOne('layerNorm', [x, weight, bias], y, (dy, [wantsX, wantsWeight, wantsBias]) => {
    const op = 'layerNorm backward';
    const empty = (shape: readonly number[]) => emptyTensor(device, shape, 'f32', op);
    const { gradient: dx, accumulate } = inputGradient(x, wantsX, op);
    const [dwPartial, dbPartial] = [empty([slices, width]), empty([slices, width])];
    run('backward', { x, weight, statistics, dy, dx, dwPartial, dbPartial }, slices, 18 * x.size, accumulate);
    const summed = (partial: Tensor, like: Tensor) => sumOfRows(op, partial, slices, gradientSum(like, op));
    return [dx, wantsWeight ? summed(dwPartial, weight) : null, wantsBias ? summed(dbPartial, bias) : null];
  });
  return y;
}
