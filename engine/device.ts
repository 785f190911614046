import { isSoftware } from './adapters/describe.mjs';
import { Answers } from './answers.ts';
import { type Kernel, type Parameters, type UniformData, uniformData } from './kernel.ts';
import { ALIGNMENT, type BufferRange, Memory, roundUp } from './memory.ts';
import { Pipelines } from './pipelines.ts';
import { type DispatchTime, type DispatchWork, Profiler } from './profile.ts';
import { Recorder } from './recorder.ts';
import { endingWith, StepMemory } from './step-memory.ts';

export interface DeviceOptions {
  /** Part of an adapter's name ('llvmpipe', 'NVIDIA'), or 'null' for Dawn's validating backend; default: the system's first. Node only. */
  adapter?: string;
  /** Open with WebGPU's default limits and no features, whatever the adapter offers. */
  floor?: boolean;
  /** Submit after each op, so that a validation error names the op that caused it; a binding that an op does not use is one as well. */
  debug?: boolean;
}

export interface Dispatch {
  kernel: Kernel;
  entry: string;
  parameters?: Parameters;
  /** By their names in the `.wgsl` file; every storage binding that the entry point uses. */
  bindings: Readonly<Record<string, BufferRange>>;
  /** Values of the kernel's uniform struct. */
  uniform?: Readonly<Record<string, number>>;
  workgroups: readonly [number, number?, number?];
  /** Cost model: arithmetic operations, an exponential or a division counted as one; default 0, for work that only moves bytes. */
  flops?: number;
  /** Cost model: bytes that have to move; default every binding once. */
  bytes?: number;
}

const DISPATCHES_PER_SUBMIT = 64;
const UNIFORM_RING_BYTES = 64 * 1024;

/** An opened adapter: what it can do, its memory, and the commands on their way to it. */
export class Device {
  readonly limits: GPUSupportedLimits;
  readonly features: ReadonlySet<string>;
  /** Vendor, architecture and driver, as the adapter names itself. */
  readonly description: string;
  /** The adapter computes on the processor's cores. */
  readonly software: boolean;
  readonly subgroupSizes: readonly [number, number];
  readonly memory: Memory;
  readonly answers: Answers;
  readonly pipelines: Pipelines;
  /** Dispatches encoded since the device was opened. */
  dispatches = 0;
  /** Workgroups, FLOPs and bytes of all of them, the last two by the kernels' cost models. */
  workgroups = 0;
  flops = 0;
  bytes = 0;
  /** Writes down the step that is being captured. */
  recorder: Recorder | null = null;
  /** Times every dispatch, in a pass of its own. */
  profiler: Profiler | null = null;

  private readonly ring: GPUBuffer;
  private readonly ringData = new Uint8Array(UNIFORM_RING_BYTES);
  private ringUsed = 0;
  private encoder: GPUCommandEncoder | null = null;
  private pass: GPUComputePassEncoder | null = null;
  private pending = 0;
  private lastLabel = '';
  private step_: StepMemory | null = null;
  private closed = false;

  constructor(
    readonly gpu: GPUDevice,
    adapter: GPUAdapter,
    readonly options: DeviceOptions,
    private readonly release: () => void,
  ) {
    const { vendor, architecture, device, description } = adapter.info;
    this.limits = gpu.limits;
    this.features = new Set(gpu.features);
    this.description = [vendor, architecture, device, description].filter((part) => part).join(' ');
    this.software = isSoftware(adapter.info);
    this.subgroupSizes = [adapter.info.subgroupMinSize, adapter.info.subgroupMaxSize];
    this.answers = new Answers(gpu, this.software);
    this.pipelines = new Pipelines(gpu, this.answers, options.debug === true);
    this.memory = new Memory(
      gpu,
      (error, what) => this.answers.expectNoError(error, what),
      () => this.flush(),
    );
    this.ring = this.memory.uniform(UNIFORM_RING_BYTES, 'op parameters');
  }

  /** The step that is running. Throws outside of one. */
  currentStep(op: string): StepMemory {
    if (!this.step_) throw new Error(`${op}: ops run inside device.step(() => ...)`);
    return this.step_;
  }

  get inStep(): boolean {
    return this.step_ !== null;
  }

  /** Runs `fn` eagerly, then frees everything of the step that `fn` did not return. `fn` may be asynchronous. */
  step<T>(fn: () => T): T {
    if (this.step_) throw new Error('device.step: steps do not nest');
    this.answers.assertOpen();
    const { recorder } = this;
    const step = recorder
      ? new StepMemory(
          (bytes, label) => recorder.take(bytes, label),
          () => {},
        )
      : new StepMemory(
          (bytes, label) => this.memory.takeStep(bytes, label),
          (buffer) => this.memory.giveStep(buffer),
        );
    this.step_ = step;
    return endingWith(fn, (result) => {
      this.step_ = null;
      this.flush();
      step.end(result);
    });
  }

  /** Writes down what a step would encode; nothing of it runs. `fn` is synchronous; `name` is what error messages call the step. */
  record<T>(name: string, fn: () => T): { result: T; recorder: Recorder } {
    this.memory.made = new Set();
    const recorder = new Recorder(name, this.memory.made);
    this.recorder = recorder;
    try {
      return { result: this.step(fn), recorder };
    } finally {
      this.recorder = null;
      this.memory.made = null;
    }
  }

  dispatch({ kernel, entry, parameters = {}, bindings, uniform, workgroups, flops = 0, bytes }: Dispatch): void {
    const label = `${kernel.name} ${entry}`;
    const [x, y = 1, z = 1] = workgroups;
    const most = this.limits.maxComputeWorkgroupsPerDimension;
    if (![x, y, z].every((count) => Number.isInteger(count) && count >= 0 && count <= most))
      throw new Error(`${label}: a grid of ${x} x ${y} x ${z} workgroups; each must be an integer from 0 to ${most}`);
    const largest = this.limits.maxStorageBufferBindingSize;
    for (const [name, { byteLength }] of Object.entries(bindings))
      if (byteLength > largest)
        throw new Error(`${label}: ${name} takes ${byteLength} bytes; this device binds at most ${largest} at a time`);
    if (x * y * z === 0) return;
    const entries: GPUBindGroupEntry[] = Object.entries(bindings).map(([name, range]) => {
      const binding = kernel.bindings.get(name);
      if (!binding) throw new Error(`${label}: no binding '${name}'; it has ${[...kernel.bindings.keys()].join(', ')}`);
      return {
        binding: binding.index,
        resource: { buffer: range.buffer, offset: range.offset, size: range.byteLength },
      };
    });
    const packed = uniform ? uniformData(kernel, uniform) : null;
    const used = packed ? [...Object.keys(bindings), packed.name] : Object.keys(bindings);
    const pipeline = this.pipelines.get(kernel, entry, parameters, used);
    const cost = { flops, bytes: bytes ?? Object.values(bindings).reduce((sum, range) => sum + range.byteLength, 0) };
    if (this.recorder) {
      this.recorder.dispatch({ kernel, entry, parameters, pipeline, uniform: packed, grid: [x, y, z], cost }, bindings);
      return;
    }
    if (packed) entries.push(this.uniformEntry(packed));
    // With the pass comes the scope that catches what is wrong with the bindings.
    const pass = this.openPass({ label, workgroups: x * y * z, ...cost });
    const group = this.gpu.createBindGroup({ label, layout: pipeline.getBindGroupLayout(0), entries });
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(x, y, z);
    this.workgroups += x * y * z;
    this.flops += flops;
    this.bytes += cost.bytes;
    this.encoded(label);
  }

  /** Copies bytes between buffers, in order with the dispatches. Offsets and length are multiples of 4. */
  copy(source: BufferRange, target: BufferRange, bytes: number): void {
    if (this.recorder) {
      this.recorder.copy(source, target, bytes);
      return;
    }
    this.openEncoder().copyBufferToBuffer(source.buffer, source.offset, target.buffer, target.offset, bytes);
    this.encoded('copy');
  }

  clear(range: BufferRange): void {
    if (this.recorder) {
      this.recorder.clear(range);
      return;
    }
    this.openEncoder().clearBuffer(range.buffer, range.offset, range.byteLength);
    this.encoded('clear');
  }

  /** Writes from the host. What was encoded before is submitted first, because writeBuffer overtakes it. */
  write(target: BufferRange, data: ArrayBufferView<ArrayBuffer>): void {
    this.answers.assertOpen();
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    if (this.recorder?.write(target, bytes)) return;
    this.flush();
    const whole = bytes.byteLength - (bytes.byteLength % 4);
    this.answers.checked(`writing to ${target.buffer.label}`, () => {
      this.gpu.queue.writeBuffer(target.buffer, target.offset, bytes, 0, whole);
      if (whole === bytes.byteLength) return;
      const last = new Uint8Array(4);
      last.set(bytes.subarray(whole));
      this.gpu.queue.writeBuffer(target.buffer, target.offset + whole, last);
    });
  }

  /** Bytes of a range as they are when everything encoded so far has run. */
  async read(range: BufferRange, bytes: number): Promise<ArrayBuffer> {
    this.answers.assertOpen();
    const size = roundUp(bytes, 4);
    const staging = this.memory.takeStaging(size);
    try {
      this.copy(range, { buffer: staging, offset: 0, byteLength: size }, size);
      await null; // several reads at once are one submit
      this.answers.assertOpen();
      this.flush();
      await this.answers.settle(staging.mapAsync(GPUMapMode.READ, 0, size));
      await this.answers.check();
      return staging.getMappedRange(0, size).slice(0, bytes);
    } finally {
      if (!this.closed) {
        staging.unmap();
        this.memory.giveStaging(staging);
      }
    }
  }

  /** Resolves when everything encoded so far has run; rejects with the first error of any op since the last await. */
  async finish(): Promise<void> {
    this.answers.assertOpen();
    this.flush();
    await this.answers.settle(this.gpu.queue.onSubmittedWorkDone());
    await this.answers.check();
  }

  /**
   * GPU time of each dispatch that `fn` encodes, in order; needs the feature 'timestamp-query'. Slower than without, because every
   * dispatch gets a pass of its own: totals are to be taken without it. Throws what `fn` throws.
   */
  async profile(fn: () => unknown): Promise<DispatchTime[]> {
    if (!this.features.has('timestamp-query'))
      throw new Error(`profile: ${this.description} was opened without timestamps ('timestamp-query')`);
    if (this.profiler) throw new Error('profile: profiles do not nest');
    this.flush();
    const profiler = new Profiler(this.gpu);
    this.profiler = profiler;
    try {
      await fn();
      const stamps = profiler.resolve(this.openEncoder());
      return stamps ? profiler.times(await this.read(stamps, stamps.byteLength)) : [];
    } finally {
      this.flush();
      this.profiler = null;
      profiler.destroy();
    }
  }

  /** Encodes and submits by itself, behind everything encoded before. An error is thrown at the next await and begins with `what`. */
  submit(what: string, encode: (encoder: GPUCommandEncoder) => void): void {
    this.flush();
    this.answers.checked(what, () => {
      const encoder = this.gpu.createCommandEncoder();
      encode(encoder);
      this.gpu.queue.submit([encoder.finish()]);
    });
  }

  /** Submits what is encoded. */
  flush(): void {
    if (!this.encoder) return;
    this.pass?.end();
    const commands = this.encoder.finish();
    if (this.ringUsed > 0) this.gpu.queue.writeBuffer(this.ring, 0, this.ringData, 0, this.ringUsed);
    this.gpu.queue.submit([commands]);
    const what = this.pending === 1 ? this.lastLabel : `${this.pending} dispatches, the last ${this.lastLabel}`;
    this.answers.expectNoError(this.gpu.popErrorScope(), what);
    this.encoder = null;
    this.pass = null;
    this.pending = 0;
    this.ringUsed = 0;
  }

  /** Frees the device. Without it a node process does not end. */
  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.memory.destroy();
    this.gpu.destroy();
    void this.answers.close().then(this.release);
  }

  private uniformEntry({ index, bytes }: UniformData): GPUBindGroupEntry {
    if (this.ringUsed + bytes.byteLength > UNIFORM_RING_BYTES) this.flush();
    const offset = this.ringUsed;
    this.ringData.set(new Uint8Array(bytes), offset);
    this.ringUsed += roundUp(bytes.byteLength, ALIGNMENT);
    return { binding: index, resource: { buffer: this.ring, offset, size: bytes.byteLength } };
  }

  private openPass(work: DispatchWork): GPUComputePassEncoder {
    if (this.profiler) this.pass = this.openEncoder().beginComputePass({ timestampWrites: this.profiler.next(work) });
    else if (!this.pass) {
      if (!this.encoder) this.beginEncoder();
      this.pass = this.encoder!.beginComputePass();
    }
    return this.pass!;
  }

  /** The encoder outside of any pass. */
  private openEncoder(): GPUCommandEncoder {
    if (!this.encoder) this.beginEncoder();
    this.pass?.end();
    this.pass = null;
    return this.encoder!;
  }

  private beginEncoder(): void {
    this.answers.assertOpen();
    this.gpu.pushErrorScope('validation');
    this.encoder = this.gpu.createCommandEncoder();
  }

  private encoded(label: string): void {
    this.lastLabel = label;
    this.pending += 1;
    this.dispatches += 1;
    if (this.pending >= DISPATCHES_PER_SUBMIT || this.options.debug) this.flush();
  }
}
