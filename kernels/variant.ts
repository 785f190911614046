import type { Device } from '../engine/index.ts';

/** The narrowest subgroups of at least `lanes` that a kernel can rely on; null without subgroups, or where the driver chooses their size. */
export function subgroupSize(device: Device, lanes = 1): number | null {
  const [least, most] = device.subgroupSizes;
  const fixed = least === most || device.features.has('subgroup-size-control');
  return device.features.has('subgroups') && fixed && lanes <= most ? Math.max(least, lanes) : null;
}

/** Lanes of every subgroup of a software adapter, for `*.software.wgsl` kernels; null where the adapter is none, or they vary. */
export function softwareLanes(device: Device): number | null {
  return device.software ? subgroupSize(device) : null;
}
