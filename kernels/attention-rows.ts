import { gridFor, loadKernel, type Parameters, type Tensor } from '../engine/index.ts';
import type { AttentionSizes } from './attention-variants.ts';
import { storage } from './operand.ts';

const kernel = await loadKernel(new URL('./attention-rows.wgsl', import.meta.url));
const THREADS = 64;

/** statistics [batch, heads, queryTokens, 2] = (L, delta), for the backward kernels of attention. */
export function attentionDelta(
  sizes: AttentionSizes,
  bindings: Readonly<Record<'forwardOutput' | 'forwardLogSumExp' | 'dOutput' | 'statistics', Tensor>>,
): void {
  const { statistics, forwardOutput } = bindings;
  const flops = 2 * forwardOutput.size;
  dispatch('delta', sizes, 1, statistics, statistics.size / 2, bindings, storage(forwardOutput.dtype), flops);
}

/** output and logSumExp from those of slices of the keys, [splits, ..]. */
export function joinForward(
  sizes: AttentionSizes,
  splits: number,
  bindings: Readonly<Record<'sliceOutput' | 'sliceLogSumExp' | 'output' | 'logSumExp', Tensor>>,
): void {
  const { output } = bindings;
  // A weight for each four elements: a maximum, a difference, an exponential and a sum.
  const flops = (3 * splits + 1) * output.size;
  dispatch('reduceForward', sizes, splits, output, output.size / 4, bindings, storage(output.dtype), flops);
}

/** A gradient from its slices, [splits, ..]. */
export function joinGradient(
  sizes: AttentionSizes,
  splits: number,
  bindings: Readonly<Record<'sliceGradient' | 'gradient', Tensor>>,
): void {
  const { gradient } = bindings;
  dispatch('reduceGradient', sizes, splits, gradient, gradient.size / 4, bindings, {}, splits * gradient.size);
}

function dispatch(
  entry: string,
  { batch, queryTokens, heads, headDimension }: AttentionSizes,
  splits: number,
  { device }: Tensor,
  items: number,
  bindings: Readonly<Record<string, Tensor>>,
  parameters: Parameters,
  flops: number,
): void {
  device.dispatch({
    kernel,
    entry,
    parameters,
    bindings,
    uniform: { splits, batch, queryTokens, heads, groups: headDimension / 4 },
    workgroups: gridFor(items, THREADS),
    flops,
  });
}
