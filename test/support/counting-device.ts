/** A device whose kernels count what they do (instrument.ts), beside what their cost models say. */
import { Device, type Dispatch, specialise } from '../../engine/index.ts';
import { uniformData } from '../../engine/kernel.ts';
import { entryPoint } from '../../engine/open.ts';
import { Instrumenter } from './instrument.ts';

export interface Work {
  readonly flops: number;
  readonly bytes: number;
}
export interface Counted {
  /** Kernel and entry point. */
  readonly label: string;
  readonly stated: Work;
  readonly counted: Work;
}

interface Instrumented {
  readonly pipeline: GPUComputePipeline;
  /** The size of an element in each storage binding of the file. */
  readonly elements: readonly { readonly name: string; readonly bytes: number }[];
}

/** Kernels that draw random numbers, and pack them into bits. */
const INTEGER_WORK = /^(random|adamw updateBlocks)/;
/** The first of three, above all numbers in use. */
const BINDING = 31;
const { MAP_READ, COPY_DST, COPY_SRC, STORAGE, UNIFORM } = {
  MAP_READ: 1,
  COPY_DST: 8,
  COPY_SRC: 4,
  STORAGE: 128,
  UNIFORM: 64,
};

class CountingDevice extends Device {
  private readonly counts: (() => Promise<Counted>)[] = [];
  private readonly made: GPUBuffer[] = [];
  private readonly pipelinesThatCount = new Map<string, Instrumented>();

  /** All dispatches since the last call, in order. */
  async counted(): Promise<Counted[]> {
    await this.finish();
    const read = await Promise.all(this.counts.splice(0).map((count) => count()));
    for (const buffer of this.made.splice(0)) buffer.destroy();
    return read;
  }

  override dispatch(given: Dispatch): void {
    const { kernel, entry, parameters = {}, bindings, uniform, workgroups, flops = 0, bytes } = given;
    const [x, y = 1, z = 1] = workgroups;
    if (x * y * z === 0) return;
    const ranges = Object.entries(bindings);
    const label = `${kernel.name} ${entry}`;
    const { pipeline, elements } = this.instrumented(specialise(kernel, parameters), entry, INTEGER_WORK.test(label));
    const places = new Uint32Array(4 * elements.length);
    let words = 1; // the first is for what has no place
    elements.forEach(({ name, bytes }, i) => {
      if (!bindings[name]) return;
      places.set([words, bindings[name].byteLength / bytes], 4 * i);
      words += bindings[name].byteLength / bytes + 1;
    });
    const [operations, marks] = [4, 4 * words].map((size) => this.buffer(size, STORAGE | COPY_SRC));
    const staging = this.buffer(4 + 4 * words, MAP_READ | COPY_DST);
    const entries = ranges.map(([name, { buffer, offset, byteLength }]): GPUBindGroupEntry => {
      return { binding: kernel.bindings.get(name)!.index, resource: { buffer, offset, size: byteLength } };
    });
    const own = [operations, marks, this.uniform(places.buffer)];
    entries.push(...own.map((buffer, i) => ({ binding: BINDING + i, resource: { buffer } })));
    if (uniform) {
      const { index, bytes } = uniformData(kernel, uniform);
      entries.push({ binding: index, resource: { buffer: this.uniform(bytes) } });
    }
    this.submit(`counting ${label}`, (encoder) => {
      const pass = encoder.beginComputePass();
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, this.gpu.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }));
      pass.dispatchWorkgroups(x, y, z);
      pass.end();
      encoder.copyBufferToBuffer(operations, 0, staging, 0, 4);
      encoder.copyBufferToBuffer(marks, 0, staging, 4, 4 * words);
    });
    const stated = { flops, bytes: bytes ?? ranges.reduce((sum, [, { byteLength }]) => sum + byteLength, 0) };
    this.counts.push(async () => {
      await this.errors.settle(staging.mapAsync(GPUMapMode.READ));
      const found = new Uint32Array(staging.getMappedRange());
      let moved = 0;
      elements.forEach(({ bytes: each }, i) => {
        const [first, length] = places.subarray(4 * i);
        for (const mark of found.subarray(1 + first, 1 + first + length)) moved += each * ((mark & 1) + (mark >> 1));
      });
      return { label, stated, counted: { flops: found[0], bytes: moved } };
    });
  }

  private instrumented(source: string, entry: string, integers: boolean): Instrumented {
    const key = `${entry}\n${source}`;
    const known = this.pipelinesThatCount.get(key);
    if (known) return known;
    const instrumenter = new Instrumenter(source, integers);
    const code = instrumenter.text(entry, BINDING);
    const pipeline = this.errors.checked(`counting ${entry}`, () => {
      const module = this.gpu.createShaderModule({ code });
      return this.gpu.createComputePipeline({ layout: 'auto', compute: { module, entryPoint: entry } });
    });
    const elements = instrumenter.storage().map((name) => ({ name, bytes: instrumenter.elementBytes(name) }));
    const made = { pipeline, elements };
    this.pipelinesThatCount.set(key, made);
    return made;
  }

  private uniform(bytes: ArrayBuffer): GPUBuffer {
    const buffer = this.buffer(bytes.byteLength, UNIFORM | COPY_DST);
    this.gpu.queue.writeBuffer(buffer, 0, bytes);
    return buffer;
  }

  private buffer(size: number, usage: number): GPUBuffer {
    const buffer = this.gpu.createBuffer({ size, usage });
    this.made.push(buffer);
    return buffer;
  }
}

/** The default adapter with room for two more storage buffers than kernels may use. `floor`: without any features. */
export async function openCountingDevice(floor: boolean): Promise<CountingDevice> {
  const adapter = (await (await entryPoint({})).requestAdapter())!;
  const requiredFeatures = (['subgroups', 'shader-f16'] as const).filter(
    (name) => !floor && adapter.features.has(name),
  );
  const requiredLimits = { maxStorageBuffersPerShaderStage: 10 };
  const gpu = await adapter.requestDevice({ requiredFeatures, requiredLimits });
  return new CountingDevice({ gpu, adapter, immediateBytes: 0 }, { floor });
}
