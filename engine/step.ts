/**
 * The captured step: a whole training step as one list of operations (dispatches of kernels, copies and clears of memory).
 *
 *   record    the step's function is called once; its operations do not run but are written down (recorder.ts), every dispatch with its
 *             pipeline, bindings and grid. A tensor that the step makes gets an `Allocation`, a number of bytes without a place
 *   place     operations are dropped if nothing reads their results. The allocations of the others get places in a few large buffers,
 *             the arenas: two that are alive together do not overlap, and no dispatch reads and writes one buffer (placement.ts)
 *   warm up   each pipeline runs once on nothing, so that the driver compiles it (warm-up.ts)
 *   replay    every run writes the inputs, encodes the list from first to last, and submits it, in parts if it is long (replay.ts)
 *
 * From run to run only data change: the inputs, and numbers that the host computes from them (`hostTensor`, tensor.ts).
 */
import type { Device } from './device.ts';
import { Allocation, type Recorder } from './recorder.ts';
import { type ListedOperation, Replay, type StepStatistics } from './replay.ts';
import {
  type DataType,
  elementCount,
  formatShape,
  hostCopy,
  persistentTensor,
  type Shape,
  Tensor,
  type TensorData,
} from './tensor.ts';
import { type OnPipeline, warmUp } from './warm-up.ts';

export interface StepInput {
  readonly shape: Shape;
  /** Default: f32. */
  readonly dtype?: DataType;
}

export interface CaptureOptions {
  /** The step's name in error messages and labels; default: 'step'. */
  name?: string;
  /** Called for each pipeline that is compiled before the first run: drivers take up to seconds for one. */
  onPipeline?: OnPipeline;
}

type Tensors = Readonly<Record<string, Tensor>>;

/** The numbers of each input, bare or as the `data` of a record. */
type Numbers<Name extends string> = Readonly<Record<Name, TensorData | { readonly data: TensorData }>>;

/**
 * Makes a step that captures `fn` at its first run.
 *
 * `fn` gets a tensor for each of `inputs` and returns a record of tensors. It is synchronous, may do all that the function of a
 * device.step does (forward, backward, an optimizer), and is called once: numbers of the host that do not come through `inputs` stay
 * those of the first run.
 */
export function captureStep<Name extends string, Outputs extends Tensors>(
  device: Device,
  inputs: Readonly<Record<Name, StepInput>>,
  fn: (inputs: Readonly<Record<Name, Tensor>>) => Outputs,
  options: CaptureOptions = {},
): CapturedStep<Name, Outputs> {
  return new CapturedStep(device, inputs, fn, options);
}

export class CapturedStep<Name extends string, Outputs extends Tensors> implements Disposable {
  private readonly name: string;
  private readonly onPipeline: OnPipeline | undefined;
  private readonly inputs: Readonly<Record<Name, Tensor>>;
  /** Made by the first run. `homes` has a buffer for each allocation of an output: in an arena, later operations would overwrite it. */
  private captured: { replay: Replay; outputs: Outputs; homes: ReadonlyMap<Allocation, GPUBuffer> } | null = null;
  /** The compilation of the pipelines; several callers may wait for it. */
  private preparing: Promise<void> | null = null;
  private compiled = false;
  private hostMilliseconds = 0;
  private disposed = false;

  constructor(
    private readonly device: Device,
    inputs: Readonly<Record<Name, StepInput>>,
    private readonly fn: (inputs: Readonly<Record<Name, Tensor>>) => Outputs,
    { name = 'step', onPipeline }: CaptureOptions,
  ) {
    this.name = `step '${name}'`;
    this.onPipeline = onPipeline;
    this.inputs = mapRecord(inputs, ({ shape, dtype = 'f32' }: StepInput, input) => {
      const made = persistentTensor(device, shape, dtype, input);
      // A buffer of WebGPU begins as zeros, and so does the host's copy of an input.
      made.lastWritten = hostCopy(new Float32Array(elementCount(shape)), dtype);
      return made;
    });
  }

  /**
   * One step on `data`: the numbers of every input, as many as its shape holds.
   *
   * Resolves to the outputs of `fn` as soon as the step is submitted. They are the same tensors in every run and live until this step
   * is disposed of; the next run overwrites their numbers, but a `read()` called before it gives the earlier ones. Rejects with an
   * error of WebGPU's, which names this step and its dispatches.
   */
  async run(data: Numbers<Name>): Promise<Outputs> {
    if (!this.compiled) await this.prepare(data);
    this.assertUsable();
    const start = performance.now();
    this.write(data);
    const { replay, outputs } = this.captured!;
    replay.run();
    this.hostMilliseconds = performance.now() - start;
    await this.device.errors.check();
    return outputs;
  }

  /**
   * Captures the step on `data`, as a run takes it, and compiles the pipelines, so that the first run is as fast as the others. The
   * first run does this itself if nobody has.
   */
  async prepare(data: Numbers<Name>): Promise<void> {
    this.capture(data);
    this.preparing ??= warmUp(this.device, this.captured!.replay.operations, this.onPipeline);
    await this.preparing;
    this.compiled = true;
  }

  /** Captures the step on `data`, as a run takes it, and compiles nothing: enough for `list` and `stats`. */
  capture(data: Numbers<Name>): void {
    this.assertUsable();
    if (this.captured) return;
    this.write(data);
    this.captured = this.recorded();
  }

  /** The operations of a run in order, as plain objects that JSON can hold. Throws before the first run. */
  list(): ListedOperation[] {
    return this.afterCapture('list').replay.list();
  }

  /** The memory, time and dispatches of a run. Throws before the first run. */
  stats(): StepStatistics {
    return { ...this.afterCapture('stats').replay.statistics(), hostMilliseconds: this.hostMilliseconds };
  }

  dispose(): void {
    if (this.disposed) return;
    this.disposed = true;
    for (const input of Object.values<Tensor>(this.inputs)) input.dispose();
    if (!this.captured) return;
    const { replay, outputs, homes } = this.captured;
    for (const output of Object.values(outputs)) output.expire();
    for (const home of homes.values()) this.device.memory.free(home);
    replay.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  private assertUsable(): void {
    if (this.disposed) throw new Error(`${this.name} was disposed of`);
    if (this.device.inStep) throw new Error(`${this.name}: runs outside of device.step: it is a step itself`);
  }

  /** Writes the numbers of every input, after a check that all of them fit. */
  private write(given: Numbers<Name>): void {
    const data: Record<string, TensorData> = mapRecord(given, (it) => (it && 'data' in it ? it.data : it));
    const known = Object.keys(this.inputs);
    const unknown = Object.keys(data).find((name) => !known.includes(name));
    if (unknown !== undefined) throw new Error(`${this.name}: no input '${unknown}'; it has ${known.join(', ')}`);
    const entries = Object.entries<Tensor>(this.inputs);
    for (const [name, { shape, size }] of entries) {
      if (data[name] === undefined) throw new Error(`${this.name}: input '${name}' is missing`);
      if (data[name].length !== size)
        throw new Error(
          `${this.name}: input '${name}' has shape ${formatShape([data[name].length])}; expected the ${size} numbers of ${formatShape(shape)}`,
        );
    }
    for (const [name, input] of entries) input.write(data[name], 'borrow');
  }

  /** Records the function on the inputs as they are, and gives each output a buffer outside of the arenas. */
  private recorded(): NonNullable<typeof this.captured> {
    const { device } = this;
    const { result, recorder } = device.record(this.name, () => this.checkedOutputs(this.fn(this.inputs)));
    return device.memory.allOrNothing(() => this.placed(result, recorder));
  }

  private placed(result: Outputs, recorder: Recorder): NonNullable<typeof this.captured> {
    const { device } = this;
    const homes = new Map<Allocation, GPUBuffer>();
    const homeOf = (buffer: GPUBuffer, name: string) => {
      const memory = recorder.memory(buffer);
      if (!(memory instanceof Allocation)) return buffer; // a parameter, or another tensor that outlives the step
      const home = homes.get(memory) ?? device.memory.persistent(memory.bytes, `${this.name}, ${name}`);
      homes.set(memory, home);
      return home;
    };
    const outputs = mapRecord(result, ({ shape, dtype, buffer, offset }: Tensor, name) => {
      return new Tensor(device, shape, dtype, homeOf(buffer, name), offset, name, 'persistent', false);
    }) as unknown as Outputs;
    // The activations of eager steps make room for the arenas.
    device.memory.trim();
    return { replay: new Replay(device, recorder, homes), outputs, homes };
  }

  private checkedOutputs(result: unknown): Outputs {
    if (result instanceof Promise) result.catch(() => {}); // the error below stands for what it throws outside of the step
    const isRecord =
      typeof result === 'object' && result !== null && Object.getPrototypeOf(result) === Object.prototype;
    if (!isRecord || !Object.values(result).every((value) => value instanceof Tensor))
      throw new Error(`${this.name}: its function returns a record of tensors, and no promise`);
    for (const tensor of Object.values<Tensor>(result as Tensors)) tensor.assertAlive(this.name);
    return result as Outputs;
  }

  private afterCapture(what: string): NonNullable<typeof this.captured> {
    if (this.disposed) throw new Error(`${this.name} was disposed of`);
    if (!this.captured) throw new Error(`${what}: ${this.name} has not run yet`);
    return this.captured;
  }
}

function mapRecord<Name extends string, From, To>(
  record: Readonly<Record<Name, From>>,
  change: (value: From, name: string) => To,
): Readonly<Record<Name, To>> {
  const entries = Object.entries<From>(record).map(([name, value]) => [name, change(value, name)]);
  return Object.fromEntries(entries) as Record<Name, To>;
}
