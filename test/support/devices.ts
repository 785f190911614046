import { describe } from 'vitest';
import { type Device, openDevice } from '../../engine/index.ts';

const opened = globalThis as { insulaTestDevices?: Map<string, Promise<Device>> };
opened.insulaTestDevices ??= new Map();

/**
 * Whether tests of many sizes run only some of them: in a browser, whose software adapter takes seconds to compile a large kernel,
 * and for a barrier far longer than the one under node.
 */
export const fewerSizes = typeof process !== 'object';

/** All that the adapter offers; WebGPU's default limits and no features; and these, with what a graphics adapter is given to run. */
export type DeviceKind = 'normal' | 'floor' | 'graphics';

/** One device of each kind for the whole run: compiled pipelines are shared by all tests. */
export function testDevice(kind: DeviceKind): Promise<Device> {
  const devices = opened.insulaTestDevices!;
  let device = devices.get(kind);
  if (!device) {
    device = openDevice({ floor: kind !== 'normal' });
    if (kind === 'graphics') device = device.then((made) => Object.assign(made, { software: false }));
    devices.set(kind, device);
  }
  return device;
}

/** The same tests on a device with all that the adapter offers, and on one with WebGPU's default limits and no features. */
export function describeOnDevices(name: string, tests: (device: () => Promise<Device>) => void): void {
  describeOnKinds(name, ['normal', 'floor'], tests);
}

/** The same on a device that gets what a graphics adapter does as well: for kernels that take another shape on software adapters. */
export function describeOnAllDevices(name: string, tests: (device: () => Promise<Device>) => void): void {
  describeOnKinds(name, ['normal', 'floor', 'graphics'], tests);
}

function describeOnKinds(
  name: string,
  kinds: readonly DeviceKind[],
  tests: (device: () => Promise<Device>) => void,
): void {
  for (const kind of kinds)
    describe(`${name} (${kind} device)`, () => {
      tests(() => testDevice(kind));
    });
}
