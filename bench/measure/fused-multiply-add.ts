import { type Device, emptyTensor, loadKernel } from '../../engine/index.ts';

const kernel = await loadKernel(new URL('./fused-multiply-add.wgsl', import.meta.url));
const THREADS = 64;
/** Chains x steps of a trip x components x 2, as in the kernel. */
const FLOPS_PER_TRIP = 8 * 8 * 4 * 2;

/** Runs the kernel on `threads` threads, a multiple of 64, inside a step. After many trips every number of the output [threads, 4] is 8 x addend / (1 - factor). */
export function multiplyAdd(device: Device, threads: number, trips: number) {
  const output = emptyTensor(device, [threads, 4], 'f32', 'multiplyAdd');
  device.dispatch({
    kernel,
    entry: 'multiplyAdd',
    bindings: { output },
    uniform: { trips, factor: 0.5, addend: 0.25 },
    workgroups: [threads / THREADS],
    flops: threads * trips * FLOPS_PER_TRIP,
  });
  return output;
}
