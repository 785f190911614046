import { emptyTensor, gradientTensor, gridFor, loadKernel, record, roundUp, type Tensor } from '../engine/index.ts';
import { expectDtype, expectShape, rowsAndWidth, sharedDevice, storage } from './operand.ts';
import { pad } from './pad.ts';

const kernel = await loadKernel(new URL('./rms-norm.wgsl', import.meta.url));
const THREADS = 64;
const ROW_SLICES = 16;

/**
 * y = x / sqrt(mean(x^2) + epsilon) * (1 + weight), over the last axis (Zhang and Sennrich 2019, with Gemma's gain).
 *
 * x [..., width], weight [width] -> y [..., width], in the storage of x (f32, f16 or bf16), which weight shares.
 */
export function rmsNorm(x: Tensor, weight: Tensor, options: { epsilon?: number } = {}): Tensor {
  const { width } = rowsAndWidth('rmsNorm', 'x', x);
  expectDtype('rmsNorm', 'x', x, 'f32', 'f16', 'bf16');
  expectDtype('rmsNorm', 'weight', weight, x.dtype);
  expectShape('rmsNorm', 'weight', weight, [width]);
  sharedDevice('rmsNorm', x, weight);
  const padded = roundUp(width, 4);
  return pad(normalise(pad(x, padded), pad(weight, padded), width, options.epsilon ?? 1e-6), width);
}

/** `width` counts the real elements of a row, whose storage is a whole number of groups. */
function normalise(x: Tensor, weight: Tensor, width: number, epsilon: number): Tensor {
  const { device } = x;
  const { rows, width: stored } = rowsAndWidth('rmsNorm', 'x', x);
  const groups = stored / 4;
  const uniform = { rows, groups, width, epsilon };
  const parameters = { THREADS, ROW_SLICES, ...storage(x.dtype) };
  const y = emptyTensor(device, x.shape, x.dtype, 'rmsNorm');
  const inverseRoot = emptyTensor(device, [rows], 'f32', 'rmsNorm');
  const run = (entry: string, bindings: Record<string, Tensor>, workgroups: [number, number], flops: number) =>
    device.dispatch({ kernel, entry, parameters, bindings, uniform, workgroups, flops });

  run('forward', { x, weight, y, inverseRoot }, gridFor(rows, 1), 5 * x.size);
  record('rmsNorm', [x, weight], [y], ([dy], [wantsX, wantsWeight]) => {
    if (!dy) return [null, null];
    const dx = wantsX ? emptyTensor(device, x.shape, 'f32', 'rmsNorm backward') : null;
    if (dx) run('backwardInput', { x, weight, inverseRoot, dy, dx }, gridFor(rows, 1), 9 * x.size);
    const dw = wantsWeight ? gradientTensor(weight, 'rmsNorm backward') : null;
    if (dw) {
      const dwPartial = emptyTensor(device, [ROW_SLICES, stored], 'f32', 'rmsNorm backward');
      const columns = Math.ceil(groups / THREADS);
      run('backwardWeightSlices', { x, inverseRoot, dy, dwPartial }, [columns, ROW_SLICES], 3 * x.size);
      run('backwardWeight', { dwPartial, dw }, [columns, 1], dwPartial.size);
    }
    return [dx, dw];
  });
  return y;
}
