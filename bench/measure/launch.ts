/** The cost of dispatches and submits, measured with a kernel that does almost nothing. */
import { type Device, loadKernel, type Tensor } from '../../engine/index.ts';

const kernel = await loadKernel(new URL('./launch.wgsl', import.meta.url));

/** Encodes one dispatch inside a step, as an op does; it adds one to `count` [1]. */
export function increment(device: Device, count: Tensor): void {
  device.dispatch({ kernel, entry: 'increment', bindings: { count }, workgroups: [1], flops: 1, bytes: 8 });
}

/** Makes `groups` equal bind groups of `count` for `dispatchAll`. */
export function bindGroups(device: Device, count: Tensor, groups: number): GPUBindGroup[] {
  const layout = device.pipelines.get(kernel, 'increment', {}, ['count']).groupLayout;
  const resource = { buffer: count.buffer, offset: count.offset, size: count.byteLength };
  return Array.from({ length: groups }, () =>
    device.gpu.createBindGroup({ layout, entries: [{ binding: 0, resource }] }),
  );
}

/** Submits `dispatches` dispatches in one pass, as a captured step replays them; the bind groups take turns. */
export function dispatchAll(device: Device, dispatches: number, groups: readonly GPUBindGroup[]): void {
  const { compiled } = device.pipelines.get(kernel, 'increment', {}, ['count']);
  device.submit('launch probe', (encoder) => {
    const pass = encoder.beginComputePass();
    pass.setPipeline(compiled);
    for (let i = 0; i < dispatches; i++) {
      if (groups.length > 1 || i === 0) pass.setBindGroup(0, groups[i % groups.length]);
      pass.dispatchWorkgroups(1);
    }
    pass.end();
  });
}
