// What an adapter is and can do. No imports: it is shared by node and browsers.

/**
 * An adapter that opens, or why a backend or one of its adapters does not.
 * @typedef {object} OpenAdapter
 * @property {true} opens
 * @property {boolean} isDefault whether it is the one that opens where none is named
 * @property {string} backend 'vulkan', 'metal', 'd3d12' ...; 'browser' in a browser
 * @property {string} name what `openDevice({ adapter })` accepts; '' in a browser
 * @property {string} vendor
 * @property {string} device
 * @property {string} description with the driver's version
 * @property {string} architecture
 * @property {boolean} software it computes on the processor's cores
 * @property {string[]} features
 * @property {Record<string, number>} limits those that a compute kernel meets; sizes in bytes
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
]);

/**
 * Whether an adapter computes on the processor's cores. Not every driver says so by `isFallbackAdapter`.
 * @param {GPUAdapterInfo} info
 * @param {string} [name] by which its backend lists it
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
