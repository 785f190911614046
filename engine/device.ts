import { isSoftware } from './adapters/describe.mjs';
import { AsyncErrors } from './async-errors.ts';
import type { Binding, CommandSink, Dispatch } from './commands.ts';
import {
  type DeviceOptions,
  describeAdapter,
  type OpenedAdapter,
  type SubgroupMatrices,
  subgroupMatrixFeature,
} from './device-options.ts';
import { Encoder } from './encoder.ts';
import { InputError } from './files/errors.ts';
import { type Kernel, uniformData } from './kernel.ts';
import type { MachineMemory } from './machine-memory.ts';
import { type BufferRange, Memory } from './memory.ts';
import { Pace } from './pace.ts';
import { Pipelines } from './pipelines.ts';
import { type DispatchTime, profiled } from './profile.ts';
import { readBack } from './read-back.ts';
import { type Phase, Recorder } from './recorder.ts';
import { runThenEnd, Step } from './running-step.ts';

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
  readonly pace: Pace;
  /** These begin anew when it is opened again. */
  gpu!: GPUDevice;
  adapter!: GPUAdapter;
  immediateBytes!: number;
  memory!: Memory;
  errors!: AsyncErrors;
  pipelines!: Pipelines;
  encoder!: Encoder;
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
  private closed_ = false;

  constructor(
    opened: OpenedAdapter,
    readonly options: DeviceOptions,
    /** How to open the adapter again, and the memory of the machine, if that is known. */
    private readonly origin: { open?: () => Promise<OpenedAdapter>; machine?: MachineMemory | null } = {},
  ) {
    const { gpu, adapter } = opened;
    this.limits = gpu.limits;
    this.features = new Set(gpu.features);
    this.description = describeAdapter(adapter);
    this.software = isSoftware(adapter.info);
    this.subgroupSizes = [adapter.info.subgroupMinSize, adapter.info.subgroupMaxSize];
    const { subgroupMatrixConfigs = [] } = adapter.info as { subgroupMatrixConfigs?: Iterable<SubgroupMatrices> };
    this.subgroupMatrices = this.features.has(subgroupMatrixFeature) ? [...subgroupMatrixConfigs] : [];
    this.pace = new Pace(this.software, options.debug === true);
    this.begin(opened);
  }

  private begin({ gpu, adapter, immediateBytes }: OpenedAdapter): void {
    const debug = this.options.debug === true;
    Object.assign(this, { gpu, adapter, immediateBytes, step_: null, recorder: null });
    const errors = new AsyncErrors(gpu, this.software, () => this.memory.runsOut());
    this.errors = errors;
    this.pipelines = new Pipelines(gpu, errors, immediateBytes, this.subgroupSizes, debug);
    if (this.software) this.pipelines.atOnce = 1; // they compile in the thread that submits the first dispatch
    this.memory = new Memory(
      gpu,
      (...given) => errors.expectNoError(...given),
      () => this.flush(),
      this.software ? this.origin.machine : null,
    );
    this.encoder = new Encoder(gpu, this.memory, errors, this, this.pace, debug);
  }

  /**
   * Opens the adapter again, after it was lost. Tensors, parameters and captured steps of before are gone, and may still be disposed of;
   * the chosen kernel variants stay.
   *
   * @throws InputError if it does not open, or if another opens in its place
   */
  async reopen(): Promise<void> {
    const { open } = this.origin;
    if (this.closed_ || !open) throw new Error('a device that is closed, or that openDevice did not open, stays so');
    this.leave();
    const opened = await open();
    const found = describeAdapter(opened.adapter);
    if (found === this.description && !this.closed_) return this.begin(opened);
    opened.gpu.destroy();
    throw new InputError(
      `the device was lost: ${found} opened in place of ${this.description}, and rounds differently`,
    );
  }

  get closed(): boolean {
    return this.closed_;
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
      this.memory.trimIfFull();
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
  readAll(ranges: readonly BufferRange[], bytes: readonly number[]): Promise<ArrayBuffer[]> {
    return readBack(this, ranges, bytes);
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
  profile(fn: () => unknown): Promise<DispatchTime[]> {
    return profiled(this, fn);
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
    if (this.closed_) return;
    this.closed_ = true;
    this.leave();
  }

  private leave(): void {
    this.memory.destroy();
    this.gpu.destroy();
    this.errors.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
