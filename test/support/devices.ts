import { describe } from 'vitest';
import { type Device, openDevice } from '../../engine/index.ts';
import { long } from './long.ts';

const opened = globalThis as { insulaTestDevices?: Map<string, Promise<Device>> };
opened.insulaTestDevices ??= new Map();

/**
 * Whether tests run at some of their sizes, and on one device. So it is in a browser, unless INSULA_LONG=1: its software
 * adapter takes seconds to compile a large kernel, and the one under node has run the same kernels at every size.
 */
export const fewerSizes = typeof process !== 'object' && !long;

/** All that the adapter offers; WebGPU's default limits and no features; and these, with what a graphics adapter is given to run. */
type DeviceKind = 'normal' | 'floor' | 'graphics';

/** One device of each kind for the whole run: compiled pipelines are shared by all tests. */
export function testDevice(kind: DeviceKind): Promise<Device> {
  const devices = opened.insulaTestDevices!;
  let device = devices.get(kind);
  if (!device) {
    device = openDevice({ floor: kind !== 'normal' });
    if (kind === 'graphics') device = device.then((made) => Object.assign(made, { software: false }));
    // A browser cuts steps into submits by the time that they take, more where the machine is busy.
    device = device.then((made) => Object.assign(made, { pace: Object.assign(made.pace, { limit: Infinity }) }));
    devices.set(kind, device);
  }
  return device;
}

type Tests = (device: () => Promise<Device>, kind: DeviceKind) => void;

/** The same tests on a device with all that the adapter offers, and on one with WebGPU's default limits and no features. */
export function describeOnDevices(name: string, tests: Tests): void {
  describeOnKinds(name, ['normal', 'floor'], tests);
}

/** The same on a device that gets what a graphics adapter does as well: for kernels that take another shape on software adapters. */
export function describeOnAllDevices(name: string, tests: Tests): void {
  describeOnKinds(name, ['normal', 'floor', 'graphics'], tests);
}

function describeOnKinds(name: string, kinds: readonly DeviceKind[], tests: Tests): void {
  for (const kind of fewerSizes ? kinds.slice(0, 1) : kinds)
    describe(`${name} (${kind} device)`, () => {
      tests(() => testDevice(kind), kind);
    });
}
