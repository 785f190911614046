// The description of an adapter. No imports: engine/device.ts uses it in browsers too.

/**
 * A report on an adapter that opens, or on a backend or adapter that does not, with the reason.
 * @typedef {object} OpenAdapter
 * @property {true} opens
 * @property {boolean} isDefault whether it is the one that opens if none is named
 * @property {string} backend 'vulkan', 'metal', 'd3d12' ...
 * @property {string} name what `openDevice({ adapter })` accepts
 * @property {string} vendor
 * @property {string} device
 * @property {string} description with the driver's version
 * @property {string} architecture
 * @property {boolean} software whether it computes on the processor's cores
 * @property {string[]} features
 * @property {Record<string, number>} limits those that matter to compute kernels; sizes in bytes
 * @property {[number, number]} subgroupSizes smallest and largest
 *
 * @typedef {{ opens: false, backend: string, name: string, reason: string }} ClosedAdapter
 * @typedef {OpenAdapter | ClosedAdapter} AdapterReport
 */

const limits = /** @type {const} */ ([
  'maxComputeInvocationsPerWorkgroup',
  'maxComputeWorkgroupStorageSize',
  'maxComputeWorkgroupsPerDimension',
  'maxStorageBuffersPerShaderStage',
  'maxStorageBufferBindingSize',
  'maxBufferSize',
  'maxImmediateSize',
]);

/**
 * Returns whether an adapter computes on the processor's cores. Not every driver reports it in `isFallbackAdapter`.
 * @param {GPUAdapterInfo} info
 * @param {string} [name] of the adapter in its backend's list
 * @returns {boolean}
 */
export function isSoftware({ isFallbackAdapter, architecture, device, description }, name = '') {
  const words = `${name} ${architecture} ${device} ${description}`;
  return isFallbackAdapter || /llvmpipe|lavapipe|swiftshader|software|basic render/i.test(words);
}

/**
 * @param {GPUAdapter} adapter
 * @param {string} backend
 * @param {string} name
 * @returns {OpenAdapter}
 */
export function describeAdapter(adapter, backend, name) {
  const { vendor, device, description, architecture, subgroupMinSize, subgroupMaxSize } = adapter.info;
  return {
    opens: true,
    isDefault: false,
    backend,
    name,
    vendor,
    device,
    description,
    architecture,
    software: isSoftware(adapter.info, name),
    features: [...adapter.features].sort(),
    limits: Object.fromEntries(limits.map((limit) => [limit, adapter.limits[limit]])),
    subgroupSizes: [subgroupMinSize, subgroupMaxSize],
  };
}

/** @param {OpenAdapter} adapter */
export const identity = (adapter) =>
  [adapter.vendor, adapter.device, adapter.description, adapter.architecture].join('\n');
