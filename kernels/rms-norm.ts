import { emptyTensor, gradientSum, gridFor, loadKernel, roundUp, type Tensor } from '../engine/index.ts';
import { cast } from './cast.ts';
import { type Bindings, expectDtype, expectFactor, recordOne, rowsAndWidth, sharedDevice, storage } from './operand.ts';
import { pad } from './pad.ts';
import { sumOfRows } from './reduce.ts';
import { heldRowParameters, inputGradient, rowParameters, slicesOfRows } from './rows.ts';

const plain = await loadKernel(new URL('./rms-norm.wgsl', import.meta.url));
const registers = await loadKernel(new URL('./rms-norm.registers.wgsl', import.meta.url));

export interface RmsNormOptions {
  /** Added to the mean square; default 1e-6. */
  epsilon?: number;
  /** 'onePlus' multiplies by 1 + weight, as Gemma does (default), 'plain' by the weight itself, as Llama does. */
  gain?: 'onePlus' | 'plain';
}

/**
 * y = x / sqrt(mean(x^2) + epsilon) * gain, over the last axis, with gain = 1 + weight or weight (Zhang and Sennrich 2019).
 *
 * x [..., width], weight [width] -> y [..., width], in the storage of x: f32, f16 or bf16; weight has the same, or f32.
 */
export function rmsNorm(x: Tensor, weight: Tensor, options: RmsNormOptions = {}): Tensor {
  const { width } = rowsAndWidth('rmsNorm', 'x', x);
  expectDtype('rmsNorm', 'x', x, 'f32', 'f16', 'bf16');
  expectFactor('rmsNorm', 'weight', weight, x, width);
  sharedDevice('rmsNorm', x, weight);
  const padded = roundUp(width, 4);
  return pad(normalise(pad(x, padded), pad(cast(weight, 'f32'), padded), width, options), width);
}

/** `width` counts the real elements of a row, whose storage is a whole number of groups. */
function normalise(x: Tensor, weight: Tensor, width: number, options: RmsNormOptions): Tensor {
  const { epsilon = 1e-6, gain = 'onePlus' } = options;
  const { device } = x;
  const { rows, width: stored } = rowsAndWidth('rmsNorm', 'x', x);
  const groups = stored / 4;
  const slices = slicesOfRows(device, rows);
  // A row that is read again comes from the nearest cache; where a thread would read several groups, it holds them instead.
  const held = heldRowParameters(device, groups);
  const run = (entry: string, bindings: Bindings, workgroups: [number, number], flops: number, accumulate = false) =>
    device.dispatch({
      kernel: held ? registers : plain,
      entry,
      parameters: {
        ...(held ?? rowParameters(device, groups)),
        ...storage(x.dtype),
        ...(gain === 'plain' && { gainOf: gain }),
      },
      bindings,
      uniform: { rows, groups, rowsOfSlice: Math.ceil(rows / slices), width, epsilon, accumulate: accumulate ? 1 : 0 },
      workgroups,
      flops,
    });
  const y = emptyTensor(device, x.shape, x.dtype, 'rmsNorm');
  const inverseRoot = emptyTensor(device, [rows], 'f32', 'rmsNorm');
  run('forward', { x, weight, y, inverseRoot }, gridFor(rows, 1), 5 * x.size);
  recordOne('rmsNorm', [x, weight], y, (dy, [wantsX, wantsWeight]) => {
    const op = 'rmsNorm backward';
    const { gradient: dx, accumulate } = inputGradient(x, wantsX, op);
    const dwPartial = emptyTensor(device, [slices, stored], 'f32', op);
    run('backward', { x, weight, inverseRoot, dy, dx, dwPartial }, [slices, 1], (held ? 11 : 12) * x.size, accumulate);
    return [dx, wantsWeight ? sumOfRows(op, dwPartial, slices, gradientSum(weight, op)) : null];
  });
  return y;
}
