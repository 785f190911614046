/** Parameters in flat arenas: norms, clipping, AdamW and zeroing are a few dispatches, not one for each tensor. */
import type { Device } from './device.ts';
import { InputError } from './files/errors.ts';
import { ALIGNMENT, ARENA_BYTES, type BufferRange, roundUp } from './memory.ts';
import {
  bytesPerElement,
  elementCount,
  type FloatType,
  formatShape,
  type Shape,
  Tensor,
  type TensorData,
} from './tensor.ts';

export interface ParameterSpecification {
  readonly name: string;
  readonly shape: Shape;
  /** Parameters of one group are clipped by one norm. */
  readonly group: string;
  /** A factor on the learning rate, from 0; default 1. */
  readonly rate?: number;
  /** A frozen parameter wants no gradient, and an optimizer leaves it as it is; default false. */
  readonly frozen?: boolean;
  /** Storage of the values; default f32. Gradients are f32. */
  readonly dtype?: FloatType;
}

/** One run of parameters of one group, rate and storage, contiguous in one buffer; what lies between them is zero. */
export interface Arena {
  readonly group: string;
  /** The factor on the learning rate; null where the parameters are frozen. */
  readonly rate: number | null;
  readonly dtype: FloatType;
  /** The number of values, which is that of the gradients, with those between the parameters. */
  readonly elements: number;
  readonly values: BufferRange;
  /** Zero until backward adds; made on first use. */
  gradients(): BufferRange;
  readonly tensors: readonly Tensor[];
}

/** Named parameters of a model, zero until written. */
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
      const kind = (candidate: ParameterSpecification) => `${rateOf(candidate)} ${storageOf(candidate)}`;
      return unique(own.map(kind)).flatMap((kindOfRun) =>
        runsOf(
          own.filter((candidate) => kind(candidate) === kindOfRun),
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

  /** Bytes of all values, and of the gradients of those that are not frozen. */
  get bytes(): { values: number; gradients: number } {
    const sum = (bytesOf: (arena: Arena) => number) => this.arenas.reduce((total, arena) => total + bytesOf(arena), 0);
    return {
      values: sum(({ values }) => values.byteLength),
      gradients: sum(({ rate, elements }) => (rate === null ? 0 : elements * bytesPerElement.f32)),
    };
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
    const dtype = storageOf(run[0]);
    const elements = run.reduce((sum, specification) => sum + alignedElements(specification), 0);
    const values = this.allocate(elements * bytesPerElement[dtype], `parameters of ${group}`);
    let gradients: BufferRange | null = null;
    const gradientRange = () => {
      gradients ??= this.allocate(elements * bytesPerElement.f32, `gradients of ${group}`);
      return gradients;
    };
    let first = 0;
    const tensors = run.map((specification) => {
      const { name, shape } = specification;
      if (this.byName.has(name)) throw new Error(`two parameters are named '${name}'`);
      const at = first;
      const over = ({ buffer }: BufferRange, storage: FloatType) =>
        new Tensor(this.device, shape, storage, buffer, at * bytesPerElement[storage], name, 'persistent', false);
      const parameter = over(values, dtype);
      if (rate !== null) {
        parameter.wantsGradient = true;
        parameter.gradientStorage = () => over(gradientRange(), 'f32');
      }
      this.byName.set(name, parameter);
      first += alignedElements(specification);
      return parameter;
    });
    return { group, rate, dtype, elements, values, gradients: gradientRange, tensors };
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
    // Gradients are the larger of the two where there are any.
    const bytes =
      alignedElements(specification) * bytesPerElement[specification.frozen ? storageOf(specification) : 'f32'];
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

const storageOf = ({ dtype = 'f32' }: ParameterSpecification): FloatType => dtype;

/** The elements from a parameter's first to where the next may begin: whole multiples of 256 bytes of values and of gradients. */
function alignedElements(specification: ParameterSpecification): number {
  return roundUp(Math.max(elementCount(specification.shape), 4), ALIGNMENT / bytesPerElement[storageOf(specification)]);
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
