import { type ColumnMetaData, parquetRead, type SchemaElement } from 'hyparquet';
import { compressors, decompressZstd } from 'hyparquet-compressors';
import { joinBytes } from '../../../engine/files/bytes.ts';

// The library decodes what a page says, however much it is, and makes arrays of every list. So pages are bounded, unpacked and freed of
// their levels here, and the library is given their values alone.
// Source: github.com/apache/parquet-format: README.md, Encodings.md, parquet.thrift; github.com/apache/thrift: thrift-compact-protocol.md.

/** The values of a top-level column, which has several leaves if it holds groups of fields. */
export interface Leaf {
  /** The names from the top-level column down. */
  readonly path: readonly string[];
  readonly element: SchemaElement;
  /** The level of a value that is there (parquet's maximum definition level), and the number of lists around it. */
  readonly full: number;
  readonly lists: number;
}

/** A decoded page: levels are null if all of them would be zero, or the full one. */
export interface Page {
  readonly count: number;
  readonly repetition: Uint8Array | null;
  readonly definition: Uint8Array | null;
  /** The values that are there. */
  readonly values: ArrayLike<unknown>;
  /** The byte of the file at which a value of bytes lies; null if it was packed. */
  place(value: Uint8Array): number | null;
}

/** A row group may hold so many values of one column, which may unpack to so many bytes, or to PACKED_LIMIT times its own. */
export const VALUES_LIMIT = 2 ** 27;
const UNPACKED_LIMIT = 2 ** 28;
const PACKED_LIMIT = 64;

const unpackers = {
  ...compressors,
  ZSTD: (input: Uint8Array, length: number) => decompressZstd(input, new Uint8Array(length)),
};
/** The types of pages: of the first version, the dictionary of a column, and of the second version. */
const [DATA, DICTIONARY, DATA_2] = [0, 2, 3];
/** Encodings by number; the others are PLAIN and such of a known size. DELTA_BYTE_ARRAY can unpack to any size. */
const [RUNS, DELTA_BYTE_ARRAY, dictionaries] = [3, 7, [2, 8]];

/** What times become: seconds. Texts in JSON stay texts. */
const decoder = new TextDecoder();
const parsers = {
  timestampFromMilliseconds: (value: bigint) => Number(value) / 1e3,
  timestampFromMicroseconds: (value: bigint) => Number(value) / 1e6,
  timestampFromNanoseconds: (value: bigint) => Number(value) / 1e9,
  dateFromDays: (days: number) => days * 86_400,
  jsonFromBytes: (bytes: Uint8Array) => decoder.decode(bytes),
};

/**
 * Decodes the pages of a leaf in a row group; `bytes` are all of them, from byte `place` of the file on.
 *
 * @throws Error if a page is damaged, or claims more than its column holds
 */
export async function* decodePages(
  bytes: Uint8Array,
  place: number,
  leaf: Leaf,
  chunk: ColumnMetaData,
): AsyncGenerator<Page> {
  const total = Number(chunk.num_values);
  if (!(total >= 0 && total <= VALUES_LIMIT))
    throw new Error(`it says it holds ${total} values, at most ${VALUES_LIMIT} are read`);
  let room = Math.min(Number(chunk.total_uncompressed_size), Math.max(UNPACKED_LIMIT, PACKED_LIMIT * bytes.length));
  let done = 0;
  let dictionary = { bytes: new Uint8Array(0), place: 0, count: 0 };
  const reader = new Reader(bytes);
  while (reader.at < bytes.length && done < total) {
    const header = reader.struct();
    const [type, size, packedSize] = [1, 2, 3].map((field) => Number(header[field]));
    if (type !== DATA && type !== DATA_2 && type !== DICTIONARY) throw new Error(`a page of type ${type}`);
    const inner = (header[type + 5] ?? {}) as Record<number, number> & { readonly 7?: boolean };
    const count = Number(inner[1]);
    const start = reader.at;
    const packed = bytes.subarray(start, start + packedSize);
    reader.at += packedSize;
    room -= size;
    if (type !== DICTIONARY) done += count;
    if (!(packedSize >= 0 && reader.at <= bytes.length)) throw new Error('a page leaves its column');
    if (!(size >= 0 && room >= 0)) throw new Error(`a page says it unpacks to ${size} bytes`);
    if (!(count >= 0 && count <= total && done <= total))
      throw new Error(`a page says it holds ${count} of ${total} values`);
    // In the second version the levels come first, not packed and without their lengths.
    const lengths = type === DATA_2 ? [inner[6], inner[5]] : [0, 0];
    const levelBytes = lengths[0] + lengths[1];
    if (!(Math.min(...lengths) >= 0 && levelBytes <= packed.length)) throw new Error('levels leave their page');
    const stored = chunk.codec === 'UNCOMPRESSED' || (type === DATA_2 && inner[7] === false);
    let body = packed.subarray(levelBytes);
    if (!stored) body = unpack(body, size - levelBytes, chunk.codec);
    if (type === DICTIONARY) {
      const head = pageHead(DICTIONARY, body.length, [count, 0]);
      dictionary = { bytes: joinBytes([head, body]), place: place + start - head.length, count };
      continue;
    }
    const [repetition, definition] = [leaf.lists, leaf.full].map((highest, i) => {
      if (highest === 0) return null;
      const second = packed.subarray(i * lengths[0], i * lengths[0] + lengths[i]);
      const own = type === DATA_2 ? second : withLength(body);
      if (type === DATA) body = body.subarray(4 + own.length);
      return readRuns(own, 32 - Math.clz32(highest), new Uint8Array(count));
    });
    const present = definition ? definition.reduce((sum, level) => sum + (level === leaf.full ? 1 : 0), 0) : count;
    const encoding = inner[type === DATA ? 2 : 4];
    if (encoding === DELTA_BYTE_ARRAY) throw new Error('encoding DELTA_BYTE_ARRAY, which is not read here');
    // The library bounds neither runs nor places.
    if (dictionaries.includes(encoding) && present > 0) {
      const places = readRuns(body.subarray(1), body[0], new Uint32Array(present));
      if (places.some((own) => own >= dictionary.count)) throw new Error('a value is not in the dictionary');
    }
    if (encoding === RUNS) readRuns(withLength(body), 1, new Uint8Array(present));
    const head = pageHead(DATA, body.length, [present, encoding, RUNS, RUNS]);
    const values = present === 0 ? [] : await decode(leaf, joinBytes([dictionary.bytes, head, body]), present);
    const split = dictionary.bytes.length;
    const bodyPlace = place + reader.at - body.length - head.length - split;
    yield {
      count,
      repetition,
      definition: present === count ? null : definition,
      values,
      place({ byteOffset: at }) {
        if (!stored) return null;
        return at + (at < split ? dictionary.place : bodyPlace);
      },
    };
  }
  if (done !== total) throw new Error(`it has ${done} of its ${total} values`);
}

/** Decodes a file of a dictionary, if there is one, and a page of `count` values, with neither lists nor empty places. */
async function decode({ element }: Leaf, bytes: Uint8Array<ArrayBuffer>, count: number): Promise<ArrayLike<unknown>> {
  const [length, total] = [BigInt(bytes.length), BigInt(count)];
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
  let values: ArrayLike<unknown> = [];
  await parquetRead({
    file: { byteLength: bytes.length, slice: () => bytes.buffer },
    metadata: {
      version: 1,
      schema: [
        { name: 'file', num_children: 1 },
        { ...element, name: 'v', repetition_type: 'REQUIRED' },
      ],
      num_rows: total,
      row_groups: [{ columns, total_byte_size: length, num_rows: total }],
      metadata_length: 0,
    },
    utf8: false,
    geoparquet: false,
    parsers,
    onPage: ({ columnData }) => {
      values = columnData;
    },
  });
  if (values.length !== count) throw new Error(`a page holds ${values.length} of its ${count} values`);
  return values;
}

/** Writes the header of a page that is not packed. */
export function pageHead(type: number, length: number, inner: readonly number[]): Uint8Array {
  const bytes: number[] = [];
  const number = (value: number) => {
    bytes.push(0x15); // the next field, of 32 bits
    let rest = value * 2;
    for (; rest > 127; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 128);
    bytes.push(rest);
  };
  for (const value of [type, length, length]) number(value);
  bytes.push(((type + 2) << 4) | 12); // the struct of this type of page
  for (const value of inner) number(value);
  return Uint8Array.from([...bytes, 0, 0]);
}

function unpack(packed: Uint8Array, size: number, codec: ColumnMetaData['codec']): Uint8Array {
  const own = unpackers[codec];
  if (!own) throw new Error(`compression ${codec}, which is not read here`);
  const bytes = size === 0 ? new Uint8Array(0) : own(packed, size);
  if (bytes.length !== size) throw new Error(`a page unpacks to ${bytes.length} bytes, not to ${size}`);
  return bytes;
}

/** The bytes whose number precedes them. */
function withLength(bytes: Uint8Array): Uint8Array {
  const length = new DataView(bytes.buffer, bytes.byteOffset, bytes.length).getUint32(0, true);
  return bytes.subarray(4, 4 + length);
}

/** Reads runs of values of `width` bits, or packed ones (Encodings.md, "RLE"), until `out` is full. */
function readRuns<T extends Uint8Array | Uint32Array>(bytes: Uint8Array, width: number, out: T): T {
  if (!(width <= 24)) throw new Error(`places of ${width} bits`);
  const reader = new Reader(bytes);
  for (let done = 0; done < out.length && width > 0; ) {
    const header = reader.whole();
    const run = Math.floor(header / 2);
    if (run === 0) throw new Error('a run of no values');
    const end = Math.min(out.length, done + run * (header % 2 ? 8 : 1));
    if (header % 2 === 0) {
      // The library fills in whole runs, however long.
      if (run > out.length + 7) throw new Error(`a run of ${run} among ${out.length} values`);
      let value = 0;
      for (let i = 0; i < width; i += 8) value |= reader.next() << i;
      out.fill(value, done, end);
      done = end;
      continue;
    }
    const after = reader.at + run * width;
    let [held, bits] = [0, 0];
    while (done < end) {
      for (; bits < width; bits += 8) held |= reader.next() << bits;
      out[done++] = held & ((1 << width) - 1);
      held >>>= width;
      bits -= width;
    }
    reader.at = after;
  }
  return out;
}

type Fields = { readonly [field: number]: number | boolean | Fields | undefined };

/** Reads numbers and structs of Thrift's compact protocol. */
class Reader {
  at = 0;
  constructor(private readonly bytes: Uint8Array) {}

  /** A struct: its numbers, flags and structs by number of field. */
  struct(depth = 0): Fields {
    if (depth > 8) throw new Error('a header is nested too deeply');
    const fields: Record<number, Fields[number]> = {};
    let field = 0;
    for (let head = this.next(); head !== 0; head = this.next()) {
      field = head >> 4 ? field + (head >> 4) : this.#signed();
      fields[field] = this.#value(head & 15, depth);
    }
    return fields;
  }

  /** A whole number of seven bits a byte. */
  whole(): number {
    let [value, scale, byte] = [0, 1, 128];
    for (; byte & 128; scale *= 128) {
      if (scale > 2 ** 63) throw new Error('a number without end');
      byte = this.next();
      value += (byte & 127) * scale;
    }
    return value;
  }

  #signed(): number {
    const value = this.whole();
    return value % 2 ? -(value + 1) / 2 : value / 2;
  }

  #value(type: number, depth: number): Fields[number] {
    if (type === 1 || type === 2) return type === 1;
    if (type === 3) return this.next();
    if (type === 4 || type === 5 || type === 6) return this.#signed();
    if (type === 12) return this.struct(depth + 1);
    if (type !== 8) throw new Error('a header is damaged');
    const length = this.whole(); // of bytes, such as the least value of a page, which are skipped
    this.at += length;
    return undefined;
  }

  next(): number {
    if (this.at >= this.bytes.length) throw new Error('a page is cut off');
    return this.bytes[this.at++];
  }
}
