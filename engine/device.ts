import { isSoftware } from './adapters/describe.mjs';
import { AsyncErrors } from './async-errors.ts';
import type { Binding, CommandSink } from './commands.ts';
import { Encoder } from './encoder.ts';
import { type Kernel, type Parameters, uniformData } from './kernel.ts';
import { type BufferRange, Memory, roundUp } from './memory.ts';
import { Pace } from './pace.ts';
import { Pipelines } from './pipelines.ts';
import { type DispatchTime, Profiler } from './profile.ts';
import { type Phase, Recorder } from './recorder.ts';
import { runThenEnd, Step } from './running-step.ts';

export interface DeviceOptions {
  /** Part of an adapter's name ('llvmpipe', 'NVIDIA'), or 'null' for Dawn's validating backend; default: the system's first. Node only. */
  adapter?: string;
  /** Open with WebGPU's default limits and no features, whatever the adapter offers. */
  floor?: boolean;
  /**
   * Take features that are no standard yet, for kernels that need them: subgroup matrices, for products of f16. Under node Dawn is
   * opened with its unsafe APIs; a browser has to be started with them.
   */
  experimental?: boolean;
  /** Submit after each op, so that a validation error names the op that caused it; a binding that an op does not use is one as well. */
  debug?: boolean;
}

export const subgroupMatrixFeature = 'chromium-experimental-subgroup-matrix';

/** Sizes and element types of subgroup matrices that a device multiplies: M x K by K x N. */
export interface SubgroupMatrices extends Readonly<Record<'M' | 'N' | 'K', number>> {
  readonly componentType: string;
  readonly resultComponentType: string;
}

export interface Dispatch {
  kernel: Kernel;
  entry: string;
  parameters?: Parameters;
  /** By their names in the `.wgsl` file; every storage binding that the entry point uses. */
  bindings: Readonly<Record<string, BufferRange>>;
  uniform?: Readonly<Record<string, number>>;
  workgroups: readonly [number, number?, number?];
  /** Cost model: arithmetic operations, an exponential or a division counted as one; default 0, for work that only moves bytes. */
  flops?: number;
  /** Cost model: bytes that have to move; default every binding once. */
  bytes?: number;
}

/** An opened adapter: what it can do, its memory, and the commands on their way to it. */
export class Device {
  readonly limits: GPUSupportedLimits;
  readonly features: ReadonlySet<string>;
  /** Vendor, architecture and driver, as the adapter names itself. */
  readonly description: string;
  /** The adapter computes on the processor's cores. */
  readonly software: boolean;
  readonly subgroupSizes: readonly [number, number];
  /** Empty unless it was opened with `experimental`. */
  readonly subgroupMatrices: readonly SubgroupMatrices[];
  readonly memory: Memory;
  readonly errors: AsyncErrors;
  readonly pipelines: Pipelines;
  readonly encoder: Encoder;
  readonly pace: Pace;
  /** Dispatches encoded since the device was opened. */
  dispatches = 0;
  /** Workgroups, FLOPs and bytes of all of them, the last two by the kernels' cost models. */
  workgroups = 0;
  flops = 0;
  bytes = 0;
  /** Ops leave tape entries. */
  taping = true;
  /** Writes down the step that is being captured. */
  recorder: Recorder | null = null;

  private step_: Step | null = null;
  /** The kernels of `withKernels`, by name. */
  private standIns: ReadonlyMap<string, Kernel> = new Map();
  private closed = false;

  constructor(
    readonly gpu: GPUDevice,
    readonly adapter: GPUAdapter,
    readonly options: DeviceOptions,
    private readonly release: () => void,
    /** Bytes of op parameters that need no uniform buffer. */
    readonly immediateBytes = 0,
  ) {
    const { vendor, architecture, device, description } = adapter.info;
    this.limits = gpu.limits;
    this.features = new Set(gpu.features);
    this.description = [vendor, architecture, device, description].filter((part) => part).join(' ');
    this.software = isSoftware(adapter.info);
    this.subgroupSizes = [adapter.info.subgroupMinSize, adapter.info.subgroupMaxSize];
    const { subgroupMatrixConfigs = [] } = adapter.info as { subgroupMatrixConfigs?: Iterable<SubgroupMatrices> };
    this.subgroupMatrices = this.features.has(subgroupMatrixFeature) ? [...subgroupMatrixConfigs] : [];
    this.errors = new AsyncErrors(gpu, this.software);
    this.pipelines = new Pipelines(gpu, this.errors, immediateBytes, this.subgroupSizes, options.debug === true);
    if (this.software) this.pipelines.atOnce = 1; // they compile in the thread that submits the first dispatch
    this.memory = new Memory(
      gpu,
      (error, what) => this.errors.expectNoError(error, what),
      () => this.flush(),
    );
    this.pace = new Pace(this.software, options.debug === true);
    this.encoder = new Encoder(gpu, this.memory, this.errors, this, this.pace, options.debug === true);
  }

  private get sink(): CommandSink {
    return this.recorder ?? this.encoder;
  }

  /** The step that is running. Throws outside of one. */
  currentStep(op: string): Step {
    if (!this.step_) throw new Error(`${op}: ops run inside device.step(() => ...)`);
    return this.step_;
  }

  get inStep(): boolean {
    return this.step_ !== null;
  }

  /** Runs `fn` eagerly, then frees everything of the step that `fn` did not return. `fn` may be asynchronous. */
  step<T>(fn: () => T): T {
    if (this.step_) throw new Error('device.step: steps do not nest');
    this.errors.assertOpen();
    const step = new Step(this.recorder ?? this.memory);
    this.step_ = step;
    return runThenEnd(fn, (result) => {
      this.step_ = null;
      this.flush();
      step.end(result);
    });
  }

  /** Writes down what a step would encode; nothing of it runs. `fn` is synchronous; `name` is what error messages call the step. */
  record<T>(name: string, fn: () => T): { result: T; recorder: Recorder } {
    this.memory.made = new Set();
    const recorder = new Recorder(name, this.memory.made, this.encoder);
    this.recorder = recorder;
    try {
      return { result: this.step(fn), recorder };
    } finally {
      this.recorder = null;
      this.memory.made = null;
    }
  }

  /** Runs `fn`; the list of a step that is being captured says that what it does belongs to `phase`. */
  during<T>(phase: Phase, fn: () => T): T {
    const { recorder } = this;
    if (!recorder) return fn();
    const outer = recorder.phase;
    recorder.phase = phase;
    try {
      return fn();
    } finally {
      recorder.phase = outer;
    }
  }

  /**
   * Runs `fn`, which may be asynchronous, with other kernels in place of those of the same names: `parseKernel(name, source)` makes
   * one, from the source of `loadedKernels` with a change. A step that is captured meanwhile keeps them. Calls nest, but two
   * asynchronous ones must not overlap.
   *
   * @throws Error, or rejects, as `fn` does: where a kernel lacks a name that its op uses (of an entry point, a binding, a field or a parameter)
   *   at once, where it does not compile at the next await
   */
  withKernels<T>(kernels: readonly Kernel[], fn: () => T): T {
    const before = this.standIns;
    this.standIns = new Map([...before, ...kernels.map((kernel) => [kernel.name, kernel] as const)]);
    return runThenEnd(fn, () => {
      this.standIns = before;
    });
  }

  dispatch(given: Dispatch): void {
    const { entry, parameters = {}, bindings, uniform, workgroups, flops = 0, bytes } = given;
    const kernel = this.standIns.get(given.kernel.name) ?? given.kernel;
    const label = `${kernel.name} ${entry}`;
    const [x, y = 1, z = 1] = workgroups;
    const most = this.limits.maxComputeWorkgroupsPerDimension;
    if (![x, y, z].every((count) => Number.isInteger(count) && count >= 0 && count <= most))
      throw new Error(`${label}: a grid of ${x} x ${y} x ${z} workgroups; each must be an integer from 0 to ${most}`);
    if (x * y * z === 0) return;
    const bound = Object.entries(bindings).map(([name, range]): Binding<BufferRange> => {
      const binding = kernel.bindings.get(name);
      if (!binding) throw new Error(`${label}: no binding '${name}'; it has ${[...kernel.bindings.keys()].join(', ')}`);
      const limit = this.limits.maxStorageBufferBindingSize;
      if (range.byteLength > limit)
        throw new Error(
          `${label}: '${name}' takes ${range.byteLength} bytes, above this device's limit of ${limit} for one binding; make the batch smaller, or cut the tensor along its first axis`,
        );
      return { name, index: binding.index, access: binding.space === 'read' ? 'read' : 'read_write', range };
    });
    const packed = uniform ? uniformData(kernel, uniform) : null;
    const immediate = packed !== null && packed.bytes.byteLength <= this.immediateBytes;
    const used = packed && !immediate ? [...Object.keys(bindings), packed.name] : Object.keys(bindings);
    const pipeline = this.pipelines.get(kernel, entry, parameters, used);
    const cost = { flops, bytes: bytes ?? Object.values(bindings).reduce((sum, range) => sum + range.byteLength, 0) };
    const place = immediate ? { uniform: null, immediates: packed.bytes } : { uniform: packed, immediates: null };
    const operation = { label, parameters, pipeline, bindings: bound, ...place, cost };
    this.sink.add({ kind: 'dispatch', ...operation, grid: [x, y, z] });
  }

  /** Copies bytes between buffers, in order with the dispatches. Offsets and length are multiples of 4. */
  copy(source: BufferRange, target: BufferRange, bytes: number): void {
    this.sink.add({ kind: 'copy', source, target, bytes });
  }

  clear(range: BufferRange): void {
    this.sink.add({ kind: 'clear', target: range });
  }

  /** Writes from the host, in order with the dispatches. */
  write(target: BufferRange, data: ArrayBufferView<ArrayBuffer>): void {
    this.sink.write(target, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  }

  /** Bytes of a range as they are when everything encoded so far has run. */
  async read(range: BufferRange, bytes: number): Promise<ArrayBuffer> {
    return (await this.readAll([range], [bytes]))[0];
  }

  /** Those of several ranges, by one mapping of memory, which costs as much as tens of dispatches. */
  async readAll(ranges: readonly BufferRange[], bytes: readonly number[]): Promise<ArrayBuffer[]> {
    this.errors.assertOpen();
    const starts = [0];
    for (const own of bytes) starts.push(starts[starts.length - 1] + roundUp(own, 4));
    const size = starts[bytes.length];
    const staging = this.memory.takeStaging(size);
    try {
      for (const [i, range] of ranges.entries()) {
        const byteLength = starts[i + 1] - starts[i];
        this.copy(range, { buffer: staging, offset: starts[i], byteLength }, byteLength);
      }
      await null; // several reads at once are one submit
      this.errors.assertOpen();
      this.flush();
      await this.errors.settle(staging.mapAsync(GPUMapMode.READ, 0, size));
      await this.errors.check();
      const mapped = staging.getMappedRange(0, size);
      return bytes.map((own, i) => mapped.slice(starts[i], starts[i] + own));
    } finally {
      if (!this.closed) {
        staging.unmap();
        this.memory.giveStaging(staging);
      }
    }
  }

  /** Resolves when everything encoded so far has run; rejects with the first error of any op since the last await. */
  async finish(): Promise<void> {
    this.errors.assertOpen();
    this.flush();
    await this.errors.settle(this.gpu.queue.onSubmittedWorkDone());
    await this.errors.check();
  }

  /**
   * GPU time of each dispatch that `fn` encodes, in order; needs the feature 'timestamp-query'. Slower than without, because every
   * dispatch gets a pass of its own: totals are to be taken without it. Throws what `fn` throws.
   */
  async profile(fn: () => unknown): Promise<DispatchTime[]> {
    if (!this.features.has('timestamp-query'))
      throw new Error(`profile: ${this.description} was opened without timestamps ('timestamp-query')`);
    if (this.encoder.profiler) throw new Error('profile: profiles do not nest');
    this.flush();
    const profiler = new Profiler(this.gpu);
    this.encoder.profiler = profiler;
    try {
      await fn();
      const stamps = this.submit('timestamps', (encoder) => profiler.resolve(encoder));
      return stamps ? profiler.times(await this.read(stamps, stamps.byteLength)) : [];
    } finally {
      this.flush();
      this.encoder.profiler = null;
      profiler.destroy();
    }
  }

  /** Encodes and submits by itself, behind everything encoded before. An error is thrown at the next await and begins with `what`. */
  submit<T>(what: string, encode: (encoder: GPUCommandEncoder) => T): T {
    this.flush();
    return this.errors.checked(what, () => {
      const encoder = this.gpu.createCommandEncoder();
      const result = encode(encoder);
      this.gpu.queue.submit([encoder.finish()]);
      return result;
    });
  }

  flush(): void {
    this.encoder.flush();
  }

  /** Frees the device. Without it a node process does not end. */
  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.memory.destroy();
    this.gpu.destroy();
    void this.errors.close().then(this.release);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
