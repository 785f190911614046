/** Options that choose the adapter. */
import { type Device, freeMachineBytes } from '../engine/index.ts';
import type { MemoryGiven } from '../model/training/memory-plan.ts';
import { decimal, flag, text } from './options.ts';

/** Folder of runs and caches, in the working directory. */
export const WORK_FOLDER = '.insula';
export const CACHE_FOLDER = `${WORK_FOLDER}/cache`;

export const deviceOptions = {
  adapter: text("part of an adapter's name, as 'insula devices' lists it; the system's first by default"),
  floor: flag("opens it with WebGPU's default limits and no features"),
  tuning: text("tuning file of 'insula bench --tune', instead of this adapter's own"),
};

export const experimentalOption = flag(
  'takes subgroup matrices, a feature of Dawn that is no standard yet: products whose operands are both f16 have variants with them',
  { excludes: 'floor' },
);

export const memoryOption = decimal(
  "memory for the run on the adapter, in GB of 10^9 bytes: one that takes more is refused before it begins; a software adapter has this machine's by default, others do not say how much they have",
  { above: 0 },
);

/** The memory for a run: as given, or where the processor computes what is free on this machine. */
export function memoryFor(device: Device, given?: number): MemoryGiven | undefined {
  if (given !== undefined) return { bytes: given * 1e9, source: '--memory' };
  const free = device.software ? freeMachineBytes() : null;
  return free === null ? undefined : { bytes: free, source: "this machine's free memory" };
}
