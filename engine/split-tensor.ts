/** Tensors larger than one binding: their rows lie in pieces, each an ordinary tensor, that an op walks one after another. */
import { elementCount, formatShape, Tensor, type TensorData } from './tensor.ts';

/** What walks pieces; any other op would bind a buffer that holds a part of the numbers. */
const WALKERS = ['embedding', 'linearCrossEntropy', 'linear', 'read', 'write'];

/** A tensor whose rows are those of `pieces`, in their order: of one storage, and alike but for the first axis. */
export class SplitTensor extends Tensor {
  constructor(private readonly parts: readonly Tensor[]) {
    const [{ device, shape, dtype, buffer, name }] = parts;
    const rows = parts.reduce((sum, part) => sum + part.shape[0], 0);
    super(device, [rows, ...shape.slice(1)], dtype, buffer, 0, name, 'persistent', false);
  }

  override get pieces(): readonly Tensor[] {
    return this.parts;
  }

  override get buffer(): GPUBuffer {
    throw this.refusal('a binding');
  }

  override assertAlive(op: string): void {
    if (!WALKERS.includes(op)) throw this.refusal(op);
    super.assertAlive(op);
  }

  override write(data: TensorData): void {
    this.assertAlive('write');
    if (data.length !== this.size)
      throw new Error(
        `write: ${data.length} numbers for shape ${formatShape(this.shape)}, which holds ${elementCount(this.shape)}`,
      );
    writePieces(this.parts, data);
  }

  override expire(): void {
    super.expire();
    for (const part of this.parts) part.expire();
  }

  protected override async readNumbers(): Promise<Float32Array<ArrayBuffer>> {
    this.assertAlive('read');
    return readPieces(this.parts);
  }

  private refusal(op: string): Error {
    return new Error(
      `${op}: parameter '${this.name}' ${formatShape(this.shape)} lies in ${this.parts.length} pieces of rows; only embedding, linearCrossEntropy and linear take it`,
    );
  }
}

/** Numbers that are stored, or some rows of them: a tensor, or what is packed otherwise. */
interface StoredRows {
  readonly shape: readonly number[];
  read(): Promise<Float32Array>;
  write(values: TensorData): void;
}

/** The numbers of all pieces at one moment; a whole copy on the host beside the staging buffers, so what is large is read by pieces. */
export async function readPieces(pieces: readonly Pick<StoredRows, 'read'>[]): Promise<Float32Array<ArrayBuffer>> {
  return joinNumbers(await Promise.all(pieces.map((piece) => piece.read())));
}

/** A copy of all parts, one after the other. */
export function joinNumbers(parts: readonly Float32Array[]): Float32Array<ArrayBuffer> {
  const whole = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let first = 0;
  for (const part of parts) {
    whole.set(part, first);
    first += part.length;
  }
  return whole;
}

/** Writes to each piece its numbers of the whole, of which no other copy is made. */
export function writePieces(pieces: readonly Pick<StoredRows, 'shape' | 'write'>[], whole: TensorData): void {
  let first = 0;
  for (const piece of pieces) {
    const end = first + elementCount(piece.shape);
    piece.write('subarray' in whole ? whole.subarray(first, end) : whole.slice(first, end));
    first = end;
  }
}

/** The parameter whose rows are these parameters; its gradient lies in pieces alike. A single piece is the parameter itself. */
export function joinParameter(pieces: readonly Tensor[]): Tensor {
  if (pieces.length === 1) return pieces[0];
  const whole = new SplitTensor(pieces);
  const storages = pieces.flatMap(({ gradientStorage }) => gradientStorage ?? []);
  if (storages.length === 0) return whole;
  whole.wantsGradient = true;
  whole.gradientStorage = () => new SplitTensor(storages.map((make) => make()));
  pieces.forEach((piece, i) => {
    piece.gradientStorage = () => {
      whole.grad ??= whole.gradientStorage!();
      return whole.grad.pieces[i];
    };
  });
  return whole;
}
