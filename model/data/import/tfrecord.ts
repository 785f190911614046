/**
 * TFRecord files with tf.train.Example in them. A record is a u64 length, a u32 masked CRC-32C of the length, the bytes, a u32 masked
 * CRC-32C of the bytes, all little-endian. An Example is `{ 1: Features { 1: entry { 1: key, 2: Feature { 1, 2 or 3: list } } ... } }`
 * in protocol buffers, where a list repeats field 1: bytes, or numbers, packed or single.
 */
import { type ByteSource, joinBytes, readRange } from '../../../engine/files/bytes.ts';
import { crc32c } from '../../../engine/files/checksum.ts';
import { InputError } from '../../../engine/files/errors.ts';

/** Bytes `start` to `end` - 1. */
export interface Place {
  readonly start: number;
  readonly end: number;
}

/** The values of a feature: bytes as views of the record, whose first byte has offset 0, or numbers, of which integers are float64. */
export type Feature = { readonly bytes: readonly Uint8Array[] } | { readonly numbers: Float32Array | Float64Array };

/** The bytes of the largest record that is read. */
const LIMIT = 2 ** 30;

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
    if (at > source.size || length > LIMIT)
      throw new InputError(
        `${source.name}: ${what} has ${length} bytes: ${length > LIMIT ? `at most ${LIMIT} are read` : `cut off, ${source.size - start} of it and of its checksum are left`}`,
      );
    records.push({ start, end: start + length });
  }
  return records;
}

/** Reads a record that holds a tf.train.Example: its features by name. @throws InputError if it is damaged */
export async function readExample(source: ByteSource, { start, end }: Place): Promise<Map<string, Feature>> {
  const what = `the record at byte ${start - 12}`;
  const bytes = await readRange(source, start, end + 4, what);
  const record = bytes.subarray(0, end - start);
  if (masked(crc32c(record)) !== new DataView(bytes.buffer).getUint32(end - start, true))
    throw new InputError(`${source.name}: ${what} is damaged (checksum): fetch the file again`);
  const features = new Map<string, Feature>();
  try {
    for (const all of fieldsOf(record, { start: 0, end: record.length }, 1))
      for (const entry of fieldsOf(record, all, 1)) {
        let key: string | undefined;
        let feature: Feature = { bytes: [] };
        for (const part of fieldsOf(record, entry)) {
          if (part.field === 1) key = new TextDecoder().decode(record.subarray(part.start, part.end));
          if (part.field !== 2) continue;
          for (const list of fieldsOf(record, part)) if (list.field <= 3) feature = featureOf(record, list);
        }
        if (key === undefined) throw new RangeError('no key');
        features.set(key, feature);
      }
  } catch (error) {
    if (error instanceof RangeError) throw new InputError(`${source.name}: ${what} is no tf.train.Example`);
    throw error;
  }
  return features;
}

interface Field extends Place {
  readonly field: number;
  readonly wire: number;
}

function featureOf(record: Uint8Array, list: Field): Feature {
  const parts = Array.from(fieldsOf(record, list, 1), ({ start, end }) => record.subarray(start, end));
  if (list.field === 1) return { bytes: parts };
  const bytes = joinBytes(parts);
  if (list.field === 2) return { numbers: new Float32Array(bytes.buffer) };
  const values = new Float64Array(bytes.reduce((count, byte) => count + (byte < 128 ? 1 : 0), 0));
  const reader = { at: 0, bytes, end: bytes.length };
  for (let i = 0; i < values.length; i++) values[i] = varint(reader);
  if (reader.at < bytes.length) throw new RangeError('no integer');
  return { numbers: values };
}

/** Yields the fields of a message, or only those of number `only`. @throws RangeError if it is no message */
function* fieldsOf(bytes: Uint8Array, { start, end }: Place, only?: number): Generator<Field> {
  const reader = { at: start, bytes, end };
  while (reader.at < end) {
    const tag = varint(reader);
    const [field, wire] = [Math.floor(tag / 8), tag % 8];
    const length = wire === 2 ? varint(reader) : [0, 8, 0, -1, -1, 4, -1, -1][wire];
    const first = reader.at;
    if (wire === 0) varint(reader);
    else reader.at += length;
    if (!(field > 0 && length >= 0 && reader.at <= end)) throw new RangeError('no message');
    if (only === undefined || only === field) yield { field, wire, start: first, end: reader.at };
  }
}

/** Reads an integer of variable length; above 2^53 it is rounded. @throws RangeError if it does not end */
function varint(reader: { at: number; readonly bytes: Uint8Array; readonly end: number }): number {
  let value = 0n;
  let low = 0;
  for (let i = 0; i < 10 && reader.at < reader.end; i++) {
    const byte = reader.bytes[reader.at++];
    if (i < 7) low += (byte & 127) * 2 ** (7 * i);
    else value |= BigInt(byte & 127) << BigInt(7 * i);
    // Ten bytes are a negative number, or one above 2^63, which no feature of tensorflow-datasets holds.
    if (byte < 128) return i < 7 ? low : Number(BigInt.asIntN(64, value + BigInt(low)));
  }
  throw new RangeError('no integer');
}
