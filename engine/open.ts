/** Opening an adapter: the browser's, or one of Dawn's under node. */
import { Device } from './device.ts';
import { type DeviceOptions, type OpenedAdapter, subgroupMatrixFeature } from './device-options.ts';
import { InputError } from './files/errors.ts';
import { machineMemory } from './machine-memory.ts';

const wantedFeatures = ['shader-f16', 'subgroups', 'subgroup-size-control', 'timestamp-query'];
const experimentalFeatures = ['subgroup-size-control', subgroupMatrixFeature];
const wantedLimits = [
  'maxBufferSize',
  'maxStorageBufferBindingSize',
  'maxComputeWorkgroupStorageSize',
  'maxImmediateSize',
] as const;

/**
 * Opens an adapter.
 *
 * @throws InputError where there is none, or none of that name, or where experimental features are wanted that it does not offer
 */
export async function openDevice(options: DeviceOptions = {}): Promise<Device> {
  const open = () => openAdapter(options);
  return new Device(await open(), options, { open, machine: machineMemory() });
}

async function openAdapter(options: DeviceOptions): Promise<OpenedAdapter> {
  const gpu = await entryPoint(options);
  const adapter = await requestAdapter(gpu, options.adapter);
  const wanted = [...new Set([...wantedFeatures, ...(options.experimental ? experimentalFeatures : [])])];
  // TypeScript's own types do not know all of them.
  const offered = wanted.filter((feature) => adapter.features.has(feature)) as GPUFeatureName[];
  const missing = experimentalFeatures.filter((feature) => !adapter.features.has(feature));
  if (options.experimental && missing.length > 0)
    throw new InputError(
      `${adapter.info.description || adapter.info.vendor}: no experimental kernel runs on this adapter, which lacks ${missing.join(' and ')}`,
    );
  const requiredFeatures = options.floor ? [] : offered;
  // Browsers refuse limits that they do not know.
  const known = wantedLimits.filter((name) => !options.floor && adapter.limits[name] !== undefined);
  const requiredLimits = Object.fromEntries(known.map((name) => [name, adapter.limits[name]]));
  const device = await adapter.requestDevice({ requiredFeatures, requiredLimits });
  const immediates = !options.floor && gpu.wgslLanguageFeatures.has('immediate_address_space');
  return { gpu: device, adapter, immediateBytes: immediates ? device.limits.maxImmediateSize : 0 };
}

async function requestAdapter(gpu: GPU, name: string | undefined): Promise<GPUAdapter> {
  let words = '';
  const adapter = await gpu.requestAdapter({ powerPreference: 'high-performance' }).catch((error: Error) => {
    words = error.message;
    return null;
  });
  if (adapter) return adapter;
  const which = name === undefined ? '' : ` with '${name}' in its name`;
  const reason = words && ` (${words.split('\n')[0]})`;
  // Where no adapter has the name, Dawn has a line for each that there is.
  const others = [...words.matchAll(/backend: '.*', name: '(.*)'/g)].map((match) => `'${match[1]}'`);
  const advice =
    others.length > 0
      ? `there is ${others.join(', ')}`
      : "'npx insula setup' prepares a software adapter on Debian and Ubuntu, 'npx insula devices' says what to install";
  throw new InputError(`no WebGPU adapter${which} opens${reason}; ${advice}`);
}

/**
 * Dawn's objects of this process by their flags, wherever this module is loaded more than once as well. Each starts threads, which
 * devices share. They stay: Dawn ends when its object is collected, and crashes if anything of it is still pending or used then.
 */
const entryPoints = globalThis as { insulaEntryPoints?: Map<string, GPU> };

/** The browser's GPU, or Dawn's through the `webgpu` package. */
export async function entryPoint({ adapter, experimental }: DeviceOptions): Promise<GPU> {
  if (typeof navigator === 'object' && navigator.gpu) return navigator.gpu;
  const name = 'webgpu';
  const { create, globals } = (await import(/* @vite-ignore */ name)) as typeof import('webgpu');
  Object.assign(globalThis, globals);
  const choice = adapter === undefined ? [] : adapter === 'null' ? ['backend=null'] : [`adapter=${adapter}`];
  // Dawn otherwise rounds timestamps to 65 microseconds, as browsers do.
  const unsafe = experimental ? ['enable-dawn-features=allow_unsafe_apis'] : [];
  const flags = [...choice, ...unsafe, 'disable-dawn-features=timestamp_quantization'];
  entryPoints.insulaEntryPoints ??= new Map();
  const opened = entryPoints.insulaEntryPoints;
  const key = flags.join(' ');
  const gpu = opened.get(key) ?? create(flags);
  opened.set(key, gpu);
  return gpu;
}
