/**
 * TFRecord files with tf.train.Example in them. A record is a u64 length, a u32 masked CRC-32C of the length, the bytes, a u32 masked
 * CRC-32C of the bytes, all little-endian. An Example is `{ 1: Features { 1: entry { 1: key, 2: Feature { 1, 2 or 3: list } } ... } }`
 * in protocol buffers, where a list repeats field 1: bytes, or numbers, packed or single.
 */
import { type ByteSource, joinBytes, readRange } from '../../../engine/files/bytes.ts';
import { InputError } from '../../../engine/files/errors.ts';
import { crc32c } from '../checksum.ts';

/** Bytes `start` to `end` - 1 of a file. */
export interface Place {
  readonly start: number;
  readonly end: number;
}

/** Where the list of values of a feature lies; `kind` is null for a feature without a list. */
export interface FeaturePlace extends Place {
  readonly kind: 'bytes' | 'float' | 'int64' | null;
}

/** The bytes of a record that are checked at once. */
const CHECKED = 2 ** 20;
/** The bytes that are read at once; longer values, such as images, are skipped. */
const WINDOW = 4096;
/** The bytes of the longest list of numbers, or text, that is read. */
const LIMIT = 2 ** 28;
const kinds = [null, 'bytes', 'float', 'int64'] as const;

/** Masks a CRC-32C as TensorFlow does: rotated by 15 bits, plus a constant. */
export const masked = (crc: number): number => (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;

/** Finds each record without reading it. @throws InputError if the file is cut off, compressed, or no TFRecord file */
export async function readRecords(source: ByteSource): Promise<Place[]> {
  const records: Place[] = [];
  for (let at = 0; at < source.size; ) {
    const what = `record ${records.length}`;
    const head = await readRange(source, at, at + 12, `the length of ${what}`);
    const view = new DataView(head.buffer);
    if (masked(crc32c(head.subarray(0, 8))) !== view.getUint32(8, true)) {
      const packed = { 31: 'gzip', 120: 'zlib' }[at === 0 ? head[0] : 0];
      throw new InputError(
        packed
          ? `${source.name}: it is compressed (${packed}), and only TFRecord files without compression are read: write it again without`
          : `${source.name}: ${what} at byte ${at}: damaged, or not a TFRecord file (length checksum)`,
      );
    }
    const [start, length] = [at + 12, Number(view.getBigUint64(0, true))];
    at = start + length + 4;
    if (at > source.size)
      throw new InputError(
        `${source.name}: cut off: ${what} has ${length} bytes, ${source.size - start} of it and of its checksum are left`,
      );
    records.push({ start, end: start + length });
  }
  return records;
}

/** Reads a record and compares its checksum, as TensorFlow does. @throws InputError if it is damaged */
export async function checkRecord(source: ByteSource, { start, end }: Place): Promise<void> {
  const what = `the record at byte ${start - 12}`;
  let crc = 0;
  for (let at = start; at < end; at += CHECKED)
    crc = crc32c(await readRange(source, at, Math.min(end, at + CHECKED), what), crc);
  const tail = await readRange(source, end, end + 4, `the checksum of ${what}`);
  if (masked(crc) !== new DataView(tail.buffer).getUint32(0, true))
    throw new InputError(`${source.name}: ${what} is damaged (checksum): fetch the file again`);
}

/** Reads a record that holds a tf.train.Example, by ranges. All throw an InputError if it is damaged. */
export class ExampleReader {
  #window = new Uint8Array(0);
  #at = 0;

  constructor(
    private readonly source: ByteSource,
    private readonly record: Place,
  ) {}

  /** Finds the features without reading their values. */
  async features(): Promise<Map<string, FeaturePlace>> {
    const features = new Map<string, FeaturePlace>();
    for await (const all of this.#fields(this.record, 1)) {
      for await (const entry of this.#fields(all, 1)) {
        let key: string | undefined;
        let place: FeaturePlace = { kind: null, start: entry.end, end: entry.end };
        for await (const part of this.#fields(entry)) {
          if (part.field === 1) key = new TextDecoder().decode(await this.bytes(part));
          if (part.field !== 2) continue;
          for await (const { field, start, end } of this.#fields(part))
            if (field <= 3) place = { kind: kinds[field], start, end };
        }
        if (key === undefined) throw this.#damaged(entry.start);
        features.set(key, place);
      }
    }
    return features;
  }

  /** Finds the values of a list of bytes. */
  async places(list: Place): Promise<Place[]> {
    const places: Place[] = [];
    for await (const { field, wire, start, end } of this.#fields(list)) {
      if (field !== 1 || wire !== 2) throw this.#damaged(start);
      places.push({ start, end });
    }
    return places;
  }

  /** Reads a list of numbers: integers as float64. */
  async numbers(list: FeaturePlace): Promise<Float32Array | Float64Array> {
    const single = list.kind === 'float' ? 5 : 0;
    const parts: Uint8Array[] = [];
    for await (const { field, wire, ...part } of this.#fields(list)) {
      if (field !== 1 || (wire !== 2 && wire !== single)) throw this.#damaged(part.start);
      parts.push(await this.bytes(part));
    }
    const bytes = joinBytes(parts);
    if (list.kind === 'float') {
      if (bytes.length % 4 !== 0) throw this.#damaged(list.start);
      return new Float32Array(bytes.buffer);
    }
    const values = new Float64Array(bytes.reduce((count, byte) => count + (byte < 128 ? 1 : 0), 0));
    let at = 0;
    for (let i = 0; i < values.length; i++) {
      const { value, next } = varint(bytes, at);
      if (next === at) throw this.#damaged(list.start);
      // Ten bytes are a negative number, or one above 2^63, which no feature of tensorflow-datasets holds.
      values[i] = next - at < 10 ? value : Number(BigInt.asIntN(64, longVarint(bytes.subarray(at, next))));
      at = next;
    }
    if (at !== bytes.length) throw this.#damaged(list.start);
    return values;
  }

  async bytes({ start, end }: Place): Promise<Uint8Array<ArrayBuffer>> {
    if (end - start > LIMIT)
      throw new InputError(`${this.source.name}: ${end - start} bytes in one value, at byte ${start}: too long`);
    await this.#load(start, end);
    return this.#window.subarray(start - this.#at, end - this.#at);
  }

  async #load(start: number, end: number): Promise<void> {
    if (start >= this.#at && end <= this.#at + this.#window.length) return;
    const until = Math.min(this.record.end, Math.max(end, start + WINDOW));
    this.#window = await readRange(this.source, start, until, `the record at byte ${this.record.start - 12}`);
    this.#at = start;
  }

  /** Yields the fields of a message, or only those of number `only`. */
  async *#fields({ start, end }: Place, only?: number) {
    for (let at = start; at < end; ) {
      // Two integers of at most ten bytes say number, type and length.
      await this.#load(at, Math.min(end, at + 20));
      const tag = this.#varint(at, end);
      const [field, wire] = [Math.floor(tag.value / 8), tag.value % 8];
      const long = wire === 2 ? this.#varint(tag.next, end) : null;
      const first = long?.next ?? tag.next;
      const size = long?.value ?? [0, 8, Infinity, Infinity, Infinity, 4, Infinity, Infinity][wire];
      const last = wire === 0 ? this.#varint(first, end).next : first + size;
      if (last > end || field === 0) throw this.#damaged(at);
      if (only === undefined || only === field) yield { field, wire, start: first, end: last };
      at = last;
    }
  }

  #varint(at: number, end: number) {
    const { value, next } = varint(this.#window.subarray(0, end - this.#at), at - this.#at);
    if (next === at - this.#at) throw this.#damaged(at);
    return { value, next: next + this.#at };
  }

  #damaged(at: number): InputError {
    return new InputError(`${this.source.name}: damaged at byte ${at}: no tf.train.Example`);
  }
}

/** Reads an integer of variable length; `next` is `start` if it does not end. Above 2^53 it loses low bits. */
function varint(bytes: Uint8Array, start: number): { value: number; next: number } {
  let value = 0;
  for (let i = 0; i < 10 && start + i < bytes.length; i++) {
    value += (bytes[start + i] & 127) * 2 ** (7 * i);
    if (bytes[start + i] < 128) return { value, next: start + i + 1 };
  }
  return { value: 0, next: start };
}

const longVarint = (bytes: Uint8Array): bigint =>
  bytes.reduceRight((value, byte) => (value << 7n) | BigInt(byte & 127), 0n);
