/** What dispatches and submits cost when the kernel does nothing. */
import { type Device, loadKernel, type Tensor } from '../../engine/index.ts';

const kernel = await loadKernel(new URL('./launch.wgsl', import.meta.url));

/** One dispatch, inside a step, as an op encodes it; adds one to `count` [1]. */
export function increment(device: Device, count: Tensor): void {
  device.dispatch({ kernel, entry: 'increment', bindings: { count }, workgroups: [1], flops: 1, bytes: 8 });
}

/** `groups` bind groups of `count`, all alike, for `dispatchAll`. */
export function bindGroups(device: Device, count: Tensor, groups: number): GPUBindGroup[] {
  const layout = device.pipelines.get(kernel, 'increment', {}).getBindGroupLayout(0);
  const resource = { buffer: count.buffer, offset: count.offset, size: count.byteLength };
  return Array.from({ length: groups }, () =>
    device.gpu.createBindGroup({ layout, entries: [{ binding: 0, resource }] }),
  );
}

/** `dispatches` dispatches in one pass and one submit, as a captured step replays them, with the bind groups in turn. */
export function dispatchAll(device: Device, dispatches: number, groups: readonly GPUBindGroup[]): void {
  const pipeline = device.pipelines.get(kernel, 'increment', {});
  device.submit('launch probe', (encoder) => {
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    for (let i = 0; i < dispatches; i++) {
      if (groups.length > 1 || i === 0) pass.setBindGroup(0, groups[i % groups.length]);
      pass.dispatchWorkgroups(1);
    }
    pass.end();
  });
}
