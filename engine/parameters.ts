/** Parameters in flat arenas: norms, clipping, AdamW and zeroing are a few dispatches, not one for each tensor. */
import type { Device } from './device.ts';
import { InputError } from './files/errors.ts';
import { ALIGNMENT, type BufferRange, roundUp } from './memory.ts';
import { joinParameter } from './split-tensor.ts';
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
  /** It may lie in pieces of its rows where one binding does not hold it; only some ops take it then: see split-tensor.ts. Default false. */
  readonly splits?: boolean;
}

/** A parameter, or some of its rows. */
interface Piece {
  readonly specification: ParameterSpecification;
  readonly shape: Shape;
}

export interface ParameterSetOptions {
  /** A parameter that `splits` lies in pieces of at most so many bytes where it has more; default: those of a binding of the device. */
  readonly pieceBytes?: number;
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
    { pieceBytes }: ParameterSetOptions = {},
  ) {
    const double = groupBy(specifications, ({ name }) => name).find(({ length }) => length > 1);
    if (double) throw new Error(`two parameters are named '${double[0].name}'`);
    const most = device.limits.maxStorageBufferBindingSize;
    const runs = groupBy(specifications, ({ group }) => group)
      .flatMap((group) => groupBy(group, (own) => `${rateOf(own)} ${storageOf(own)}`))
      .flatMap((alike) =>
        runsOf(
          alike.map((own) => piecesOf(own, most, pieceBytes)),
          most,
        ),
      );
    try {
      this.arenas = runs.map((run) => this.makeArena(run));
      const tensors = this.arenas.flatMap((arena) => arena.tensors);
      for (const pieces of groupBy(tensors, ({ name }) => name)) this.byName.set(pieces[0].name, joinParameter(pieces));
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

  private makeArena(run: readonly Piece[]): Arena {
    const { specification } = run[0];
    const { group } = specification;
    const rate = rateOf(specification);
    const dtype = storageOf(specification);
    const elements = run.reduce((sum, piece) => sum + alignedElements(piece), 0);
    const values = this.allocate(elements * bytesPerElement[dtype], `parameters of ${group}`);
    let gradients: BufferRange | null = null;
    const gradientRange = () => {
      gradients ??= this.allocate(elements * bytesPerElement.f32, `gradients of ${group}`);
      return gradients;
    };
    let first = 0;
    const tensors = run.map((piece) => {
      const { shape, specification } = piece;
      const { name } = specification;
      const at = first;
      const over = ({ buffer }: BufferRange, storage: FloatType) =>
        new Tensor(this.device, shape, storage, buffer, at * bytesPerElement[storage], name, 'persistent', false);
      const parameter = over(values, dtype);
      if (rate !== null) {
        parameter.wantsGradient = true;
        parameter.gradientStorage = () => over(gradientRange(), 'f32');
      }
      first += alignedElements(piece);
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

/** Rows of a piece are a multiple of these, so that views of them begin at multiples of 256 bytes. */
const ROWS_UNIT = 64;

/** The pieces of a parameter: it is whole where a binding holds it, of which `limit` is the device's largest, and `pieceBytes` another. */
function piecesOf(specification: ParameterSpecification, limit: number, pieceBytes = limit): Piece[] {
  const { name, shape, splits = false } = specification;
  const bytes = bytesOf({ specification, shape });
  const most = splits ? Math.min(limit, pieceBytes) : limit;
  if (bytes <= most) return [{ specification, shape }];
  const [rows, ...row] = shape;
  const unit = bytesOf({ specification, shape: [ROWS_UNIT, ...row] });
  const rowsOfPiece = ROWS_UNIT * Math.floor(most / unit);
  const complaint = `parameter '${name}' ${formatShape(shape)} has ${bytes} bytes; on this device one `;
  if (!splits || rowsOfPiece === 0) throw new InputError(`${complaint}parameter holds at most ${most}`);
  if (elementCount(row) % 4 !== 0)
    throw new InputError(
      `${complaint}binding holds at most ${most}, and only rows of whole groups of four numbers lie in pieces`,
    );
  return Array.from({ length: Math.ceil(rows / rowsOfPiece) }, (_, i) => ({
    specification,
    shape: [Math.min(rowsOfPiece, rows - i * rowsOfPiece), ...row],
  }));
}

/** Joins parameters in runs of at most `most` bytes, which an arena holds; every piece of one that is split is a run of its own. */
function runsOf(parameters: readonly (readonly Piece[])[], most: number): Piece[][] {
  const runs: Piece[][] = [];
  let used = most;
  for (const pieces of parameters)
    for (const piece of pieces) {
      const bytes = pieces.length > 1 ? most : bytesOf(piece);
      if (used + bytes > most) {
        runs.push([]);
        used = 0;
      }
      runs[runs.length - 1].push(piece);
      used += bytes;
    }
  return runs;
}

/** Gradients are the larger of the two where there are any. */
function bytesOf(piece: Piece): number {
  const { specification } = piece;
  return alignedElements(piece) * bytesPerElement[specification.frozen ? storageOf(specification) : 'f32'];
}

/** Values of one key together, in the order of their first ones. */
function groupBy<T>(values: readonly T[], keyOf: (value: T) => string): T[][] {
  const groups = new Map<string, T[]>();
  for (const value of values) {
    const group = groups.get(keyOf(value));
    if (group) group.push(value);
    else groups.set(keyOf(value), [value]);
  }
  return [...groups.values()];
}

const storageOf = ({ dtype = 'f32' }: ParameterSpecification): FloatType => dtype;

/** The elements from a parameter's first to where the next may begin: whole multiples of 256 bytes of values and of gradients. */
function alignedElements({ shape, specification }: Piece): number {
  return roundUp(Math.max(elementCount(shape), 4), ALIGNMENT / bytesPerElement[storageOf(specification)]);
}

/** A single parameter in an arena of its own; models make a ParameterSet. With `pieceBytes` it may lie in pieces of its rows. */
export function parameter(
  device: Device,
  data: TensorData,
  shape: Shape,
  { name = 'parameter', pieceBytes }: { name?: string } & ParameterSetOptions = {},
): Tensor {
  const splits = pieceBytes !== undefined;
  const set = new ParameterSet(device, [{ name, shape, group: name, splits }], { pieceBytes });
  const made = set.get(name);
  made.disposeArena = () => set.dispose();
  made.write(data);
  return made;
}
