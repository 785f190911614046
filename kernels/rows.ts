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
const GROUPS_PER_THREAD = 4;
/** Rows of a slice for which a kernel has room: ROWS in its file. */
const ROWS_OF_SLICE = 64;

const threadsFor = (groups: number) => Math.min(Math.max(2 ** Math.ceil(Math.log2(groups)), 32), 256);

/**
 * A workgroup to a row of `groups` groups, or to a slice of such rows, with a thread for each group as far as they go.
 *
 * A barrier costs a software adapter as much as a load does: there a workgroup is one subgroup, and the kernel's reduction over the
 * threads is an instruction.
 */
export function rowParameters(device: Device, groups: number): Parameters & { THREADS: number } {
  const lanes = softwareLanes(device);
  if (lanes) return { THREADS: lanes, subgroupSize: lanes, sumOfThreads: 'subgroups' };
  return { THREADS: device.software ? 8 : threadsFor(groups) };
}

/** The same for kernels that hold a row in registers; null where rows are too short for it, or reading again costs no more. */
export function heldRowParameters(device: Device, groups: number): Parameters | null {
  const THREADS = threadsFor(groups / GROUPS_PER_THREAD);
  return device.software || groups <= 256 ? null : { THREADS, GROUPS_PER_THREAD };
}

/**
 * Into how many slices, each added up by a workgroup that walks its rows, a backward pass cuts each of `samples` runs of rows before
 * it adds the slices in order: a function of the shape and the kind of adapter.
 */
export function slicesOfRows(device: Device, rows: number, samples = 1): number {
  const most = Math.ceil((device.software ? 64 : 512) / samples);
  return Math.max(1, Math.min(Math.ceil(rows / 8), most), Math.ceil(rows / ROWS_OF_SLICE));
}

/** The same for a forward pass whose rows share factors of their columns: a graphics adapter wants workgroups more than fewer loads. */
export function forwardSlices(device: Device, rows: number, samples = 1): number {
  return device.software ? slicesOfRows(device, rows, samples) : rows;
}

/** Where a normalisation's backward writes the gradient of x, or adds to it; it makes one in any case. */
export function inputGradient(x: Tensor, wants: boolean, op: string): GradientSum {
  if (wants) return gradientSum(x, op);
  return { gradient: emptyTensor(x.device, x.shape, 'f32', op), accumulate: false };
}
