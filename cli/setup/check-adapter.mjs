// Opens the default adapter, computes on it and reads the result back; prints one line of JSON, { description } or
// { reason }. It runs as a process of its own, so that a driver that crashes or a library that is missing ends only this one.

import { writeSync } from 'node:fs';

const COUNT = 64;
const source = `
@group(0) @binding(0) var<storage, read_write> result: array<u32>;
@compute @workgroup_size(${COUNT}) fn main(@builtin(global_invocation_id) id: vec3u) { result[id.x] = 3u * id.x + 1u; }
`;

/**
 * @param {GPUDevice} device
 * @returns {Promise<boolean>} whether the adapter computes what it should
 */
async function computes(device) {
  const pipeline = device.createComputePipeline({
    layout: 'auto',
    compute: { module: device.createShaderModule({ code: source }) },
  });
  const size = 4 * COUNT;
  const result = device.createBuffer({ size, usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC });
  const staging = device.createBuffer({ size, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  const entries = [{ binding: 0, resource: { buffer: result } }];
  pass.setBindGroup(0, device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }));
  pass.dispatchWorkgroups(1);
  pass.end();
  encoder.copyBufferToBuffer(result, 0, staging, 0, size);
  device.queue.submit([encoder.finish()]);
  await staging.mapAsync(GPUMapMode.READ);
  return new Uint32Array(staging.getMappedRange()).every((value, index) => value === 3 * index + 1);
}

/** @returns {Promise<{ description: string } | { reason: string }>} */
async function check() {
  const { create, globals } = await import('webgpu');
  Object.assign(globalThis, globals);
  const gpu = create([]);
  const adapter = await gpu.requestAdapter({ powerPreference: 'high-performance' });
  if (!adapter) return { reason: 'no adapter was found' };
  const description = adapter.info.description || adapter.info.device;
  const device = await adapter.requestDevice();
  const works = await computes(device);
  device.destroy();
  return works ? { description } : { reason: `${description} opens but computes wrong values` };
}

/** @type {{ description: string } | { reason: string }} */
let answer;
try {
  answer = await check();
} catch (error) {
  answer = { reason: error instanceof Error ? error.message.split('\n')[0] : String(error) };
}
writeSync(1, `${JSON.stringify(answer)}\n`);
