import type { Device } from '../engine/index.ts';

/** Lanes of every subgroup of a software adapter, for `*.software.wgsl` kernels; null for other adapters, and where they vary. */
export function softwareLanes(device: Device): number | null {
  const [least, most] = device.subgroupSizes;
  const fixed = least === most || device.features.has('subgroup-size-control');
  return device.software && device.features.has('subgroups') && fixed ? least : null;
}
