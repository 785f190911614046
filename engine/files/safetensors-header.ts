import { type ByteSource, parseJson, readRange } from './bytes.ts';
import { InputError, quote } from './errors.ts';
import { CHECKSUMS, checksumsIn } from './safetensors-checksums.ts';

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

/** The largest header, as in the reference implementation, so that a damaged length cannot exhaust the memory. */
const HEADER_LIMIT = 100_000_000;

export interface Header {
  /** The `__metadata__`. */
  readonly metadata: ReadonlyMap<string, string>;
  /** Tensors by name, in file order. */
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  /** Their checksums, and that of the metadata; none in files of other programs. */
  readonly checksums: Map<string, string>;
}

/** Reads and checks the header. @throws InputError that names the file, and the tensor, if it is inconsistent */
export async function readHeader(source: ByteSource): Promise<Header> {
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
  return { metadata, tensors, checksums };
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

export function byteLength(dtype: TensorType, shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, tensorArrays[dtype].BYTES_PER_ELEMENT);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && size >= 0);
}
