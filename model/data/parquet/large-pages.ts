import { compressors } from 'hyparquet-compressors';
import { type ByteSource, joinBytes, readRange } from '../../../engine/files/bytes.ts';
import { InputError, reasonOf } from '../../../engine/files/errors.ts';
import type { ColumnChunk, Page } from './pages.ts';
import type { PageValues } from './values.ts';

// Writers put all images of an episode in one page, or in its dictionary, often tens of megabytes. The page is unpacked
// once to find the place of each image, and dropped. From then on only the 64 KiB pieces of a requested image are read
// and unpacked, because snappy packs every 64 KiB independently (format_description.txt; snappy.cc, kBlockSize).

/** Pages that unpack to fewer bytes than this are kept as they are. */
const LARGE = 4 * 2 ** 20;
const PIECE = 65536;

/** The places of the values in a large page of byte arrays. */
export interface LargePage {
  /** Value i lies at bytes starts[i] to ends[i] - 1 of the unpacked page. */
  readonly starts: Uint32Array;
  readonly ends: Uint32Array;
  readonly definition: Uint8Array | null;
  /** The bytes of the unpacked page. */
  readonly size: number;
  /** The place in the file of each piece of the page, and the end of the last; one piece if it is not packed. */
  readonly pieces: Float64Array;
  readonly packed: boolean;
}

let last: Promise<unknown> = Promise.resolve();

/** Unpacks large pages one after the other: each takes more than twice its size, and a batch requests many at once. */
export function inTurn<T>(pages: readonly (Page | null)[], unpack: () => Promise<T>): Promise<T> {
  if (pages.every((page) => !page || page.header.uncompressed_page_size < LARGE)) return unpack();
  const own = last.then(unpack);
  last = own.catch(() => {});
  return own;
}

/** Finds the places that replace the values of a page of byte arrays; null if it is small, or packed in another way. */
export async function largePage(
  source: ByteSource,
  { codec }: ColumnChunk,
  { values, definition, repetition, store }: PageValues,
  what: string,
): Promise<LargePage | null> {
  if (!Array.isArray(values) || !store || repetition || store.bytes.length < LARGE) return null;
  const { bytes, page } = store;
  const starts = Uint32Array.from(values, ({ byteOffset }) => byteOffset - bytes.byteOffset);
  const ends = starts.map((own, i) => own + values[i].length);
  if (values.some(({ buffer }) => buffer !== bytes.buffer)) return null; // the values were assembled from pieces
  const second = page.header.data_page_header_v2;
  const begin = page.start + (second ? second.definition_levels_byte_length + second.repetition_levels_byte_length : 0);
  const size = bytes.length;
  const common = { starts, ends, definition, size };
  if (codec === 'UNCOMPRESSED' || second?.is_compressed === false)
    return { ...common, pieces: Float64Array.of(begin, page.end), packed: false };
  if (codec !== 'SNAPPY') return null;
  const pieces = piecesOf(await readRange(source, begin, page.end, what), size);
  return pieces && { ...common, pieces: pieces.map((offset) => begin + offset), packed: true };
}

/** Reads the bytes of value `number` of a large page. @throws InputError if they are damaged */
export async function readLargeValue(
  source: ByteSource,
  page: LargePage,
  number: number,
  what: string,
): Promise<Uint8Array> {
  const { pieces, size } = page;
  const [start, end] = [page.starts[number], page.ends[number]];
  if (!page.packed) return readRange(source, pieces[0] + start, pieces[0] + end, what);
  const [first, last] = [Math.floor(start / PIECE), Math.ceil(end / PIECE)];
  const packed = await readRange(source, pieces[first], pieces[last], what);
  const length = Math.min(size, last * PIECE) - first * PIECE;
  // With their unpacked length in front, the pieces are a complete snappy stream.
  const head: number[] = [];
  for (let rest = length; ; rest >>>= 7) {
    head.push(rest > 127 ? (rest & 127) | 128 : rest);
    if (rest <= 127) break;
  }
  const stream = joinBytes([Uint8Array.from(head), packed]);
  try {
    return compressors.SNAPPY!(stream, length).slice(start - first * PIECE, end - first * PIECE);
  } catch (error) {
    throw new InputError(`${source.name}: ${what}: damaged page (${reasonOf(error)})`);
  }
}

/** Finds the beginning of each 64 KiB in a snappy stream, and its end; null if they are not packed independently. */
function piecesOf(packed: Uint8Array, size: number): Float64Array | null {
  const pieces = new Float64Array(Math.ceil(size / PIECE) + 1);
  let at = 0;
  while (packed[at] & 128) at += 1;
  at += 1;
  let done = 0;
  while (at < packed.length) {
    if (done % PIECE === 0) pieces[done / PIECE] = at;
    const tag = packed[at++];
    const extra = (bytes: number) => {
      let value = 0;
      for (let i = 0; i < bytes; i++) value += packed[at++] * 256 ** i;
      return value;
    };
    const kind = tag & 3;
    let length = (tag >> 2) + 1;
    let back = 0;
    if (kind === 0) {
      if (length > 60) length = extra(length - 60) + 1;
      at += length;
    } else if (kind === 1) {
      length = ((tag >> 2) & 7) + 4;
      back = (tag >> 5) * 256 + extra(1);
    } else back = extra(kind === 2 ? 2 : 4);
    const within = done % PIECE;
    if (back > within || within + length > PIECE) return null;
    done += length;
  }
  if (done !== size || at !== packed.length) return null;
  pieces[pieces.length - 1] = packed.length;
  return pieces;
}
