import { type ByteSource, memorySource, readRange } from './bytes.ts';
import { crc32, crc32Between } from './checksum.ts';
import { InputError, quote } from './errors.ts';
import { decodeBfloat16, decodeFloat16 } from './half.ts';
import { openPath } from './paths.ts';
import { hexadecimal, metadataChecksum } from './safetensors-checksums.ts';
import {
  type Header,
  readHeader,
  type TensorArray,
  type TensorEntry,
  type TensorType,
  tensorArrays,
} from './safetensors-header.ts';

/** The expected shape of a tensor, and the part of it to read. */
interface ReadOptions {
  readonly shape?: readonly number[];
  /** Rows from ... to - 1 of the first axis; all by default. */
  readonly rows?: readonly [from: number, to: number];
}

/** Where a tensor is read into: what `pieces` hold of its rows, one after the other, or all in a single one. */
interface TargetRows {
  readonly shape: readonly number[];
  readonly pieces: readonly { readonly shape: readonly number[]; write(values: Float32Array): void }[];
}

/** The largest finite f32. */
export const LARGEST_F32 = 2 ** 128 - 2 ** 104;

export class SafetensorsFile {
  /** The `__metadata__` of the header. */
  readonly metadata: ReadonlyMap<string, string>;
  /** Tensors by name, in file order. */
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  /** The checksums that are not compared yet. */
  private readonly checksums: Map<string, string>;

  /** @internal Use `readSafetensors`. */
  constructor(
    private readonly source: ByteSource,
    { metadata, tensors, checksums }: Header,
  ) {
    this.metadata = metadata;
    this.tensors = tensors;
    this.checksums = checksums;
  }

  get name(): string {
    return this.source.name;
  }

  has(name: string): boolean {
    return this.tensors.has(name);
  }

  /** @throws InputError if the file has no tensor of this name, or its shape or dtype is not the expected one */
  entry(name: string, expected: { shape?: readonly number[]; dtype?: TensorType } = {}): TensorEntry {
    const entry = this.tensors.get(name);
    if (!entry) throw this.#error(name, `is not in the file (it has ${listNames([...this.tensors.keys()])})`);
    if (expected.dtype && entry.dtype !== expected.dtype)
      throw this.#error(name, `has dtype ${entry.dtype}, ${expected.dtype} was expected`);
    const { shape } = expected;
    if (shape && (shape.length !== entry.shape.length || shape.some((size, axis) => size !== entry.shape[axis])))
      throw this.#error(name, `has shape [${entry.shape.join(', ')}], [${shape.join(', ')}] was expected`);
    return entry;
  }

  /**
   * Reads the values of a tensor of known dtype; F16 and BF16 as bit patterns.
   *
   * @throws InputError if it is missing, has another dtype or shape or not its checksum, or the file has become shorter
   */
  async read<T extends TensorType>(name: string, dtype: T, options: ReadOptions = {}): Promise<TensorArray<T>> {
    const entry = this.entry(name, { dtype, shape: options.shape });
    const bytes = await this.#bytes(entry, options.rows);
    return new tensorArrays[dtype](bytes.buffer) as TensorArray<T>;
  }

  /** Reads an F32, F16, BF16 or F64 tensor as float32; only F64 is rounded. Throws like `read`. */
  async readFloat32(name: string, options: ReadOptions = {}): Promise<Float32Array> {
    const { dtype } = this.entry(name);
    if (dtype === 'F32') return this.read(name, dtype, options);
    if (dtype === 'F16') return decodeFloat16(await this.read(name, dtype, options));
    if (dtype === 'BF16') return decodeBfloat16(await this.read(name, dtype, options));
    if (dtype === 'F64') return new Float32Array(await this.read(name, dtype, options));
    throw this.#error(name, `has dtype ${dtype}, a floating-point type was expected`);
  }

  /** Like `readFloat32`. @throws InputError if an element is not a finite number */
  async readFinite(name: string, options: ReadOptions = {}): Promise<Float32Array> {
    const values = await this.readFloat32(name, options);
    const bad = firstBeyond(values);
    if (bad < 0) return values;
    const before =
      (options.rows?.[0] ?? 0) *
      this.entry(name)
        .shape.slice(1)
        .reduce((a, b) => a * b, 1);
    throw new InputError(
      `${this.name}: damaged: tensor ${quote(name)} holds ${values[bad]} at element ${before + bad}`,
    );
  }

  /** Writes a tensor into one of its shape on the device, of which one piece at a time is in memory. Throws like `readFinite`. */
  async readInto(name: string, { shape, pieces }: TargetRows): Promise<void> {
    let first = 0;
    for (const piece of pieces) {
      const rows = pieces.length > 1 ? ([first, first + piece.shape[0]] as const) : undefined;
      piece.write(await this.readFinite(name, { shape, rows }));
      first += piece.shape[0];
    }
  }

  /** Compares all checksums, if the file has them. @throws InputError that names the first tensor that is damaged */
  async verify(): Promise<void> {
    for (const name of [...this.checksums.keys()]) {
      if (name === '__metadata__') this.verifyMetadata();
      else await this.#verify(this.entry(name));
    }
  }

  /** @throws InputError if the metadata are not those that were written */
  verifyMetadata(): void {
    const expected = this.checksums.get('__metadata__');
    if (expected === undefined || expected === metadataChecksum(this.metadata)) return;
    throw new InputError(
      `${this.name}: damaged: its metadata were changed after it was written (their checksum differs)`,
    );
  }

  async #verify(entry: TensorEntry): Promise<void> {
    const read = (start: number, end: number) => this.#range(entry, start, end);
    this.#compare(entry.name, await crc32Between(read, entry.start, entry.end));
  }

  #compare(name: string, found: number): void {
    const expected = this.checksums.get(name);
    if (expected !== undefined && expected !== hexadecimal(found))
      throw new InputError(
        `${this.name}: damaged: tensor ${quote(name)} was changed after it was written (its checksum differs)`,
      );
    this.checksums.delete(name);
  }

  async #bytes(entry: TensorEntry, rows?: readonly [number, number]): Promise<Uint8Array<ArrayBuffer>> {
    let { start, end } = entry;
    if (rows) {
      const [from, to] = rows;
      const height = entry.shape[0] ?? 0;
      if (!Number.isInteger(from) || !Number.isInteger(to) || from < 0 || to < from || to > height)
        throw this.#error(entry.name, `has ${height} rows; rows ${from} to ${to} do not exist`);
      const stride = height === 0 ? 0 : (end - start) / height;
      [start, end] = [start + from * stride, start + to * stride];
    }
    // The checksum is that of the whole tensor, of which a part may be wanted.
    if (rows && this.checksums.has(entry.name)) await this.#verify(entry);
    const bytes = await this.#range(entry, start, end);
    if (this.checksums.has(entry.name)) this.#compare(entry.name, crc32(bytes));
    return bytes;
  }

  #range({ name }: TensorEntry, start: number, end: number): Promise<Uint8Array<ArrayBuffer>> {
    return readRange(this.source, start, end, `tensor ${quote(name)}`);
  }

  #error(tensor: string, complaint: string): InputError {
    return new InputError(`${this.name}: tensor ${quote(tensor)} ${complaint}`);
  }

  close(): Promise<void> {
    return this.source.close();
  }
}

/**
 * Opens a safetensors file: reads and checks the header. Tensors are read on demand. Close the file after use.
 *
 * @param source a path (node), a Blob or bytes, or any byte source
 * @param name for error messages, if the source has no name of its own
 * @throws InputError that names the file, and the tensor, if the header is inconsistent
 */
export async function readSafetensors(
  source: string | Blob | Uint8Array | ArrayBuffer | ByteSource,
  name = 'safetensors data',
): Promise<SafetensorsFile> {
  const opened =
    typeof source === 'string'
      ? await openPath(source)
      : source instanceof Blob || source instanceof Uint8Array || source instanceof ArrayBuffer
        ? memorySource(source, name)
        : source;
  try {
    return new SafetensorsFile(opened, await readHeader(opened));
  } catch (error) {
    await opened.close();
    throw error;
  }
}

/** The index of the first value that is not a number, or larger in magnitude than `most`, by default than any f32; -1 if there is none. */
export function firstBeyond(values: Float32Array, most = LARGEST_F32): number {
  for (let i = 0; i < values.length; i++) if (!(Math.abs(values[i]) <= most)) return i;
  return -1;
}

function listNames(names: readonly string[]): string {
  if (names.length === 0) return 'no tensors';
  const shown = names.slice(0, 4).map(quote);
  return names.length > shown.length ? `${shown.join(', ')} and ${names.length - shown.length} more` : shown.join(', ');
}
