import type { Device } from './device.ts';
import { decodeBfloat16, decodeFloat16, encodeBfloat16, encodeFloat16 } from './files/half.ts';
import { ALIGNMENT, type BufferRange, roundUp } from './memory.ts';
import type { Holders, StepResource } from './running-step.ts';

/** Storage of the elements; f16 and bf16 lie packed, two to a word. Arithmetic is f32 always; u32 holds ids and masks. */
export type DataType = 'f32' | 'f16' | 'bf16' | 'u32';
export type FloatType = Exclude<DataType, 'u32'>;
export type Shape = readonly number[];
/** Numbers that lie on the host as well. */
export type HostData = Float32Array | Uint32Array;
export type TensorData = Float32Array | Uint32Array | Int32Array | readonly number[];

export const bytesPerElement: Readonly<Record<DataType, number>> = { f32: 4, u32: 4, f16: 2, bf16: 2 };

/** Product of the dimensions; 1 for a scalar, whose shape is []. */
export function elementCount(shape: Shape): number {
  return shape.reduce((product, size) => product * size, 1);
}

export function formatShape(shape: Shape): string {
  return `[${shape.join(', ')}]`;
}

/** Contiguous, row-major numbers in a buffer of the device. */
export class Tensor implements BufferRange, StepResource, Disposable {
  readonly byteLength: number;
  /** Whether backward computes a gradient for this tensor; set for parameters and for what is made from them. */
  wantsGradient = false;
  /** Made by an op that left a tape entry; a tensor that wants a gradient and is not is a leaf, and receives `grad`. */
  recorded = false;
  /** The sum of gradients that backward added; null before the first. Leaves only. */
  grad: Tensor | null = null;
  /** For a leaf: where its gradient goes, made on first use. */
  gradientStorage: (() => Tensor) | null = null;
  /** The numbers of `hostData`, without asking whether they will be the same when a captured step runs again. */
  lastWritten: HostData | null = null;
  /** For a parameter that is alone in its arena: frees the arena. */
  disposeArena: (() => void) | null = null;
  private state: 'step' | 'owned' | 'gone';
  /** Tensors that free the buffer together; null for a view of what others own. */
  private holders: Holders | null;

  constructor(
    readonly device: Device,
    readonly shape: Shape,
    readonly dtype: DataType,
    private readonly memory: GPUBuffer,
    /** Bytes, a multiple of 256. */
    readonly offset: number,
    /** The parameter's name, or the op that made the tensor. */
    readonly name: string,
    lifetime: 'step' | 'persistent',
    ownsBuffer = true,
  ) {
    // Whole groups of four elements: what a kernel reads beyond its binding is lost on some adapters.
    this.byteLength = roundUp(Math.max(elementCount(shape) * bytesPerElement[dtype], 16), 16);
    this.state = lifetime === 'step' ? 'step' : 'owned';
    this.holders = ownsBuffer ? { count: 1, release: (own) => device.memory.free(own) } : null;
  }

  get buffer(): GPUBuffer {
    return this.memory;
  }

  /** The tensors in which its rows lie, each in a buffer of its own: this one alone, but for a `SplitTensor`. */
  get pieces(): readonly Tensor[] {
    return [this];
  }

  get size(): number {
    return elementCount(this.shape);
  }

  /** Elements of the buffer before the first: the same for a parameter and its gradient, whose bytes differ. */
  get firstElement(): number {
    return this.offset / bytesPerElement[this.dtype];
  }

  /**
   * The numbers that the host wrote, where it did: masks are read there too, to plan work. u32 tensors keep them, and f32 ones that
   * `tensor` made. Throws while a step is captured, unless they are the same in every run of it: see `hostTensor`.
   */
  get hostData(): HostData | null {
    if (this.lastWritten) this.device.recorder?.assertConstant(this);
    return this.lastWritten;
  }

  get alive(): boolean {
    return this.state !== 'gone';
  }

  assertAlive(op: string): void {
    if (this.state === 'gone')
      throw new Error(
        `${op}: the tensor made by '${this.name}' ${formatShape(this.shape)} is gone: its step has ended or it was disposed; return it from device.step to keep it`,
      );
  }

  /** The numbers on the host, when everything encoded so far has run; f16 and bf16 arrive as f32. */
  read(): Promise<Float32Array<ArrayBuffer>>;
  read(as: 'u32'): Promise<Uint32Array<ArrayBuffer>>;
  read(as?: 'u32'): Promise<Float32Array<ArrayBuffer> | Uint32Array<ArrayBuffer>> {
    const { recorder } = this.device;
    // At once, and not as a rejection: the step that is captured does not wait for anything.
    if (recorder)
      throw new Error(
        `read: '${this.name}' is read while ${recorder.name} is captured; return it, and read what run gives`,
      );
    return this.readNumbers(as);
  }

  protected async readNumbers(as?: 'u32'): Promise<Float32Array<ArrayBuffer> | Uint32Array<ArrayBuffer>> {
    this.assertAlive('read');
    if ((as === 'u32') !== (this.dtype === 'u32'))
      throw new Error(
        `read: '${this.name}' is ${this.dtype}; u32 tensors are read with read('u32'), others with read()`,
      );
    const data = await this.device.read(this, this.size * bytesPerElement[this.dtype]);
    if (this.dtype === 'u32') return new Uint32Array(data);
    if (this.dtype === 'f32') return new Float32Array(data);
    const halves = new Uint16Array(data);
    return this.dtype === 'f16' ? decodeFloat16(halves) : decodeBfloat16(halves);
  }

  /**
   * Overwrites the numbers from the host; only tensors that outlive steps. What the host keeps of them is a copy, unless `data` is lent
   * until the next write.
   */
  write(data: TensorData, keep: 'copy' | 'borrow' = 'copy'): void {
    this.assertAlive('write');
    if (this.state !== 'owned') throw new Error(`write: '${this.name}' belongs to a step`);
    const encoded = encode('write', data, this.shape, this.dtype);
    this.device.write(this, encoded);
    if (this.dtype !== 'u32' && !this.lastWritten) return;
    const own = this.dtype === 'u32' ? Uint32Array : Float32Array;
    this.lastWritten = keep === 'borrow' && data instanceof own ? data : hostCopy(data, this.dtype);
  }

  expire(): void {
    this.state = 'gone';
  }

  keep(holders: Holders): void {
    this.state = 'owned';
    this.holders = holders;
    // Its tape has ended with the step.
    this.wantsGradient = false;
    this.recorded = false;
  }

  /** Frees the memory of a tensor that outlived its step. */
  dispose(): void {
    if (this.state === 'step') throw new Error(`dispose: '${this.name}' belongs to a step, which frees it`);
    if (this.state === 'owned' && this.disposeArena) this.disposeArena();
    else if (this.state === 'owned' && this.holders) {
      this.holders.count -= 1;
      if (this.holders.count === 0) this.holders.release(this.buffer);
    }
    this.state = 'gone';
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/**
 * The numbers of several tensors, read with one wait. Unlike `read` it refuses neither while a step is captured nor another type than f32:
 * the caller sees to both.
 */
export async function readTogether(tensors: readonly Tensor[]): Promise<Float32Array<ArrayBuffer>[]> {
  for (const tensor of tensors) tensor.assertAlive('read');
  const read = await tensors[0].device.readAll(
    tensors,
    tensors.map(({ size }) => bytesPerElement.f32 * size),
  );
  return read.map((bytes) => new Float32Array(bytes));
}

/**
 * A tensor of given numbers: inside a step it goes with the step, outside it lives until disposed.
 *
 * `shape` must hold exactly as many elements as `data`. Float data is rounded to nearest even for f16 and bf16.
 */
export function tensor(device: Device, data: TensorData, shape: Shape, options: { dtype?: DataType } = {}): Tensor {
  const dtype = options.dtype ?? 'f32';
  const bytes = encode('tensor', data, shape, dtype);
  const target = device.inStep
    ? emptyTensor(device, shape, dtype, 'tensor')
    : persistentTensor(device, shape, dtype, 'tensor');
  device.write(target, bytes);
  target.lastWritten = hostCopy(data, dtype);
  return target;
}

/**
 * A tensor of numbers that the host computes from those of `sources`: `compute` gets what the host wrote to each of them.
 *
 * In a captured step they are computed and written anew before every run, which `tensor` would not do: it writes the numbers of the
 * first run for ever.
 */
export function hostTensor(
  device: Device,
  sources: readonly Tensor[],
  compute: (...numbers: HostData[]) => TensorData,
  shape: Shape,
  options: { dtype?: DataType } = {},
): Tensor {
  const computed = () =>
    compute(
      ...sources.map(({ lastWritten, name }) => {
        if (!lastWritten) throw new Error(`hostTensor: the host did not write the numbers of '${name}'`);
        return lastWritten;
      }),
    );
  const made = tensor(device, computed(), shape, options);
  device.recorder?.hostComputes(made.buffer, (place) => {
    const data = computed();
    device.write(place, encode('hostTensor', data, shape, made.dtype));
    made.lastWritten = hostCopy(data, made.dtype);
  });
  return made;
}

/** A tensor of the current step whose elements are undefined: an op's output, which its kernel fills. */
export function emptyTensor(device: Device, shape: Shape, dtype: DataType, op: string): Tensor {
  const step = device.currentStep(op);
  const buffer = step.take(elementCount(shape) * bytesPerElement[dtype], op);
  return adopt(new Tensor(device, shape, dtype, buffer, 0, op, 'step'));
}

export function zeroTensor(device: Device, shape: Shape, dtype: DataType, op: string): Tensor {
  const zeros = emptyTensor(device, shape, dtype, op);
  device.clear(zeros);
  return zeros;
}

/** Zeros that live until disposed. */
export function persistentTensor(device: Device, shape: Shape, dtype: DataType, name: string): Tensor {
  const buffer = device.memory.persistent(elementCount(shape) * bytesPerElement[dtype], name);
  return new Tensor(device, shape, dtype, buffer, 0, name, 'persistent');
}

/** Another tensor over the same memory; `byteOffset` counts from the start of `source` and is a multiple of 256. */
export function viewTensor(source: Tensor, shape: Shape, byteOffset: number, name: string): Tensor {
  source.assertAlive(name);
  if (byteOffset % ALIGNMENT !== 0)
    throw new Error(`${name}: a view at byte ${byteOffset}; offsets are multiples of ${ALIGNMENT}`);
  const { device, dtype, buffer } = source;
  const lifetime = device.inStep && device.currentStep(name).holds(buffer) ? 'step' : 'persistent';
  return adopt(new Tensor(device, shape, dtype, buffer, source.offset + byteOffset, name, lifetime, false));
}

function adopt(made: Tensor): Tensor {
  if (made.device.inStep) made.device.currentStep(made.name).adopt(made);
  return made;
}

/** f32 and u32 only: rounded halves are not what was given. */
export function hostCopy(data: TensorData, dtype: DataType): HostData | null {
  if (dtype === 'u32') return Uint32Array.from(data);
  return dtype === 'f32' ? Float32Array.from(data) : null;
}

function encode(op: string, data: TensorData, shape: Shape, dtype: DataType): ArrayBufferView<ArrayBuffer> {
  if (!shape.every((size) => Number.isInteger(size) && size >= 0))
    throw new Error(`${op}: shape ${formatShape(shape)}: dimensions are integers from 0`);
  if (data.length !== elementCount(shape))
    throw new Error(
      `${op}: ${data.length} numbers for shape ${formatShape(shape)}, which holds ${elementCount(shape)}`,
    );
  if (dtype === 'u32') return data instanceof Uint32Array ? (data as Uint32Array<ArrayBuffer>) : Uint32Array.from(data);
  const floats = data instanceof Float32Array ? (data as Float32Array<ArrayBuffer>) : Float32Array.from(data);
  if (dtype === 'f32') return floats;
  return dtype === 'f16' ? encodeFloat16(floats) : encodeBfloat16(floats);
}
