import type { Device } from '../engine/index.ts';

/** Lanes of every subgroup of a software adapter, for `*.software.wgsl` kernels; null where the adapter is none, or they vary. */
export function softwareLanes(device: Device): number | null {
  const [least, most] = device.subgroupSizes;
  return device.software && device.features.has('subgroups') && least === most ? least : null;
}
