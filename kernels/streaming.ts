import { type Device, type Dispatch, gridFor, type Kernel } from '../engine/index.ts';

/**
 * How the threads of a kernel that only streams share `groups` groups of elements: each takes `run` of them, `near` apart, and the
 * next thread begins `far` behind it. `near` and `far` never change a result.
 *
 * Neighbouring threads of a graphics adapter read neighbouring groups together; a processor reads group after group, and a thread
 * costs it more than a group.
 */
export function streaming(device: Device, groups: number, threads: number) {
  const run = device.software ? 8 : groups >= 2 ** 18 ? 4 : 1;
  const [near, far] = device.software ? [1, run] : [threads, 1];
  return { fields: { groups, run, near, far }, workgroups: gridFor(groups, threads * run) };
}

const THREADS = 64;

/** Dispatches a kernel of workgroups of 64 threads, one thread to each item. */
export function forEachItem(
  device: Device,
  kernel: Kernel,
  entry: string,
  items: number,
  work: Pick<Dispatch, 'parameters' | 'bindings' | 'uniform' | 'flops' | 'bytes'>,
): void {
  const parameters = { THREADS, ...work.parameters };
  device.dispatch({ ...work, kernel, entry, parameters, workgroups: gridFor(items, THREADS) });
}
