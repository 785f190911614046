/** Kernels that measure the limits of an adapter: bandwidth, arithmetic, and the cost of dispatches and submits. */
import { type BufferRange, type Device, emptyTensor, gridFor, loadKernel, type Tensor } from '../../engine/index.ts';

const bandwidth = await loadKernel(new URL('./bandwidth.wgsl', import.meta.url));
const fusedMultiplyAdd = await loadKernel(new URL('./fused-multiply-add.wgsl', import.meta.url));
/** It does almost nothing. */
const launch = await loadKernel(new URL('./launch.wgsl', import.meta.url));

/** Threads of a workgroup of the first two. */
const THREADS = 64;
/** Size of a grid that takes several turns. */
const WORKGROUPS = 1024;

export type Movement = 'copy' | 'read' | 'write';
export const movements: readonly Movement[] = ['copy', 'read', 'write'];

/** How vectors of four are distributed over threads: `run` neighbours each, in a grid for all of them or one that takes turns. */
export const dealings = [
  { name: 'one vector a thread', run: 1, turns: false },
  { name: 'four neighbours a thread', run: 4, turns: false },
  { name: 'one vector a thread, in turns', run: 1, turns: true },
  { name: 'four neighbours a thread, in turns', run: 4, turns: true },
];

/**
 * Copies, reads or writes whole buffers, inside a step. `bytes` is the size of each buffer, a power of two from 2^22.
 *
 * The source must hold numbers below 1e29: 'read' writes a sum above 1e30.
 */
export function move(
  device: Device,
  movement: Movement,
  { run, turns }: (typeof dealings)[number],
  { source, target, bytes }: { source: BufferRange; target: BufferRange; bytes: number },
): void {
  const vectors = bytes / 16;
  const pieces = vectors / run / THREADS;
  device.dispatch({
    kernel: bandwidth,
    entry: `${movement}All`,
    parameters: { RUN: run },
    bindings: { ...(movement !== 'write' && { source }), target_: target },
    uniform: { turns: turns ? pieces / WORKGROUPS : 1 },
    workgroups: turns ? [WORKGROUPS] : gridFor(pieces, 1),
    flops: movement === 'read' ? 4 * vectors + 3 * (turns ? WORKGROUPS * THREADS : vectors / run) : 0,
    bytes: movement === 'copy' ? 2 * bytes : bytes,
  });
}

/** Chains x steps of a trip x components x 2, as in the kernel. */
const FLOPS_PER_TRIP = 8 * 8 * 4 * 2;

/**
 * Multiplies and adds on `threads` threads, a multiple of 64, inside a step. After many trips every number of the output [threads, 4]
 * is 8 x addend / (1 - factor).
 */
export function multiplyAdd(device: Device, threads: number, trips: number) {
  const output = emptyTensor(device, [threads, 4], 'f32', 'multiplyAdd');
  device.dispatch({
    kernel: fusedMultiplyAdd,
    entry: 'multiplyAdd',
    bindings: { output },
    uniform: { trips, factor: 0.5, addend: 0.25 },
    workgroups: [threads / THREADS],
    flops: threads * trips * FLOPS_PER_TRIP,
  });
  return output;
}

/** Encodes one dispatch inside a step, as an op does; it adds one to `count` [1]. */
export function increment(device: Device, count: Tensor): void {
  device.dispatch({ kernel: launch, entry: 'increment', bindings: { count }, workgroups: [1], flops: 1, bytes: 8 });
}

/** Makes `groups` equal bind groups of `count` for `dispatchAll`. */
export function bindGroups(device: Device, count: Tensor, groups: number): GPUBindGroup[] {
  const layout = device.pipelines.get(launch, 'increment', {}, ['count']).groupLayout;
  const resource = { buffer: count.buffer, offset: count.offset, size: count.byteLength };
  return Array.from({ length: groups }, () =>
    device.gpu.createBindGroup({ layout, entries: [{ binding: 0, resource }] }),
  );
}

/** Submits `dispatches` dispatches in one pass, as a captured step replays them; the bind groups take turns. */
export function dispatchAll(device: Device, dispatches: number, groups: readonly GPUBindGroup[]): void {
  const { compiled } = device.pipelines.get(launch, 'increment', {}, ['count']);
  device.submit('launch probe', (encoder) => {
    const pass = encoder.beginComputePass();
    pass.setPipeline(compiled);
    for (let i = 0; i < dispatches; i++) {
      if (groups.length > 1 || i === 0) pass.setBindGroup(0, groups[i % groups.length]);
      pass.dispatchWorkgroups(1);
    }
    pass.end();
  });
}
