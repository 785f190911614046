import { joinBytes } from '../../engine/files/bytes.ts';
import { crc32 } from '../../engine/files/checksum.ts';
import type { Image } from './dataset.ts';
import { headerOf } from './image-header.ts';

// PNG files of every kind. Their size is known from the header before the pixels are unpacked, in one piece, with no copy.
// Decoders of others were measured: fast-png cuts long literal blocks and gives grey of less than 8 bits unscaled, pngjs takes
// two to three times as long and is for node only, @jsquash/png fills in what a cut-off file lacks and fails on good files
// after a thousand damaged ones.

/** The colour type whose samples are numbers of colours in the file's palette. */
const PALETTE = 3;

/** The first column and row of each pass of an interlaced file (Adam7), and the distances to the next ones. */
const adam7 = [
  [0, 0, 8, 8],
  [4, 0, 8, 8],
  [0, 4, 4, 8],
  [2, 0, 4, 4],
  [0, 2, 2, 4],
  [1, 0, 2, 2],
  [0, 1, 1, 2],
];

/** Unpacks a zlib stream to at most `size` bytes. */
export type Inflate = (packed: Uint8Array, size: number) => Uint8Array;

/** Decodes a PNG file to RGB: grey is repeated, of 16 bits the upper 8 are taken, alpha is dropped. @throws Error if it is damaged */
export function decodePng(bytes: Uint8Array, inflate: Inflate): Image {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const { width, height, bits, channels } = headerOf(bytes, 'image/png');
  const [colour, , , interlaced] = bytes.subarray(25, 29);
  const possible = bits === 8 || (bits === 16 ? colour !== PALETTE : channels === 1 && [1, 2, 4].includes(bits));
  if (!channels || !possible) throw new Error(`colour type ${colour} of ${bits} bits`);
  const parts: Uint8Array[] = [];
  let colours: Uint8Array = new Uint8Array(0);
  for (let at = 8, type = ''; type !== 'IEND'; ) {
    const end = at + 8 + view.getUint32(at);
    type = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    if (crc32(bytes.subarray(at + 4, end)) !== view.getUint32(end)) throw new Error(`wrong checksum of its ${type}`);
    if (type === 'IDAT') parts.push(bytes.subarray(at + 8, end));
    if (type === 'PLTE') colours = bytes.subarray(at + 8, end);
    at = end + 4;
  }
  const passes = (interlaced ? adam7 : [[0, 0, 1, 1]]).map(([left, top, across, down]) => {
    const columns = Math.ceil((width - left) / across);
    const rows = columns > 0 ? Math.ceil((height - top) / down) : 0;
    return { ...{ left, top, across, down, columns, rows }, stride: Math.ceil((columns * channels * bits) / 8) };
  });
  const size = passes.reduce((sum, { rows, stride }) => sum + rows * (stride + 1), 0);
  const unpacked = inflate(parts.length === 1 ? parts[0] : joinBytes(parts), size);
  if (unpacked.length !== size) throw new Error(`${unpacked.length} bytes of pixels, ${size} were expected`);
  const pixels = new Uint8Array(width * height * 3);
  const [green, blue] = channels < 3 ? [0, 0] : [1, 2];
  let from = 0;
  for (const { left, top, across, down, columns, rows, stride } of passes) {
    let above: Uint8Array = new Uint8Array(stride); // the bytes above the first row count as zeros
    for (let y = 0; y < rows; y++, from += stride + 1) {
      const row = unpacked.subarray(from + 1, from + 1 + stride);
      unfilter(unpacked[from], row, above, Math.max(1, (channels * bits) >> 3));
      above = row;
      let out = ((top + y * down) * width + left) * 3;
      if (bits === 8 && channels === 3 && across === 1) {
        pixels.set(row, out);
        continue;
      }
      const samples = samplesOf(row, columns * channels, bits, colour !== PALETTE);
      for (let x = 0; x < columns; x++, out += 3 * across) {
        const at = x * channels;
        if (colour === PALETTE) {
          if (3 * samples[at] + 2 >= colours.length) throw new Error(`no colour ${samples[at]} in its palette`);
          for (let i = 0; i < 3; i++) pixels[out + i] = colours[3 * samples[at] + i];
          continue;
        }
        pixels[out] = samples[at];
        pixels[out + 1] = samples[at + green];
        pixels[out + 2] = samples[at + blue];
      }
    }
  }
  return { width, height, pixels };
}

/** The samples of a row in bytes: the upper half of 16 bits; those of 1 to 4 bits in the range of 8 bits if they are `scaled`. */
function samplesOf(row: Uint8Array, count: number, bits: number, scaled: boolean): Uint8Array {
  if (bits === 8) return row;
  const most = (1 << bits) - 1;
  const samples = new Uint8Array(count);
  for (let i = 0; i < count; i++) {
    const packed = (row[(i * bits) >> 3] >> (8 - bits - ((i * bits) & 7))) & most;
    samples[i] = bits === 16 ? row[2 * i] : packed * (scaled ? 255 / most : 1);
  }
  return samples;
}

/** Undoes the filter of a row in its place (PNG specification, section 9); bytes to the left of it count as zeros. */
function unfilter(filter: number, row: Uint8Array, above: Uint8Array, step: number): void {
  const { length } = row;
  const first = Math.min(step, length);
  if (filter === 1) for (let i = step; i < length; i++) row[i] += row[i - step];
  else if (filter === 2) for (let i = 0; i < length; i++) row[i] += above[i];
  else if (filter === 3) {
    for (let i = 0; i < first; i++) row[i] += above[i] >> 1;
    for (let i = step; i < length; i++) row[i] += (row[i - step] + above[i]) >> 1;
  } else if (filter === 4) {
    for (let i = 0; i < first; i++) row[i] += above[i];
    for (let i = step; i < length; i++) row[i] += paeth(row[i - step], above[i], above[i - step]);
  } else if (filter !== 0) throw new Error(`filter ${filter} of a row`);
}

/** Returns the neighbour that is nearest to left + above - corner. */
function paeth(left: number, above: number, corner: number): number {
  const a = Math.abs(above - corner);
  const b = Math.abs(left - corner);
  const c = Math.abs(left + above - 2 * corner);
  if (a <= b && a <= c) return left;
  return b <= c ? above : corner;
}
