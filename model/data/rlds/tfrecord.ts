import { type ByteSource, joinBytes, readRange } from '../../../engine/files/bytes.ts';
import { InputError } from '../../../engine/files/errors.ts';
import { crc32c } from '../checksum.ts';

// A TFRecord is a u64 length, a u32 masked CRC-32C of the length, the bytes, a u32 masked CRC-32C of the bytes; all
// little-endian.

/** One record is bytes `start` to `end` - 1. */
export interface RecordPlace {
  readonly start: number;
  readonly end: number;
}

/** The bytes of a record that are checked at once. */
const CHECKED = 2 ** 20;

/** Masks a CRC-32C as TensorFlow does: rotated by 15 bits, plus a constant. */
export const masked = (crc: number): number => (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;

/** Finds each record without reading it. @throws InputError if the file is cut off, or no TFRecord file */
export async function readRecords(source: ByteSource): Promise<RecordPlace[]> {
  const records: RecordPlace[] = [];
  let offset = 0;
  while (offset < source.size) {
    const what = `record ${records.length}`;
    const head = await readRange(source, offset, offset + 12, `the length of ${what}`);
    const view = new DataView(head.buffer);
    if (masked(crc32c(head.subarray(0, 8))) !== view.getUint32(8, true)) {
      throw new InputError(
        `${source.name}: ${what} at byte ${offset}: damaged, or not a TFRecord file (length checksum)`,
      );
    }
    const [start, length] = [offset + 12, Number(view.getBigUint64(0, true))];
    if (start + length + 4 > source.size) {
      const rest = source.size - start;
      throw new InputError(`${source.name}: cut off: ${what} has ${length} bytes, ${rest} are left`);
    }
    records.push({ start, end: start + length });
    offset = start + length + 4;
  }
  return records;
}

/** Reads a record and compares its checksum, as TensorFlow does. @throws InputError if it is damaged */
export async function checkRecord(source: ByteSource, { start, end }: RecordPlace): Promise<void> {
  const what = `the record at byte ${start - 12}`;
  let crc = 0;
  for (let at = start; at < end; at += CHECKED)
    crc = crc32c(await readRange(source, at, Math.min(end, at + CHECKED), what), crc);
  const tail = await readRange(source, end, end + 4, `the checksum of ${what}`);
  if (masked(crc) !== new DataView(tail.buffer).getUint32(0, true))
    throw new InputError(`${source.name}: ${what} is damaged (checksum): fetch the file again`);
}

/** The location and the kind of a feature's list of values in a tf.train.Example. */
export interface FeaturePlace {
  readonly kind: 'bytes' | 'float' | 'int64';
  readonly start: number;
  readonly end: number;
}

const kinds = [undefined, 'bytes', 'float', 'int64'] as const;
/** The bytes that are read at once; longer values, such as images, are skipped. */
const WINDOW = 4096;

/** Finds the features of a record that holds a tf.train.Example, without reading their values. */
export async function readFeatures(
  source: ByteSource,
  { start, end }: RecordPlace,
): Promise<Map<string, FeaturePlace>> {
  const reader = new Reader(source, end);
  const features = new Map<string, FeaturePlace>();
  // Example { 1: Features { 1: entry { 1: key, 2: Feature { 1, 2 or 3: list } } ... } }
  for await (const all of reader.fields(start, end, 1)) {
    for await (const entry of reader.fields(all.start, all.end, 1)) {
      let key = '';
      let place: FeaturePlace | null = null;
      for await (const { field, ...part } of reader.fields(entry.start, entry.end)) {
        if (field === 1) key = new TextDecoder().decode(await reader.bytes(part.start, part.end));
        if (field !== 2) continue;
        for await (const { field: number, ...list } of reader.fields(part.start, part.end)) {
          const kind = kinds[number];
          if (kind) place = { kind, ...list };
        }
      }
      if (place) features.set(key, place);
    }
  }
  return features;
}

class Reader {
  #window: Uint8Array = new Uint8Array(0);
  #at = 0;

  constructor(
    private readonly source: ByteSource,
    private readonly end: number,
  ) {}

  /** Yields the fields with a length between bytes `start` and `end`, or only those of number `only`. */
  async *fields(start: number, end: number, only?: number) {
    let offset = start;
    while (offset < end) {
      const [tag, afterTag] = await this.#varint(offset);
      const [field, wire] = [Math.floor(tag / 8), tag % 8];
      if (wire === 0) offset = (await this.#varint(afterTag))[1];
      else if (wire === 1 || wire === 5) offset = afterTag + (wire === 1 ? 8 : 4);
      else if (wire === 2) {
        const [length, first] = await this.#varint(afterTag);
        if (first + length > end) throw this.#damaged(offset);
        if (only === undefined || only === field) yield { field, start: first, end: first + length };
        offset = first + length;
      } else throw this.#damaged(offset);
    }
  }

  async bytes(start: number, end: number): Promise<Uint8Array> {
    if (end - start > WINDOW) throw this.#damaged(start);
    if (start < this.#at || end > this.#at + this.#window.length) {
      this.#at = start;
      this.#window = await readRange(this.source, start, Math.min(this.end, start + WINDOW), 'a record');
    }
    return this.#window.subarray(start - this.#at, end - this.#at);
  }

  async #varint(offset: number): Promise<[value: number, next: number]> {
    const bytes = await this.bytes(offset, Math.min(this.end, offset + 10));
    const { value, length } = varint(bytes, 0);
    if (length === 0) throw this.#damaged(offset);
    return [value, offset + length];
  }

  #damaged(offset: number): InputError {
    return new InputError(`${this.source.name}: damaged at byte ${offset}: no tf.train.Example`);
  }
}

/** Reads a variable-length integer; length 0 if it does not end. Above 2^53 it loses low bits, which none needs. */
function varint(bytes: Uint8Array, start: number): { value: number; length: number } {
  let value = 0;
  for (let i = 0; i < 10 && start + i < bytes.length; i++) {
    value += (bytes[start + i] & 127) * 2 ** (7 * i);
    if (bytes[start + i] < 128) return { value, length: i + 1 };
  }
  return { value: 0, length: 0 };
}

/** Reads a list of floats, packed or not. @throws InputError if it is damaged */
export function floatsOf(list: Uint8Array, file: string, what: string): Float32Array {
  const bytes = joinBytes(listParts(list, 5, file, what));
  if (bytes.length % 4 !== 0) throw new InputError(`${file}: ${what}: damaged list of floats`);
  return new Float32Array(bytes.buffer);
}

/** Counts the values of a list of integers, packed or not. */
export function countIntegers(list: Uint8Array, file: string, what: string): number {
  let count = 0;
  for (const part of listParts(list, 0, file, what)) for (const byte of part) if (byte < 128) count += 1;
  return count;
}

/** Splits a list of byte arrays into its values, without copying. */
export function bytesOf(list: Uint8Array, file: string, what: string): Uint8Array[] {
  return listParts(list, 2, file, what);
}

/** Splits a repeated field 1 into packed runs, or single values of wire type `single`. */
function listParts(list: Uint8Array, single: 0 | 2 | 5, file: string, what: string): Uint8Array[] {
  const parts: Uint8Array[] = [];
  let offset = 0;
  while (offset < list.length) {
    const wire = list[offset] % 8;
    const { value, length } = varint(list, offset + 1);
    const start = wire === 2 ? offset + 1 + length : offset + 1;
    const end = start + (wire === 2 ? value : wire === 5 ? 4 : length);
    if (list[offset] >> 3 !== 1 || (wire !== 2 && wire !== single) || length === 0 || end > list.length) {
      throw new InputError(`${file}: ${what}: damaged list of values`);
    }
    parts.push(list.subarray(start, end));
    offset = end;
  }
  return parts;
}
