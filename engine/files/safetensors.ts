import { type ByteSource, memorySource, parseJson, readRange } from './bytes.ts';
import { crc32, crc32Between } from './checksum.ts';
import { InputError, quote } from './errors.ts';
import { decodeBfloat16, decodeFloat16 } from './half.ts';
import { openPath } from './paths.ts';
import { CHECKSUMS, checksumsIn, hexadecimal, metadataChecksum } from './safetensors-checksums.ts';

/**
 * The safetensors format: 8 bytes little-endian header length, a JSON header of
 * `{ name: { dtype, shape, data_offsets: [begin, end] } }` with an optional `__metadata__` of strings, then the data.
 * Offsets count from the end of the header; the tensors cover the data without gap or overlap.
 */

/** Element types and their typed arrays; F16 and BF16 are bit patterns (see half.ts), BOOL is 0 or 1. */
export const tensorArrays = {
  F64: Float64Array,
  F32: Float32Array,
  F16: Uint16Array,
  BF16: Uint16Array,
  I64: BigInt64Array,
  U64: BigUint64Array,
  I32: Int32Array,
  U32: Uint32Array,
  I16: Int16Array,
  U16: Uint16Array,
  I8: Int8Array,
  U8: Uint8Array,
  BOOL: Uint8Array,
} as const;

export type TensorType = keyof typeof tensorArrays;
export type TensorArray<T extends TensorType = TensorType> = InstanceType<(typeof tensorArrays)[T]>;

/** The header's entry of one tensor. */
export interface TensorEntry {
  readonly name: string;
  readonly dtype: TensorType;
  readonly shape: readonly number[];
  /** The tensor has bytes start ... end - 1 of the file. */
  readonly start: number;
  readonly end: number;
}

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

/** The largest header, as in the reference implementation, so that a damaged length cannot exhaust the memory. */
const HEADER_LIMIT = 100_000_000;
/** The largest finite f32. */
export const LARGEST_F32 = 2 ** 128 - 2 ** 104;

export class SafetensorsFile {
  /** @internal Use `readSafetensors`. */
  constructor(
    private readonly source: ByteSource,
    /** The `__metadata__` of the header. */
    readonly metadata: ReadonlyMap<string, string>,
    /** Tensors by name, in file order. */
    readonly tensors: ReadonlyMap<string, TensorEntry>,
    /** The checksums that are not compared yet; none in files of other programs. */
    private readonly checksums: Map<string, string>,
  ) {}

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
    return await readHeader(opened);
  } catch (error) {
    await opened.close();
    throw error;
  }
}

async function readHeader(source: ByteSource): Promise<SafetensorsFile> {
  const fail = (complaint: string) => new InputError(`${source.name}: ${complaint}`);
  if (source.size < 8)
    throw fail(`cut off: ${source.size} bytes, a safetensors file starts with 8 bytes of header length`);
  const prefix = await readRange(source, 0, 8, 'the header length');
  const length = new DataView(prefix.buffer).getBigUint64(0, true);
  if (length > BigInt(HEADER_LIMIT)) throw fail('not a safetensors file: its first 8 bytes are no length of a header');
  if (Number(length) > source.size - 8)
    throw fail(`cut off, or not a safetensors file: a header of ${length} bytes, only ${source.size - 8} bytes follow`);
  const dataStart = 8 + Number(length);
  const text = await readRange(source, 8, dataStart, 'the header');
  const json = parseJson(text, source.name, 'not a safetensors file: the header is not JSON');
  if (!isRecord(json)) throw fail('not a safetensors file: the header is not a JSON object');

  const metadata = new Map<string, string>();
  const entries: TensorEntry[] = [];
  for (const [name, value] of Object.entries(json)) {
    if (name !== '__metadata__') entries.push(checkEntry(source, name, value, dataStart));
    else {
      for (const [key, word] of isRecord(value) ? Object.entries(value) : [['', value]]) {
        if (typeof word !== 'string') throw fail('__metadata__ in the header is not a map from names to strings');
        metadata.set(key as string, word);
      }
    }
  }
  entries.sort((a, b) => a.start - b.start || a.end - b.end);
  let covered = dataStart;
  for (const { name, start, end } of entries) {
    if (start < covered) throw fail(`tensor ${quote(name)} overlaps the tensor before it by ${covered - start} bytes`);
    if (start > covered) throw fail(`${start - covered} bytes before tensor ${quote(name)} belong to no tensor`);
    covered = end;
  }
  if (covered < source.size) throw fail(`${source.size - covered} bytes after the last tensor belong to no tensor`);
  const tensors = new Map(entries.map((entry) => [entry.name, entry]));
  const checksums = checksumsIn(source.name, metadata.get(CHECKSUMS), tensors.keys());
  metadata.delete(CHECKSUMS);
  return new SafetensorsFile(source, metadata, tensors, checksums);
}

function checkEntry(source: ByteSource, name: string, value: unknown, dataStart: number): TensorEntry {
  const fail = (complaint: string) => new InputError(`${source.name}: tensor ${quote(name)} ${complaint}`);
  if (!isRecord(value)) throw fail('has a header entry that is not an object');
  const { dtype, shape, data_offsets: offsets } = value;
  if (typeof dtype !== 'string' || !Object.hasOwn(tensorArrays, dtype))
    throw fail(`has the unknown dtype ${quote(dtype)} (known: ${Object.keys(tensorArrays).join(', ')})`);
  if (!isSizes(shape)) throw fail(`has a shape that is not a list of integers: ${quote(shape)}`);
  if (!isSizes(offsets) || offsets.length !== 2 || offsets[0] > offsets[1])
    throw fail(`has data_offsets that are not [begin, end]: ${quote(offsets)}`);
  const [begin, end] = offsets;
  const type = dtype as TensorType;
  const needed = byteLength(type, shape);
  if (needed !== end - begin)
    throw fail(`of dtype ${dtype} and shape ${quote(shape)} needs ${needed} bytes, its range has ${end - begin}`);
  if (dataStart + end > source.size)
    throw fail(`is cut off or out of range: its data ends at byte ${dataStart + end}, the file at ${source.size}`);
  return { name, dtype: type, shape, start: dataStart + begin, end: dataStart + end };
}

/** The index of the first value that is not a number, or larger in magnitude than `most`, by default than any f32; -1 if there is none. */
export function firstBeyond(values: Float32Array, most = LARGEST_F32): number {
  for (let i = 0; i < values.length; i++) if (!(Math.abs(values[i]) <= most)) return i;
  return -1;
}

export function byteLength(dtype: TensorType, shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, tensorArrays[dtype].BYTES_PER_ELEMENT);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && size >= 0);
}

function listNames(names: readonly string[]): string {
  if (names.length === 0) return 'no tensors';
  const shown = names.slice(0, 4).map(quote);
  return names.length > shown.length ? `${shown.join(', ')} and ${names.length - shown.length} more` : shown.join(', ');
}
