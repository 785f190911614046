/** Workgroups for `items` items, `perWorkgroup` to each, on two axes where one would exceed WebGPU's 65,535. */
export function gridFor(items: number, perWorkgroup: number): [number, number] {
  const workgroups = Math.ceil(items / perWorkgroup);
  const rows = Math.ceil(workgroups / 65_535) || 1;
  return [Math.ceil(workgroups / rows), rows];
}
