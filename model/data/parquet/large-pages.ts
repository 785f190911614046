import { compressors } from 'hyparquet-compressors';
import { type ByteSource, readRange } from '../../../engine/files/bytes.ts';
import { InputError, reasonOf } from '../../../engine/files/errors.ts';
import type { ColumnChunk, Page } from './pages.ts';
import type { PageValues } from './values.ts';

// Writers put all images of an episode in one page (a dictionary, even), often tens of megabytes. To have one of them, the page is unpacked
// once to learn where each lies, and dropped; from then on only the 64 KiB pieces of an image are read and unpacked:
// snappy packs every 64 KiB for themselves (format_description.txt; snappy.cc, kBlockSize).

/** Bytes unpacked; smaller pages are kept as they are. */
const LARGE = 4 * 2 ** 20;
const PIECE = 65536;

/** Where the values of a large page of byte arrays lie. */
export interface LargePage {
  /** In the unpacked page: value i is starts[i] ... ends[i] - 1. */
  readonly starts: Uint32Array;
  readonly ends: Uint32Array;
  readonly definition: Uint8Array | null;
  /** Bytes of the unpacked page. */
  readonly size: number;
  /** In the file: where each piece of the unpacked page begins, and where the last ends; one piece where it is not packed. */
  readonly pieces: Float64Array;
  readonly packed: boolean;
}

let last: Promise<unknown> = Promise.resolve();

/** Unpacks pages, large ones one after the other: each takes more than twice its size, and a batch asks for many at once. */
export function inTurn<T>(pages: readonly (Page | null)[], unpack: () => Promise<T>): Promise<T> {
  if (pages.every((page) => !page || page.header.uncompressed_page_size < LARGE)) return unpack();
  const own = last.then(unpack);
  last = own.catch(() => {});
  return own;
}

/** What is kept of a page of byte arrays instead of its values; null for small pages, and those packed in another way. */
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
  if (values.some(({ buffer }) => buffer !== bytes.buffer)) return null; // put together from pieces
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

/** The bytes of value `number` of a large page. @throws InputError where they are damaged */
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
  // The pieces are a whole packed text of their own, but for its length in front.
  const head: number[] = [];
  for (let rest = length; ; rest >>>= 7) {
    head.push(rest > 127 ? (rest & 127) | 128 : rest);
    if (rest <= 127) break;
  }
  const text = new Uint8Array(head.length + packed.length);
  text.set(head);
  text.set(packed, head.length);
  try {
    return compressors.SNAPPY!(text, length).slice(start - first * PIECE, end - first * PIECE);
  } catch (error) {
    throw new InputError(`${source.name}: ${what}: damaged page (${reasonOf(error)})`);
  }
}

/** Where each 64 KiB of a snappy text begin, and its end; null where they are not packed for themselves. */
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
