import { joinBytes } from '../../engine/files/bytes.ts';
import { crc32 } from './checksum.ts';

// This file decodes the usual PNG files of cameras and data sets: 8 bits a channel, not interlaced, no palette. Their
// size is known before they are unpacked in one piece. fast-png, which reads all others, unpacks piece by piece with
// fflate, takes two to four times as long, and loses the end of a block with more than 128 KiB of literal bytes and no
// repetition (as the Rust crate png writes).

/** Samples per pixel by colour type: grey, colour, grey with alpha, colour with alpha. */
const CHANNELS: Readonly<Record<number, number>> = { 0: 1, 2: 3, 4: 2, 6: 4 };

/** Unpacks a zlib stream to at most `size` bytes. */
export type Inflate = (packed: Uint8Array, size: number) => Uint8Array;

/** Decodes a file of this kind to [height, width, channels]; null for another. @throws Error if it is damaged */
export function decodePlainPng(bytes: Uint8Array, inflate: Inflate) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const [width, height] = [view.getUint32(16), view.getUint32(20)];
  const channels = CHANNELS[view.getUint8(25)];
  if (view.getUint8(24) !== 8 || !channels || view.getUint8(28) !== 0) return null;
  const parts: Uint8Array[] = [];
  for (let at = 8, type = ''; type !== 'IEND'; ) {
    const length = view.getUint32(at);
    const end = at + 8 + length;
    type = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    if (crc32(bytes.subarray(at + 4, end)) !== view.getUint32(end)) throw new Error(`wrong checksum of its ${type}`);
    if (type === 'tRNS') return null;
    if (type === 'IDAT') parts.push(bytes.subarray(at + 8, end));
    at = end + 4;
  }
  const stride = width * channels;
  const size = height * (stride + 1);
  const unpacked = inflate(parts.length === 1 ? parts[0] : joinBytes(parts), size);
  if (unpacked.length !== size) throw new Error(`${unpacked.length} bytes of pixels, ${size} were expected`);
  return { width, height, channels, data: unfiltered(unpacked, height, stride, channels) };
}

/** Undoes the filters of rows, each a filter's number and bytes (PNG specification, section 9). */
function unfiltered(packed: Uint8Array, height: number, stride: number, channels: number): Uint8Array {
  // The bytes above the first row and to the left of every row count as zeros.
  const rows = new Uint8Array(stride + height * stride);
  for (let y = 0; y < height; y++) {
    const from = y * (stride + 1);
    const filter = packed[from];
    const row = rows.subarray((y + 1) * stride, (y + 2) * stride);
    const above = rows.subarray(y * stride, (y + 1) * stride);
    row.set(packed.subarray(from + 1, from + 1 + stride));
    if (filter === 1) for (let i = channels; i < stride; i++) row[i] += row[i - channels];
    else if (filter === 2) for (let i = 0; i < stride; i++) row[i] += above[i];
    else if (filter === 3) {
      for (let i = 0; i < channels; i++) row[i] += above[i] >> 1;
      for (let i = channels; i < stride; i++) row[i] += (row[i - channels] + above[i]) >> 1;
    } else if (filter === 4) {
      for (let i = 0; i < channels; i++) row[i] += above[i];
      for (let i = channels; i < stride; i++) row[i] += paeth(row[i - channels], above[i], above[i - channels]);
    } else if (filter !== 0) throw new Error(`filter ${filter} in row ${y}`);
  }
  return rows.subarray(stride);
}

/** Returns the neighbour that is nearest to left + above - corner. */
function paeth(left: number, above: number, corner: number): number {
  const a = Math.abs(above - corner);
  const b = Math.abs(left - corner);
  const c = Math.abs(left + above - 2 * corner);
  if (a <= b && a <= c) return left;
  return b <= c ? above : corner;
}
