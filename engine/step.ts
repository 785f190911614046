/**
 * The captured step: a whole training step as one list of operations (dispatches of kernels, copies and clears of memory).
 *
 *   record    the step's function is called once; what it would encode is written down instead (recorder.ts): every dispatch with its
 *             pipeline, bindings and grid. An allocation stands for the memory of a tensor that the step makes
 *   place     what nothing reads is left out; the allocations of the rest are laid into a few large buffers, the arenas, so that no
 *             two overlap that are alive together, and no dispatch reads and writes one buffer (arena.ts, placement.ts)
 *   warm up   each pipeline runs once on nothing, so that the driver compiles it (warm-up.ts)
 *   replay    a run writes its inputs, then encodes the list from first to last and submits it (replay.ts)
 *
 * Only data change from run to run: inputs, and what the host computes from them in `hostTensor` (tensor.ts).
 */
import type { Device } from './device.ts';
import { Allocation } from './recorder.ts';
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
  /** In error messages and labels; default: 'step'. */
  name?: string;
  /** A submit takes at most this many, for drivers whose watchdog ends long ones; default: all in one. */
  dispatchesPerSubmit?: number;
  /** Told of each pipeline that is ready before the first run: drivers take up to seconds for one. */
  onPipeline?: OnPipeline;
}

type Tensors = Readonly<Record<string, Tensor>>;

/** The numbers of each input, as they are or in a record with their shape. */
type Numbers<Name extends string> = Readonly<Record<Name, TensorData | { readonly data: TensorData }>>;

/**
 * Captures `fn` at the first run.
 *
 * `fn` gets a tensor for each of `inputs` and returns a record of tensors. It is synchronous, may hold whatever a device.step does
 * (forward, backward, an optimizer), and is called once: numbers that it takes from the host by itself (`tensor`, op parameters) stay
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
  private readonly perSubmit: number;
  private readonly onPipeline: OnPipeline | undefined;
  private readonly inputs: Readonly<Record<Name, Tensor>>;
  /** What the first run made; `homes` are the buffers of outputs, which later operations of a run must not overwrite. */
  private captured: { replay: Replay; outputs: Outputs; homes: ReadonlyMap<Allocation, GPUBuffer> } | null = null;
  /** The compilation of the pipelines, which several callers may wait for. */
  private preparing: Promise<void> | null = null;
  private ready = false;
  private hostMilliseconds = 0;
  private disposed = false;

  constructor(
    private readonly device: Device,
    inputs: Readonly<Record<Name, StepInput>>,
    private readonly fn: (inputs: Readonly<Record<Name, Tensor>>) => Outputs,
    { name = 'step', dispatchesPerSubmit = Number.MAX_SAFE_INTEGER, onPipeline }: CaptureOptions,
  ) {
    if (!Number.isInteger(dispatchesPerSubmit) || dispatchesPerSubmit < 1)
      throw new RangeError(`captureStep: dispatchesPerSubmit is ${dispatchesPerSubmit}; expected an integer from 1`);
    this.perSubmit = device.options.debug ? 1 : dispatchesPerSubmit;
    this.name = `step '${name}'`;
    this.onPipeline = onPipeline;
    this.inputs = mapRecord(inputs, ({ shape, dtype = 'f32' }: StepInput, input) => {
      const made = persistentTensor(device, shape, dtype, input);
      // WebGPU's buffers begin as zeros, and so does what the host knows of them.
      made.lastWritten = hostCopy(new Float32Array(elementCount(shape)), dtype);
      return made;
    });
  }

  /**
   * One step on `data`: the numbers of every input, as many as its shape holds.
   *
   * Resolves as soon as the step is submitted, to the same tensors each time: they are those of `fn`, live until this step is
   * disposed of, and the next run overwrites their numbers; a `read()` that was called before gives the earlier ones. Rejects with
   * what WebGPU refused, which names this step and its dispatches.
   */
  async run(data: Numbers<Name>): Promise<Outputs> {
    if (!this.ready) await this.prepare(data);
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
   * Captures the step and has its pipelines compiled, so that the first run is as fast as the others. `data` is as for that run.
   * Running does it too.
   */
  async prepare(data: Numbers<Name>): Promise<void> {
    this.assertUsable();
    if (!this.captured) {
      this.write(data);
      this.captured = this.capture();
      this.preparing = warmUp(this.device, this.captured.replay.operations, this.onPipeline);
    }
    await this.preparing;
    this.ready = true;
  }

  /** The operations of a run, in order. JSON can hold it. Throws before the first run. */
  list(): ListedOperation[] {
    return this.afterCapture('list').replay.list();
  }

  /** The memory, time and dispatches of a run. Throws before the first. */
  stats(): StepStatistics {
    return { ...this.afterCapture('stats').replay.statistics(), hostMilliseconds: this.hostMilliseconds };
  }

  /** Frees inputs, outputs and arenas. */
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
    if (this.device.inStep) throw new Error(`${this.name}: runs outside of device.step, which it is itself`);
  }

  /** Writes the numbers of every input, once all are known to fit. */
  private write(given: Numbers<Name>): void {
    const data: Record<string, TensorData> = mapRecord(given, (own) => (own && 'data' in own ? own.data : own));
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

  /** Records the function on the inputs as they are, and gives what it returns a home outside of the arenas. */
  private capture(): NonNullable<typeof this.captured> {
    const { device } = this;
    const { result, recorder } = device.record(this.name, () => this.checkedOutputs(this.fn(this.inputs)));
    const homes = new Map<Allocation, GPUBuffer>();
    const homeOf = (buffer: GPUBuffer, name: string) => {
      const memory = recorder.memory(buffer);
      if (!(memory instanceof Allocation)) return buffer; // it outlives the step already
      const home = homes.get(memory) ?? device.memory.persistent(memory.bytes, `${this.name}, ${name}`);
      homes.set(memory, home);
      return home;
    };
    const outputs = mapRecord(result, ({ shape, dtype, buffer, offset }: Tensor, name) => {
      return new Tensor(device, shape, dtype, homeOf(buffer, name), offset, name, 'persistent', false);
    }) as unknown as Outputs;
    // The activations of eager steps make room for the arenas.
    device.memory.trim();
    return { replay: new Replay(device, recorder, homes, this.perSubmit), outputs, homes };
  }

  private checkedOutputs(result: unknown): Outputs {
    if (result instanceof Promise) result.catch(() => {}); // what it throws comes from being in no step any more
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
