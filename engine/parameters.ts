/**
 * Parameters in flat arenas: values, gradients and optimizer moments of many tensors lie in a few buffers, so that norms,
 * clipping, AdamW, zeroing and saving are a few dispatches over ranges instead of one for each tensor.
 */
import type { Device } from './device.ts';
import { ALIGNMENT, type BufferRange, roundUp } from './memory.ts';
import { gradientsAreZero } from './tape.ts';
import { bytesPerElement, elementCount, formatShape, type Shape, Tensor, type TensorData } from './tensor.ts';

/** Bytes of one arena: WebGPU's default limit for a storage binding. */
const ARENA_BYTES = 128 * 1024 * 1024;

export interface ParameterSpecification {
  readonly name: string;
  readonly shape: Shape;
  /** Parameters of one group are clipped by one norm. */
  readonly group: string;
}

/** One run of parameters of one group, contiguous in one buffer; what lies between them is zero. */
export interface Arena {
  readonly group: string;
  readonly values: BufferRange;
  /** Zero until backward adds; made on first use. */
  gradients(): BufferRange;
  readonly tensors: readonly Tensor[];
}

/** Named parameters of a model, f32, zero until written. */
export class ParameterSet implements Disposable {
  readonly arenas: readonly Arena[];
  private readonly byName = new Map<string, Tensor>();
  private readonly buffers: GPUBuffer[] = [];

  constructor(
    readonly device: Device,
    specifications: readonly ParameterSpecification[],
  ) {
    const runs: ParameterSpecification[][] = [];
    for (const group of new Set(specifications.map((specification) => specification.group))) {
      let used = ARENA_BYTES;
      for (const specification of specifications.filter((candidate) => candidate.group === group)) {
        const bytes = alignedBytes(specification.shape);
        if (bytes > ARENA_BYTES)
          throw new Error(
            `parameter '${specification.name}' ${formatShape(specification.shape)} has ${bytes} bytes; one parameter holds at most ${ARENA_BYTES}`,
          );
        if (used + bytes > ARENA_BYTES) {
          runs.push([]);
          used = 0;
        }
        runs[runs.length - 1].push(specification);
        used += bytes;
      }
    }
    try {
      this.arenas = runs.map((run) => this.makeArena(run));
    } catch (error) {
      this.dispose();
      throw error;
    }
  }

  get(name: string): Tensor {
    const found = this.byName.get(name);
    if (!found) throw new Error(`no parameter is named '${name}'`);
    return found;
  }

  has(name: string): boolean {
    return this.byName.has(name);
  }

  [Symbol.iterator](): IterableIterator<Tensor> {
    return this.byName.values();
  }

  /** Forgets all gradients: one clear for each arena that wants any. */
  zeroGradients(): void {
    for (const arena of this.arenas)
      if (arena.tensors.some(({ wantsGradient }) => wantsGradient)) this.device.clear(arena.gradients());
    gradientsAreZero(this);
  }

  dispose(): void {
    for (const buffer of this.buffers) this.device.memory.free(buffer);
    this.buffers.length = 0;
    for (const parameter of this) parameter.expire();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  private makeArena(run: readonly ParameterSpecification[]): Arena {
    const { group } = run[0];
    const byteLength = run.reduce((sum, { shape }) => sum + alignedBytes(shape), 0);
    const values = this.allocate(byteLength, `parameters of ${group}`);
    let gradients: BufferRange | null = null;
    const gradientRange = () => {
      gradients ??= this.allocate(byteLength, `gradients of ${group}`);
      return gradients;
    };
    let offset = 0;
    const tensors = run.map(({ name, shape }) => {
      if (this.byName.has(name)) throw new Error(`two parameters are named '${name}'`);
      const at = offset;
      const over = (range: BufferRange) =>
        new Tensor(this.device, shape, 'f32', range.buffer, at, name, 'persistent', false);
      const parameter = over(values);
      parameter.wantsGradient = true;
      parameter.gradientStorage = () => over(gradientRange());
      this.byName.set(name, parameter);
      offset += alignedBytes(shape);
      return parameter;
    });
    return { group, values, gradients: gradientRange, tensors };
  }

  private allocate(byteLength: number, label: string): BufferRange {
    const buffer = this.device.memory.persistent(byteLength, label);
    this.buffers.push(buffer);
    return { buffer, offset: 0, byteLength };
  }
}

function alignedBytes(shape: Shape): number {
  return roundUp(Math.max(elementCount(shape) * bytesPerElement.f32, 16), ALIGNMENT);
}

/** A single parameter in an arena of its own; models make a ParameterSet. */
export function parameter(device: Device, data: TensorData, shape: Shape, options: { name?: string } = {}): Tensor {
  const name = options.name ?? 'parameter';
  const set = new ParameterSet(device, [{ name, shape, group: name }]);
  const made = set.get(name);
  made.disposeArena = () => set.dispose();
  made.write(data);
  return made;
}
