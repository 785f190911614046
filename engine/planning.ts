/** A device for plans: its memory is counted and holds nothing, and its commands run nowhere. */
import { Device } from './device.ts';

/**
 * A device with the limits, the features and the kernels of `device`. Whatever runs on it makes the buffers that it would make there,
 * as numbers in `memory`; all that is read is zero. Kernels that were chosen for `device` in place of the shipped ones are not.
 */
export function planningDevice(device: Device): Device {
  const { gpu, adapter, options, immediateBytes } = device;
  const opened = { gpu: emptyGpu(gpu), adapter, immediateBytes };
  const planning = new Device(opened, { ...options, debug: false });
  // A test may have given it those of a graphics adapter.
  return Object.assign(planning, { software: device.software });
}

function emptyGpu({ limits, features }: GPUDevice): GPUDevice {
  // Encoders, passes, pipelines, groups and layouts: every method of theirs gives the same again.
  const nothing: object = new Proxy(() => {}, {
    get: (_, name) => (name === 'then' ? undefined : nothing),
    apply: () => nothing,
  });
  const own: Readonly<Record<string | symbol, unknown>> = {
    limits,
    features,
    lost: new Promise(() => {}),
    popErrorScope: async () => null,
    createBuffer: ({ size, label }: GPUBufferDescriptor) => ({
      ...{ size, label, destroy() {}, unmap() {} },
      mapAsync: async () => {},
      getMappedRange: (_: number, bytes: number) => new ArrayBuffer(bytes),
    }),
    queue: { writeBuffer() {}, submit() {}, onSubmittedWorkDone: async () => {} },
  };
  return new Proxy({}, { get: (_, name) => own[name] ?? nothing }) as GPUDevice;
}
