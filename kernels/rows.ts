/** How kernels that reduce rows, normalisations and softmax, share them out. */
import {
  type Device,
  emptyTensor,
  type GradientSum,
  gradientSum,
  type Parameters,
  type Tensor,
} from '../engine/index.ts';
import { softwareLanes } from './variant.ts';

/** Groups of a row that a thread of a graphics adapter holds in registers. */
const KEEP = 4;

/**
 * A row of `groups` groups to a workgroup, held in registers where it has at most 256 threads of KEEP groups each.
 *
 * A software adapter reads again as fast as it would hold a row, and a barrier costs it as much as either: there a workgroup is one
 * subgroup, and the kernel's `sumOfThreads` is an instruction.
 */
export function rowParameters(device: Device, groups: number): Parameters & { THREADS: number } {
  const lanes = softwareLanes(device);
  if (lanes) return { THREADS: lanes, KEEP: 1, enable: 'subgroups', sumOfThreads: 'subgroups' };
  if (device.software) return { THREADS: 8, KEEP: 1 };
  return { THREADS: Math.min(Math.max(2 ** Math.ceil(Math.log2(groups / KEEP)), 32), 256), KEEP };
}

/**
 * Into how many slices, each added up by a workgroup that walks its rows, a backward pass cuts each of `samples` runs of rows before
 * it adds the slices in order: a function of the shape and the kind of adapter.
 */
export function slicesOfRows(device: Device, rows: number, samples = 1): number {
  const most = Math.ceil((device.software ? 64 : 512) / samples);
  return Math.max(1, Math.min(Math.ceil(rows / 8), most));
}

/** Where a normalisation's backward writes the gradient of x, or adds to it; it makes one in any case. */
export function inputGradient(x: Tensor, wants: boolean, op: string): GradientSum {
  if (wants) return gradientSum(x, op);
  return { gradient: emptyTensor(x.device, x.shape, 'f32', op), accumulate: false };
}
