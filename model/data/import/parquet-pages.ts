import { type ColumnMetaData, type FileMetaData, parquetRead, type SchemaElement, type SchemaTree } from 'hyparquet';
import { compressors, decompressZstd } from 'hyparquet-compressors';
import { type ByteSource, joinBytes, readRange } from '../../../engine/files/bytes.ts';
import { InputError, quote, reasonOf } from '../../../engine/files/errors.ts';
import { crc32 } from '../checksum.ts';
import { type PageHeader, pageHead, readHeader, readHybrid } from './parquet-encoding.ts';

// The pages of a parquet file are found, bounded and unpacked here, and their levels read; hyparquet decodes the values. Whatever a
// page says is checked against the footer, and that against the file, before memory is taken for it.
// Source: github.com/apache/parquet-format: README.md, Encodings.md, parquet.thrift.

/** The values of a top-level column, which has several leaves if it holds groups of fields. */
export interface Leaf {
  /** The names from the top-level column down. */
  readonly path: readonly string[];
  readonly element: SchemaElement;
  /** The levels of a value that is there (parquet's maximum definition level), of an element of the innermost list, and of lists. */
  readonly full: number;
  readonly entry: number;
  readonly lists: number;
}

type Values = ArrayLike<unknown> & Iterable<unknown>;
type Levels = Uint8Array | null;

/** A decoded page. Levels are null if all of them would be zero, or the full one. */
export interface Page {
  /** The rows of the file that begin in it, from number `row` on; a list may go on in the next page. */
  readonly row: number;
  readonly count: number;
  readonly repetition: Levels;
  readonly definition: Levels;
  readonly values: Values;
  /** The byte of the file at which a value that is a view of bytes lies; null if the page is packed. */
  place(value: Uint8Array): number | null;
}

/** A page may unpack to so many bytes, or to PACKED_LIMIT times its own; a row group may hold so many values of one column. */
const PAGE_LIMIT = 2 ** 26;
const PACKED_LIMIT = 64;
const VALUES_LIMIT = 2 ** 27;
/** The bytes of a page header, which holds the least and the greatest value of the page. */
const HEADER_LIMIT = 2 ** 16;
/** A column of a row group that takes at most so many bytes of the file is read at once. */
const WHOLE = 2 ** 20;

const unpackers = {
  ...compressors,
  ZSTD: (input: Uint8Array, length: number) => decompressZstd(input, new Uint8Array(length)),
};
const encodings = [
  'PLAIN',
  '',
  'PLAIN_DICTIONARY',
  'RLE',
  'BIT_PACKED',
  'DELTA_BINARY_PACKED',
  'DELTA_LENGTH_BYTE_ARRAY',
];
encodings.push('DELTA_BYTE_ARRAY', 'RLE_DICTIONARY', 'BYTE_STREAM_SPLIT');
const widths: Partial<Record<string, number>> = { INT32: 4, INT64: 8, FLOAT: 4, DOUBLE: 8, BYTE_ARRAY: 4, INT96: 12 };
const texts = /^(STRING|JSON|ENUM|UTF8)$/;
const seconds: Partial<Record<string, number>> = { MILLIS: 1e-3, MICROS: 1e-6, NANOS: 1e-9 };

/**
 * Decodes the pages of a leaf in a row group whose first row is number `row`, one after the other, until those of row `to` - 1.
 *
 * @throws InputError if a page is damaged, or says what its file cannot hold
 */
export async function* chunkPages(
  source: ByteSource,
  leaf: Leaf,
  chunk: ColumnMetaData | undefined,
  row: number,
  to: number,
): AsyncGenerator<Page> {
  const fail = (complaint: string) => new InputError(`${source.name}: column ${quote(leaf.path[0])} ${complaint}`);
  if (!chunk) throw fail('lies in another file, which is not read here');
  const { codec } = chunk;
  const [data, dictionaryAt] = [Number(chunk.data_page_offset), Number(chunk.dictionary_page_offset ?? 0)];
  let at = dictionaryAt > 0 ? Math.min(data, dictionaryAt) : data;
  const end = at + Number(chunk.total_compressed_size);
  const [total, unpacked] = [Number(chunk.num_values), Number(chunk.total_uncompressed_size)];
  if (!(at >= 4 && end <= source.size)) throw fail(`lies outside the file (bytes ${at} to ${end} of ${source.size})`);
  if (!(total >= 0 && total <= VALUES_LIMIT))
    throw fail(`has ${total} values in a row group, at most ${VALUES_LIMIT} are read`);
  let dictionary: { values: Values; store: Uint8Array; place: number | null } | null = null;
  let done = 0;
  let next = row - 1;
  // A short column is read at once.
  const start = at;
  const whole = end - at <= WHOLE ? await readRange(source, start, end, `column ${quote(leaf.path[0])}`) : null;
  const read = (from: number, to: number) =>
    whole ? whole.subarray(from - start, to - start) : readRange(source, from, to, 'a page');
  while (at < end && done < total) {
    const begin = at;
    try {
      const { header, size: headSize } = readHeader(await read(at, Math.min(end, at + HEADER_LIMIT)));
      at += headSize + header.packed;
      if (!(header.packed >= 0 && at <= end)) throw new Error('it leaves its column');
      const most = Math.min(unpacked, Math.max(PAGE_LIMIT, PACKED_LIMIT * header.packed));
      if (!(header.unpacked >= 0 && header.unpacked <= most))
        throw new Error(`it says it unpacks to ${header.unpacked} bytes`);
      if (!(header.count >= 0 && header.count <= total - (header.kind === 'dictionary' ? 0 : done)))
        throw new Error(`it says it holds ${header.count} of ${total} values`);
      const packed = await read(begin + headSize, at);
      // Most writers leave out the checksum, which is signed in the file.
      if (header.crc !== null && crc32(packed) !== header.crc >>> 0) throw new Error('checksum');
      if (header.kind === 'index') continue;
      const levelBytes = header.levels ? header.levels[0] + header.levels[1] : 0;
      if (levelBytes > packed.length) throw new Error('its levels leave it');
      const plain = codec === 'UNCOMPRESSED' || header.stored;
      const body = plain
        ? packed.subarray(levelBytes)
        : unpack(packed.subarray(levelBytes), header.unpacked - levelBytes, codec);
      const place = plain ? begin + headSize + levelBytes : null;
      if (header.kind === 'dictionary') {
        dictionary = { values: await decode(leaf.element, 'PLAIN', header.count, body), store: body, place };
        continue;
      }
      const page = readLevels(header, leaf, packed, body);
      const present = page.definition
        ? page.definition.reduce((sum, level) => sum + (level === leaf.full ? 1 : 0), 0)
        : header.count;
      const encoding = encodings[header.encoding] ?? '';
      const shared: typeof dictionary = encoding.endsWith('_DICTIONARY') ? dictionary : null;
      const values = await decode(leaf.element, encoding, present, page.body, shared?.values);
      const first = next + (page.repetition?.[0] ? 0 : 1);
      next += page.repetition ? page.repetition.reduce((sum, level) => sum + (level === 0 ? 1 : 0), 0) : header.count;
      done += header.count;
      const store = shared ?? { store: body, place };
      yield {
        row: page.repetition?.[0] ? first + 1 : first,
        count: header.count,
        repetition: page.repetition,
        definition: present === header.count ? null : page.definition,
        values,
        place: (value: Uint8Array) => store.place && store.place + value.byteOffset - store.store.byteOffset,
      };
      if (next >= to) return;
    } catch (error) {
      if (error instanceof InputError) throw error;
      throw fail(`has a damaged page at byte ${begin} (${reasonOf(error)})`);
    }
  }
  if (done !== total) throw fail(`has ${done} of its ${total} values`);
}

/** Lists the leaves of a top-level column, or of a part of it at the given levels. */
export function leavesOf({ element, children, path }: SchemaTree, full = 0, entry = 0, lists = 0): Leaf[] {
  const level = full + (element.repetition_type === 'REQUIRED' ? 0 : 1);
  const repeated = element.repetition_type === 'REPEATED';
  const [innermost, around] = repeated ? [level, lists + 1] : [entry, lists];
  if (children.length === 0) return [{ path, element, full: level, entry: innermost, lists: around }];
  return children.flatMap((child) => leavesOf(child, level, innermost, around));
}

/** Whether byte arrays of this kind are texts. */
export const isText = ({ type, logical_type: logical, converted_type: converted }: SchemaElement) =>
  type === 'BYTE_ARRAY' && texts.test(logical?.type ?? converted ?? '');

/** The seconds of a unit of this kind of number; 1 if it is no time. */
export function secondsOf({ logical_type: logical, converted_type: converted }: SchemaElement): number {
  const unit =
    logical?.type === 'TIMESTAMP' || logical?.type === 'TIME'
      ? logical.unit
      : /^TIME.*_(M\w+)$/.exec(converted ?? '')?.[1];
  return seconds[unit ?? ''] ?? 1;
}

/** What the footer says about a leaf in a row group. */
export function chunkOf(
  chunks: FileMetaData['row_groups'][number]['columns'],
  { path }: Leaf,
): ColumnMetaData | undefined {
  const key = path.join('\n');
  const found = chunks.find(({ meta_data: own }) => own?.path_in_schema.join('\n') === key);
  return found?.file_path ? undefined : found?.meta_data;
}

function unpack(packed: Uint8Array, length: number, codec: ColumnMetaData['codec']): Uint8Array {
  const own = unpackers[codec];
  if (!own) throw new Error(`compression ${codec}, which is not read here`);
  const bytes = length === 0 ? packed.subarray(0, 0) : own(packed, length);
  if (bytes.length !== length) throw new Error(`it unpacks to ${bytes.length} bytes, not to ${length}`);
  return bytes;
}

/** Splits the levels of a page from its values. */
function readLevels(header: PageHeader, leaf: Leaf, packed: Uint8Array, unpacked: Uint8Array) {
  const { count, levels } = header;
  let body = unpacked;
  let from = 0;
  const read = (highest: number, second: 0 | 1): Levels => {
    if (highest === 0) return null;
    let bytes: Uint8Array;
    if (levels) {
      bytes = packed.subarray(from, from + levels[second]);
      from += levels[second];
    } else {
      const length = body.length < 4 ? 0 : view(body).getUint32(0, true);
      if (length > body.length - 4) throw new Error('its levels leave it');
      bytes = body.subarray(4, 4 + length);
      body = body.subarray(4 + length);
    }
    return readHybrid(bytes, 0, 32 - Math.clz32(highest), new Uint8Array(count));
  };
  const repetition = read(leaf.lists, 0);
  if (levels) from = levels[0];
  const definition = read(leaf.full, 1);
  return { repetition, definition, body };
}

/** Decodes `count` values; 64-bit integers stay bigint, texts become strings, other byte arrays are views of `bytes`. */
async function decode(
  element: SchemaElement,
  encoding: string,
  count: number,
  bytes: Uint8Array,
  dictionary?: Values,
): Promise<Values> {
  if (count === 0) return [];
  if (encoding.endsWith('_DICTIONARY')) {
    if (!dictionary) throw new Error('no dictionary');
    const places = readHybrid(bytes, 1, bytes[0], new Uint32Array(count));
    if (places.some((place) => place >= dictionary.length)) throw new Error('a value is not in the dictionary');
    if (!(dictionary instanceof Float32Array)) return Array.from(places, (place) => dictionary[place]);
    return Float32Array.from(places, (place) => dictionary[place]);
  }
  if (encoding === 'RLE') return readHybrid(bytes, 4, 1, new Uint8Array(count)); // booleans follow 4 bytes of length
  const size = element.type === 'FIXED_LEN_BYTE_ARRAY' ? (element.type_length ?? 1) : widths[element.type ?? ''];
  if (/^(PLAIN|BYTE_STREAM_SPLIT)$/.test(encoding) && count * (size ?? 1 / 8) > bytes.length)
    throw new Error(`${bytes.length} bytes for ${count} values`);
  const bytesOnly = encoding === 'PLAIN' && element.type === 'BYTE_ARRAY';
  const values = bytesOnly ? plainByteArrays(bytes, count) : await decodeByLibrary(element, encoding, count, bytes);
  if (values.length !== count) throw new Error(`${values.length} of ${count} values`);
  if (!isText(element)) return values;
  const decoder = new TextDecoder();
  return Array.from(values as Iterable<Uint8Array>, (value) => decoder.decode(value));
}

/** The library is given a file of one page, plain and with all values there. */
async function decodeByLibrary(
  element: SchemaElement,
  encoding: string,
  count: number,
  bytes: Uint8Array,
): Promise<Values> {
  const number = encodings.indexOf(encoding);
  if (number < 0 || encoding === 'BIT_PACKED')
    throw new Error(`encoding ${encoding || 'unknown'}, which is not read here`);
  const file = joinBytes([pageHead(bytes.length, count, number), bytes]);
  const [length, total] = [BigInt(file.length), BigInt(count)];
  const timed = secondsOf(element) !== 1 || isText(element);
  const plain = timed ? { ...element, logical_type: undefined, converted_type: undefined } : element;
  const leaf: SchemaElement = { ...plain, name: 'v', repetition_type: 'REQUIRED' };
  const meta_data: ColumnMetaData = {
    type: element.type!,
    encodings: [],
    path_in_schema: ['v'],
    codec: 'UNCOMPRESSED',
    num_values: total,
    total_uncompressed_size: length,
    total_compressed_size: length,
    data_page_offset: 0n,
  };
  const columns = [{ file_offset: 0n, meta_data }];
  let values: Values = [];
  await parquetRead({
    file: { byteLength: file.length, slice: () => file.buffer },
    metadata: {
      version: 1,
      schema: [{ name: 'file', num_children: 1 }, leaf],
      num_rows: total,
      row_groups: [{ columns, total_byte_size: length, num_rows: total }],
      metadata_length: 0,
    },
    utf8: false,
    geoparquet: false,
    onPage: ({ columnData }) => {
      values = columnData as Values;
    },
  });
  return values;
}

function plainByteArrays(bytes: Uint8Array, count: number): Uint8Array[] {
  const lengths = view(bytes);
  let offset = 0;
  return Array.from({ length: count }, () => {
    const length = lengths.getUint32(offset, true);
    if (length > bytes.length - offset - 4) throw new Error(`a value of ${length} bytes leaves it`);
    offset += 4 + length;
    return bytes.subarray(offset - length, offset);
  });
}

const view = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
