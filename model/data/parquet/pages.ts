import type { CompressionCodec, PageHeader, SchemaTree } from 'hyparquet';
import { parquetHeader } from 'hyparquet/src/column.js';
import { type ByteSource, readRange } from '../../../engine/files/bytes.ts';
import { InputError, quote, reasonOf } from '../../../engine/files/errors.ts';

// Columns are read page by page: this file finds the pages, values.ts decodes one. Every length is checked before it
// decides an allocation. Random access costs one page (about 1 MB) instead of a row group.

/** The bytes of the largest page that is read; most writers make pages of about 1 MB. */
const PAGE_BYTES_LIMIT = 2 ** 28;
const PAGE_VALUES_LIMIT = 2 ** 24;
/** The codecs unpack a byte to at most this many; a page that claims more is damaged. */
const MOST_UNPACKED: Partial<Record<CompressionCodec, number>> = {
  UNCOMPRESSED: 1,
  SNAPPY: 64,
  GZIP: 1032,
  LZ4: 256,
  BROTLI: 2 ** 24,
};
const MOST_UNPACKED_OTHERWISE = 2 ** 15;
/** The bytes that are read at once to find page headers. */
const HEADER_WINDOW = 2 ** 16;

/** One column of one row group. */
export interface ColumnChunk {
  readonly path: readonly string[];
  readonly schemaPath: SchemaTree[];
  readonly codec: CompressionCodec;
  /** The number of leaf values, nulls included. */
  readonly values: number;
  /** The chunk's bytes in the file. */
  readonly start: number;
  readonly end: number;
}

/** The location of a page, and the range of its leaf values in the chunk. */
export interface Page {
  readonly header: PageHeader;
  readonly start: number;
  readonly end: number;
  /** The number of leaf values before the page in its chunk. */
  readonly first: number;
  readonly values: number;
}

export interface PageTable {
  readonly dictionary: Page | null;
  readonly pages: readonly Page[];
}

const isCount = (value: unknown, limit: number): value is number =>
  Number.isInteger(value) && (value as number) >= 0 && (value as number) <= limit;

/** Finds the pages of a column chunk by their headers alone. @throws InputError if a header is wrong */
export async function readPageTable(source: ByteSource, chunk: ColumnChunk, what: string): Promise<PageTable> {
  const fail = (complaint: string) => new InputError(`${source.name}: ${what}: ${complaint}`);
  if (!(chunk.start >= 4 && chunk.end > chunk.start && chunk.end <= source.size)) {
    throw fail(`its bytes ${chunk.start} to ${chunk.end} do not lie in the file of ${source.size}: damaged or cut off`);
  }
  const pages: Page[] = [];
  let dictionary: Page | null = null;
  let [first, offset] = [0, chunk.start];
  let windowStart = 0;
  let window: Uint8Array<ArrayBuffer> = new Uint8Array(0);
  while (first < chunk.values && offset < chunk.end) {
    const headerAt = async (size: number) => {
      if (offset + size > windowStart + window.length || offset < windowStart) {
        windowStart = offset;
        window = await readRange(source, offset, Math.min(chunk.end, offset + HEADER_WINDOW), what);
      }
      const reader = { view: new DataView(window.buffer, 0, window.length), offset: offset - windowStart };
      return { header: parquetHeader(reader), length: reader.offset - (offset - windowStart) };
    };
    // A header has about 30 bytes, or more with statistics of long values.
    const { header, length } = await headerAt(Math.min(1024, chunk.end - offset))
      .catch(() => headerAt(Math.min(HEADER_WINDOW, chunk.end - offset)))
      .catch((error) => {
        throw fail(`damaged page header at byte ${offset} (${reasonOf(error)})`);
      });
    const { compressed_page_size: size, uncompressed_page_size: full } = header;
    const start = offset + length;
    if (!isCount(size, chunk.end - start))
      throw fail(`a page of ${quote(size)} bytes at byte ${start} leaves its chunk`);
    const unpacked = size * (MOST_UNPACKED[chunk.codec] ?? MOST_UNPACKED_OTHERWISE);
    if (!isCount(full, Math.min(PAGE_BYTES_LIMIT, unpacked)))
      throw fail(`a page at byte ${start} says it unpacks to ${quote(full)} bytes`);
    const described = header.dictionary_page_header ?? header.data_page_header ?? header.data_page_header_v2;
    const values = described?.num_values;
    if (!isCount(values, PAGE_VALUES_LIMIT))
      throw fail(`a page at byte ${start} says it holds ${quote(values)} values`);
    const page = { header, start, end: start + size, first, values };
    if (header.type === 'DICTIONARY_PAGE') dictionary = page;
    else if (header.type === 'DATA_PAGE' || header.type === 'DATA_PAGE_V2') {
      if (first + values > chunk.values) throw fail(`its pages hold more than its ${chunk.values} values`);
      pages.push(page);
      first += values;
    }
    offset = page.end;
  }
  if (first !== chunk.values) throw fail(`its pages hold ${first} of its ${chunk.values} values`);
  return { dictionary, pages };
}
