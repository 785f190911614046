/** Parameters in flat arenas: norms, clipping, AdamW and zeroing are a few dispatches, not one for each tensor. */
import type { Device } from './device.ts';
import { InputError } from './files/errors.ts';
import { ALIGNMENT, ARENA_BYTES, type BufferRange, roundUp } from './memory.ts';
import { bytesPerElement, elementCount, formatShape, type Shape, Tensor, type TensorData } from './tensor.ts';

export interface ParameterSpecification {
  readonly name: string;
  readonly shape: Shape;
  /** Parameters of one group are clipped by one norm. */
  readonly group: string;
  /** A factor on the learning rate, from 0; default 1. */
  readonly rate?: number;
  /** A frozen parameter wants no gradient, and an optimizer leaves it as it is; default false. */
  readonly frozen?: boolean;
}

/** One run of parameters of one group and rate, contiguous in one buffer; what lies between them is zero. */
export interface Arena {
  readonly group: string;
  /** The factor on the learning rate; null where the parameters are frozen. */
  readonly rate: number | null;
  readonly values: BufferRange;
  /** Zero until backward adds; made on first use. */
  gradients(): BufferRange;
  readonly tensors: readonly Tensor[];
}

/** Named parameters of a model, f32, zero until written. */
export class ParameterSet implements Disposable {
  /** The arenas of a group follow each other. */
  readonly arenas: readonly Arena[];
  private readonly byName = new Map<string, Tensor>();
  private readonly buffers: GPUBuffer[] = [];

  constructor(
    readonly device: Device,
    specifications: readonly ParameterSpecification[],
  ) {
    const runs = unique(specifications.map(({ group }) => group)).flatMap((group) => {
      const own = specifications.filter((candidate) => candidate.group === group);
      return unique(own.map(rateOf)).flatMap((rate) =>
        runsOf(
          own.filter((candidate) => rateOf(candidate) === rate),
          device.limits.maxStorageBufferBindingSize,
        ),
      );
    });
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

  /** Forgets all gradients: one clear for each arena that is not frozen. */
  zeroGradients(): void {
    for (const { rate, gradients, tensors } of this.arenas) {
      if (rate === null) continue;
      this.device.clear(gradients());
      for (const parameter of tensors) parameter.grad ??= parameter.gradientStorage!();
    }
  }

  dispose(): void {
    for (const buffer of this.buffers) this.device.memory.free(buffer);
    this.buffers.length = 0;
    for (const parameter of this) parameter.expire();
  }
  readonly [Symbol.dispose] = this.dispose;

  private makeArena(run: readonly ParameterSpecification[]): Arena {
    const { group } = run[0];
    const rate = rateOf(run[0]);
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
      if (rate !== null) {
        parameter.wantsGradient = true;
        parameter.gradientStorage = () => over(gradientRange());
      }
      this.byName.set(name, parameter);
      offset += alignedBytes(shape);
      return parameter;
    });
    return { group, rate, values, gradients: gradientRange, tensors };
  }

  private allocate(byteLength: number, label: string): BufferRange {
    const buffer = this.device.memory.persistent(byteLength, label);
    this.buffers.push(buffer);
    return { buffer, offset: 0, byteLength };
  }
}

/** The factor on the learning rate of a parameter; null where it is frozen. */
function rateOf({ name, rate = 1, frozen }: ParameterSpecification): number | null {
  if (!(rate >= 0 && Number.isFinite(Math.fround(rate))))
    throw new InputError(`parameter '${name}': rate ${rate}; expected a number from 0`);
  return frozen ? null : rate;
}

/** Cuts a list into runs that an arena holds, a larger parameter into a run of its own; `most` is the device's limit for one. */
function runsOf(specifications: readonly ParameterSpecification[], most: number): ParameterSpecification[][] {
  const runs: ParameterSpecification[][] = [];
  let used = ARENA_BYTES;
  for (const specification of specifications) {
    const bytes = alignedBytes(specification.shape);
    if (bytes > most)
      throw new InputError(
        `parameter '${specification.name}' ${formatShape(specification.shape)} has ${bytes} bytes; on this device one parameter holds at most ${most}`,
      );
    if (used + bytes > ARENA_BYTES) {
      runs.push([]);
      used = 0;
    }
    runs[runs.length - 1].push(specification);
    used += bytes;
  }
  return runs;
}

function unique<T>(values: readonly T[]): T[] {
  return [...new Set(values)];
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
