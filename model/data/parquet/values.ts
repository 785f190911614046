import type { Encoding, ParquetType } from 'hyparquet';
import { decompressPage } from 'hyparquet/src/datapage.js';
import { deltaBinaryUnpack, deltaByteArray, deltaLengthByteArray } from 'hyparquet/src/delta.js';
import { byteStreamSplit } from 'hyparquet/src/encoding.js';
import { readPlain } from 'hyparquet/src/plain.js';
import { getMaxDefinitionLevel, getMaxRepetitionLevel } from 'hyparquet/src/schema.js';
import { compressors } from 'hyparquet-compressors';
import { type ByteSource, readRange } from '../../../engine/files/bytes.ts';
import { InputError, reasonOf } from '../../../engine/files/errors.ts';
import { crc32 } from '../checksum.ts';
import type { ColumnChunk, Page, PageTable } from './pages.ts';

/** Numbers (64-bit integers and booleans as float64) or byte arrays. */
export type Values = Float32Array | Float64Array | Uint8Array[];

/** The decoded leaf values without nulls, and the levels that place them; null if the column has no such levels. */
export interface PageValues {
  readonly values: Values;
  readonly definition: Uint8Array | null;
  readonly repetition: Uint8Array | null;
  /** For byte arrays: the unpacked bytes that hold them, and their page, the data page or the dictionary. */
  readonly store: { readonly bytes: Uint8Array; readonly page: Page } | null;
}

/** Decodes one page. @throws InputError if it is damaged */
export async function readPageValues(
  source: ByteSource,
  chunk: ColumnChunk,
  { dictionary }: PageTable,
  page: Page,
  what: string,
): Promise<PageValues> {
  const { codec } = chunk;
  const { type, type_length: fixedLength } = chunk.schemaPath[chunk.schemaPath.length - 1].element;
  const bytesOf = async ({ header, start, end }: Page) => {
    const bytes = await readRange(source, start, end, what);
    // Most writers leave out the checksum, which is signed in the file.
    if (header.crc != null && crc32(bytes) !== header.crc >>> 0)
      throw new InputError(`${source.name}: ${what}: damaged page at byte ${start} (checksum)`);
    return bytes;
  };
  const dictionaryBytes = dictionary && (await bytesOf(dictionary));
  const bytes = await bytesOf(page);
  try {
    if (!type) throw new Error('a group, not a column');
    let lookup: Values | null = null;
    let store: PageValues['store'] | null = null;
    if (dictionary && dictionaryBytes) {
      const plain = decompressPage(dictionaryBytes, dictionary.header.uncompressed_page_size, codec, compressors);
      lookup = readValues(plain, 'PLAIN', type, dictionary.values, fixedLength, null);
      store = { bytes: plain, page: dictionary };
    }
    const { definition, repetition, body, encoding, whole } = readLevels(bytes, page, chunk);
    if (!store || !encoding.endsWith('_DICTIONARY')) store = { bytes: whole, page };
    const full = getMaxDefinitionLevel(chunk.schemaPath);
    const present = definition?.filter((level) => level === full).length ?? page.values;
    const values = readValues(body, encoding, type, present, fixedLength, lookup);
    return { values, definition, repetition, store: Array.isArray(values) ? store : null };
  } catch (error) {
    throw new InputError(`${source.name}: ${what}: damaged page at byte ${page.start} (${reasonOf(error)})`);
  }
}

function readLevels(bytes: Uint8Array, { header, values }: Page, { schemaPath, codec }: ColumnChunk) {
  const maxRepetition = getMaxRepetitionLevel(schemaPath);
  const maxDefinition = getMaxDefinitionLevel(schemaPath);
  const levels = (part: Uint8Array, max: number) => readHybrid(part, 0, widthOf(max), new Uint8Array(values));
  const second = header.data_page_header_v2;
  if (second) {
    const { repetition_levels_byte_length: first, definition_levels_byte_length: next, is_compressed: packed } = second;
    if (!(first >= 0 && next >= 0 && first + next <= bytes.length)) throw new Error('its levels leave the page');
    const rest = bytes.subarray(first + next);
    const body =
      packed === false ? rest : decompressPage(rest, header.uncompressed_page_size - first - next, codec, compressors);
    return {
      repetition: maxRepetition ? levels(bytes.subarray(0, first), maxRepetition) : null,
      definition: maxDefinition ? levels(bytes.subarray(first, first + next), maxDefinition) : null,
      body,
      whole: body,
      encoding: second.encoding,
    };
  }
  const whole = decompressPage(bytes, header.uncompressed_page_size, codec, compressors);
  let body = whole;
  const withLength = (max: number) => {
    if (max === 0) return null;
    const length = view(body).getUint32(0, true);
    if (length > body.length - 4) throw new Error('its levels leave the page');
    const part = body.subarray(4, 4 + length);
    body = body.subarray(4 + length);
    return levels(part, max);
  };
  const repetition = withLength(maxRepetition);
  const definition = withLength(maxDefinition);
  return { repetition, definition, body, whole, encoding: header.data_page_header!.encoding };
}

function readValues(
  bytes: Uint8Array,
  encoding: Encoding,
  type: ParquetType,
  count: number,
  fixedLength: number | undefined,
  lookup: Values | null,
): Values {
  const reader = { view: view(bytes), offset: 0 };
  switch (encoding) {
    case 'PLAIN':
      if (type === 'BYTE_ARRAY') return readByteArrays(bytes, count);
      return asValues(readPlain(reader, type, count, fixedLength));
    case 'PLAIN_DICTIONARY':
    case 'RLE_DICTIONARY': {
      if (!lookup) throw new Error('no dictionary');
      const places = readHybrid(bytes, 1, count === 0 ? 0 : bytes[0], new Uint32Array(count));
      if (places.some((place) => place >= lookup.length)) throw new Error('a value is not in the dictionary');
      if (Array.isArray(lookup)) return Array.from(places, (place) => lookup[place]);
      const values = lookup instanceof Float32Array ? new Float32Array(count) : new Float64Array(count);
      for (let i = 0; i < count; i++) values[i] = lookup[places[i]];
      return values;
    }
    case 'RLE': // booleans follow 4 bytes of length
      return Float64Array.from(readHybrid(bytes, 4, 1, new Uint8Array(count)));
    case 'BYTE_STREAM_SPLIT':
      return asValues(byteStreamSplit(reader, count, type, fixedLength));
    case 'DELTA_BINARY_PACKED': {
      const values = type === 'INT32' ? new Int32Array(count) : new BigInt64Array(count);
      deltaBinaryUnpack(reader, count, values);
      return asValues(values);
    }
    case 'DELTA_LENGTH_BYTE_ARRAY':
    case 'DELTA_BYTE_ARRAY': {
      const values = new Array<Uint8Array>(count);
      (encoding === 'DELTA_BYTE_ARRAY' ? deltaByteArray : deltaLengthByteArray)(reader, count, values);
      return values;
    }
    default:
      throw new Error(`encoding ${encoding}, which is not read here`);
  }
}

function asValues(decoded: ArrayLike<unknown>): Values {
  if (decoded instanceof Float32Array || decoded instanceof Float64Array) return decoded;
  if (decoded.length > 0 && decoded[0] instanceof Uint8Array) return decoded as unknown as Uint8Array[];
  return Float64Array.from(decoded, Number);
}

function readByteArrays(bytes: Uint8Array, count: number): Uint8Array[] {
  const lengths = view(bytes);
  let offset = 0;
  return Array.from({ length: count }, () => {
    const length = lengths.getUint32(offset, true);
    if (length > bytes.length - offset - 4) throw new Error(`a value of ${length} bytes leaves the page`);
    offset += 4 + length;
    return bytes.subarray(offset - length, offset);
  });
}

/** Reads parquet's hybrid of runs and packed bits (Encodings.md, "RLE") from byte `start` until `out` is full. */
export function readHybrid<T extends Uint8Array | Uint32Array>(
  bytes: Uint8Array,
  start: number,
  width: number,
  out: T,
): T {
  if (width > 24) throw new Error(`values of ${width} bits`);
  if (width === 0) return out;
  let offset = start;
  const next = () => {
    if (offset >= bytes.length) throw new Error('it ends before its last value');
    return bytes[offset++];
  };
  let done = 0;
  while (done < out.length) {
    let [header, shift, byte] = [0, 0, 0];
    do {
      byte = next();
      header += (byte & 127) * 2 ** shift;
      shift += 7;
      if (shift > 35) throw new Error('a run without end');
    } while (byte & 128);
    const run = Math.floor(header / 2);
    if (header % 2 === 0) {
      let value = 0;
      for (let i = 0; i < width; i += 8) value |= next() << i;
      const end = Math.min(out.length, done + run);
      if (run === 0) throw new Error('a run of no values');
      out.fill(value, done, end);
      done = end;
      continue;
    }
    const end = Math.min(out.length, done + run * 8);
    const mask = (1 << width) - 1;
    const after = offset + run * width;
    let [held, bits] = [0, 0];
    while (done < end) {
      while (bits < width) {
        held |= next() << bits;
        bits += 8;
      }
      out[done++] = held & mask;
      held >>>= width;
      bits -= width;
    }
    offset = after;
    if (run === 0) throw new Error('a run of no values');
  }
  return out;
}

const widthOf = (max: number) => 32 - Math.clz32(max);
const view = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
