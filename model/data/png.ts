import { joinBytes } from '../../engine/files/bytes.ts';
import { crc32 } from './checksum.ts';
import type { Image } from './dataset.ts';

// PNG files of every kind. Their size is known from the header before the pixels are unpacked, in one piece, with no copy.
// Decoders of others were measured: fast-png cuts long literal blocks and gives grey of less than 8 bits unscaled, pngjs takes
// two to three times as long and is for node only, @jsquash/png fills in what a cut-off file lacks and fails on good files
// after a thousand damaged ones.

/** Samples per pixel, and the bits that each may have, by colour type: grey, colour, palette, grey and colour with alpha. */
const kinds: Readonly<Record<number, { readonly channels: number; readonly bits: readonly number[] }>> = {
  0: { channels: 1, bits: [1, 2, 4, 8, 16] },
  2: { channels: 3, bits: [8, 16] },
  3: { channels: 1, bits: [1, 2, 4, 8] },
  4: { channels: 2, bits: [8, 16] },
  6: { channels: 4, bits: [8, 16] },
};
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
] as const;

/** Unpacks a zlib stream to at most `size` bytes. */
export type Inflate = (packed: Uint8Array, size: number) => Uint8Array;

/** Decodes a PNG file to RGB: grey is repeated, of 16 bits the upper 8 are taken, alpha is dropped. @throws Error if it is damaged */
export function decodePng(bytes: Uint8Array, inflate: Inflate): Image {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const [width, height] = [view.getUint32(16), view.getUint32(20)];
  const [bits, colour, , , interlaced] = bytes.subarray(24, 29);
  const { channels } = kinds[colour] ?? {};
  if (!channels || !kinds[colour].bits.includes(bits)) throw new Error(`colour type ${colour} of ${bits} bits`);
  const parts: Uint8Array[] = [];
  let palette: Uint8Array | undefined;
  for (let at = 8, type = ''; type !== 'IEND'; ) {
    const end = at + 8 + view.getUint32(at);
    type = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    if (crc32(bytes.subarray(at + 4, end)) !== view.getUint32(end)) throw new Error(`wrong checksum of its ${type}`);
    if (type === 'IDAT') parts.push(bytes.subarray(at + 8, end));
    if (type === 'PLTE') palette = bytes.subarray(at + 8, end);
    at = end + 4;
  }
  const pixelBits = channels * bits;
  const passes = (interlaced ? adam7 : ([[0, 0, 1, 1]] as const)).map(([left, top, across, down]) => {
    const [columns, rows] = [Math.ceil((width - left) / across), Math.ceil((height - top) / down)];
    return {
      left,
      top,
      across,
      down,
      columns,
      rows: columns > 0 ? rows : 0,
      stride: Math.ceil((columns * pixelBits) / 8),
    };
  });
  const size = passes.reduce((sum, { rows, stride }) => sum + rows * (stride + 1), 0);
  const unpacked = inflate(parts.length === 1 ? parts[0] : joinBytes(parts), size);
  if (unpacked.length !== size) throw new Error(`${unpacked.length} bytes of pixels, ${size} were expected`);
  const pixels = new Uint8Array(width * height * 3);
  let from = 0;
  for (const { left, top, across, down, columns, rows, stride } of passes) {
    let above: Uint8Array = new Uint8Array(stride); // the bytes above the first row count as zeros
    for (let y = 0; y < rows; y++, from += stride + 1) {
      const row = unpacked.subarray(from + 1, from + 1 + stride);
      unfilter(unpacked[from], row, above, Math.max(1, pixelBits >> 3));
      const to = ((top + y * down) * width + left) * 3;
      if (bits === 8 && channels === 3 && across === 1) pixels.set(row, to);
      else
        writeRow(
          row,
          columns,
          { bits, channels, palette: colour === PALETTE ? palette : null },
          pixels,
          to,
          across * 3,
        );
      above = row;
    }
  }
  return { width, height, pixels };
}

interface Samples {
  readonly bits: number;
  readonly channels: number;
  /** The colours that samples are numbers of; null if they are colours, undefined if the file lacks them. */
  readonly palette: Uint8Array | null | undefined;
}

/** Writes the pixels of a row to `pixels`, each `step` bytes after the one before. */
function writeRow(
  row: Uint8Array,
  columns: number,
  { bits, channels, palette }: Samples,
  pixels: Uint8Array,
  to: number,
  step: number,
): void {
  const [bytes, most] = [bits >> 3, (1 << bits) - 1];
  const [green, blue] = channels < 3 ? [0, 0] : [bytes, 2 * bytes];
  for (let x = 0, out = to; x < columns; x++, out += step) {
    if (bytes > 0 && palette === null) {
      const at = x * channels * bytes;
      pixels[out] = row[at];
      pixels[out + 1] = row[at + green];
      pixels[out + 2] = row[at + blue];
      continue;
    }
    const sample = (row[(x * bits) >> 3] >> (8 - bits - ((x * bits) & 7))) & most;
    if (palette === null) pixels.fill((sample * 255) / most, out, out + 3);
    else if (!palette || 3 * sample + 2 >= palette.length) throw new Error(`no colour ${sample} in its palette`);
    else for (let i = 0; i < 3; i++) pixels[out + i] = palette[3 * sample + i];
  }
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
