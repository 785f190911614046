import { type Dispatch, gridFor, loadKernel, type Tensor } from '../engine/index.ts';
import { attentionDeltaCost } from './attention-cost.ts';
import type { Plan } from './attention-plan.ts';
import { TILE } from './attention-tiles.ts';
import type { AttentionSizes } from './attention-variants.ts';
import { type Bindings, storage } from './operand.ts';

const kernel = await loadKernel(new URL('./attention-rows.wgsl', import.meta.url));
const THREADS = 64;

/** statistics [batch, heads, queryTokens, 2] = (L, delta) of the rows that the backward kernels of attention read. */
export function attentionDelta(
  sizes: AttentionSizes,
  plan: Plan,
  bindings: Readonly<Record<'plan' | 'forwardOutput' | 'forwardLogSumExp' | 'dOutput' | 'statistics', Tensor>>,
): void {
  const { dtype } = bindings.forwardOutput;
  const { queryTiles, places } = plan.form;
  const items = sizes.batch * queryTiles.length * TILE * sizes.heads;
  const cost = attentionDeltaCost(sizes, dtype, plan);
  dispatch('delta', sizes, items, { bindings, parameters: storage(dtype), ...cost }, 1, {
    queryTiles: queryTiles.length,
    dQueryAt: places.dQueryAt,
  });
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
  dispatch('reduceForward', sizes, output.size / 4, { bindings, parameters: storage(output.dtype), flops }, splits);
}

/** A gradient from its slices, [splits, ..]. */
export function joinGradient(
  sizes: AttentionSizes,
  splits: number,
  bindings: Readonly<Record<'sliceGradient' | 'gradient', Tensor>>,
): void {
  const { size } = bindings.gradient;
  dispatch('reduceGradient', sizes, size / 4, { bindings, flops: splits * size }, splits);
}

function dispatch(
  entry: string,
  { batch, queryTokens, heads, headDimension }: AttentionSizes,
  items: number,
  work: Pick<Dispatch, 'parameters' | 'flops' | 'bytes'> & { bindings: Bindings },
  splits: number,
  tiles = { queryTiles: 0, dQueryAt: 0 },
): void {
  const uniform = { splits, batch, queryTokens, heads, groups: headDimension / 4, ...tiles };
  const [{ device }] = Object.values(work.bindings);
  device.dispatch({ kernel, entry, uniform, workgroups: gridFor(items, THREADS), ...work });
}
