import { type BufferRange, type Device, gridFor, loadKernel } from '../../engine/index.ts';

const kernel = await loadKernel(new URL('./bandwidth.wgsl', import.meta.url));
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
    kernel,
    entry: `${movement}All`,
    parameters: { RUN: run },
    bindings: { ...(movement !== 'write' && { source }), target_: target },
    uniform: { turns: turns ? pieces / WORKGROUPS : 1 },
    workgroups: turns ? [WORKGROUPS] : gridFor(pieces, 1),
    flops: movement === 'read' ? 4 * vectors + 3 * (turns ? WORKGROUPS * THREADS : vectors / run) : 0,
    bytes: movement === 'copy' ? 2 * bytes : bytes,
  });
}
