import fc from 'fast-check';
import { unzlibSync, zlibSync } from 'fflate';
import { expect, test } from 'vitest';
import { joinBytes } from '../../engine/files/bytes.ts';
import { crc32 } from '../../engine/files/checksum.ts';
import { decodeImage } from '../../model/data/image-files.ts';
import { imageTypeOf, isDepthImage } from '../../model/data/image-header.ts';
import { decodePng } from '../../model/data/png.ts';

// These tests run in a browser too.

function pngChunk(type: string, data: Uint8Array = new Uint8Array(0)): Uint8Array {
  const chunk = new Uint8Array(12 + data.length);
  const view = new DataView(chunk.buffer);
  view.setUint32(0, data.length);
  chunk.set(new TextEncoder().encode(type), 4);
  chunk.set(data, 8);
  view.setUint32(8 + data.length, crc32(chunk.subarray(4, 8 + data.length)));
  return chunk;
}

/** Makes a PNG file of 8-bit numbers of a header, chunks of colours, and zlib streams of pixels. */
function pngFile(head: readonly number[], packed: readonly Uint8Array[], colours: readonly Uint8Array[] = []) {
  const signature = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);
  const pixels = packed.map((part) => pngChunk('IDAT', part));
  return joinBytes([signature, pngChunk('IHDR', Uint8Array.from(head)), ...colours, ...pixels, pngChunk('IEND')]);
}

/** Packs bytes as one zlib block of literals with fixed codes (RFC 1951, section 3.2.6), which zlib itself would divide. */
function oneBlock(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const out = [0x78, 0x01];
  let [held, count, a, b] = [0, 0, 1, 0];
  const put = (bit: number) => {
    held |= bit << count++;
    if (count < 8) return;
    out.push(held);
    [held, count] = [0, 0];
  };
  const code = (value: number, length: number) => {
    for (let bit = length - 1; bit >= 0; bit--) put((value >> bit) & 1);
  };
  code(0b110, 3); // the bits 1 (last block) and 01 (fixed codes), the lowest first
  for (const byte of bytes) {
    if (byte < 144) code(0x30 + byte, 8);
    else code(0x190 + byte - 144, 9);
    a = (a + byte) % 65521;
    b = (b + a) % 65521;
  }
  code(0, 7);
  while (count > 0) put(0);
  return Uint8Array.from([...out, b >> 8, b & 255, a >> 8, a & 255]);
}

// Images of 5 x 3 pixels of the colour 200, 100, 50; the last has alpha.
const lossyWebp = 'UklGRj4AAABXRUJQVlA4IDIAAADQAQCdASoFAAMAAMASJaACdLoB+AADsAD+2ib/7vN+09e09f1M//jKnyA/4yp/xcwAAA==';
const losslessWebp = 'UklGRh4AAABXRUJQVlA4TBEAAAAvBIAAAAdQsiJXpv+BiOh/AAA=';
const alphaWebp = 'UklGRh4AAABXRUJQVlA4TBEAAAAvBIAAEAdQsiJXpoCBiOh/AAA=';

test('PNG: every filter, pixels in several chunks, one block of literal bytes alone', async () => {
  const [width, height, channels] = [250, 190, 3];
  const stride = width * channels;
  const pixels = Uint8Array.from({ length: height * stride }, (_, i) => Math.imul(i, 0x9e3779b1) >>> 24);
  const at = (y: number, i: number) => (y < 0 || i < 0 ? 0 : pixels[y * stride + i]);
  const rows = new Uint8Array(height * (stride + 1));
  for (let y = 0; y < height; y++) {
    rows[y * (stride + 1)] = y % 5;
    for (let i = 0; i < stride; i++) {
      const [left, above, corner] = [at(y, i - channels), at(y - 1, i), at(y - 1, i - channels)];
      const distances = [left, above, corner].map((own) => Math.abs(left + above - corner - own));
      const nearest = [left, above, corner][distances.indexOf(Math.min(...distances))];
      const predicted = [0, left, above, (left + above) >> 1, nearest][y % 5];
      rows[y * (stride + 1) + 1 + i] = at(y, i) - predicted;
    }
  }
  const head = [0, 0, 0, width, 0, 0, 0, height, 8, 2, 0, 0, 0];
  const packed = oneBlock(rows);
  const pieces = Array.from({ length: Math.ceil(packed.length / 8192) }, (_, i) =>
    packed.subarray(8192 * i, 8192 * (i + 1)),
  );
  const expected = { width, height, pixels };
  for (const parts of [pieces, [packed]])
    expect(await decodeImage(pngFile(head, parts), 'image/png', 'x')).toEqual(expected);
  const inBrowser = decodePng(pngFile(head, pieces), (own, size) => unzlibSync(own, { out: new Uint8Array(size + 1) }));
  expect(inBrowser).toEqual(expected);
  for (const [parts, complaint] of [
    [[zlibSync(rows.subarray(1))], 'bytes of pixels'],
    [[zlibSync(joinBytes([rows, rows]))], /more pixels than the|bytes of pixels/],
    [[zlibSync(joinBytes([Uint8Array.of(9), rows.subarray(1)]))], 'filter 9 of a row'],
    [[packed.subarray(0, -9)], 'damaged or cut-off'],
  ] as const)
    await expect(decodeImage(pngFile(head, parts), 'image/png', 'x')).rejects.toThrow(complaint);
});

test('PNG: every colour type, number of bits and interlacing, of any size', async () => {
  const kinds = [
    [0, [1, 2, 4, 8, 16], 1],
    [2, [8, 16], 3],
    [3, [1, 2, 4, 8], 1],
    [4, [8, 16], 2],
    [6, [8, 16], 4],
  ] as const;
  const kind = fc.constantFrom(
    ...kinds.flatMap(([colour, bits, channels]) => bits.map((own) => ({ colour, bits: own, channels }))),
  );
  const size = fc.integer({ min: 1, max: 19 });
  await fc.assert(
    fc.asyncProperty(
      kind,
      size,
      size,
      fc.boolean(),
      fc.nat(),
      async ({ colour, bits, channels }, width, height, interlaced, seed) => {
        const sample = (y: number, x: number, c: number) =>
          (Math.imul(seed + 7 + x + 31 * y + 977 * c, 0x9e3779b1) >>> 8) % 2 ** bits;
        const palette = Uint8Array.from({ length: 3 * 2 ** Math.min(bits, 8) }, (_, i) => (seed + 37 * i) % 256);
        const rows: number[] = [];
        const passes = interlaced
          ? [
              [0, 0, 8, 8],
              [4, 0, 8, 8],
              [0, 4, 4, 8],
              [2, 0, 4, 4],
              [0, 2, 2, 4],
              [1, 0, 2, 2],
              [0, 1, 1, 2],
            ]
          : [[0, 0, 1, 1]];
        for (const [left, top, across, down] of passes)
          for (let y = top; y < height && left < width; y += down) {
            let text = '';
            for (let x = left; x < width; x += across)
              for (let c = 0; c < channels; c++) text += sample(y, x, c).toString(2).padStart(bits, '0');
            rows.push(0, ...(text.match(/.{1,8}/g) ?? []).map((byte) => Number.parseInt(byte.padEnd(8, '0'), 2)));
          }
        const head = [0, 0, 0, width, 0, 0, 0, height, bits, colour, 0, 0, interlaced ? 1 : 0];
        const colours = colour === 3 ? [pngChunk('PLTE', palette), pngChunk('tRNS', Uint8Array.of(0))] : [];
        const file = pngFile(head, [zlibSync(Uint8Array.from(rows))], colours);
        const expected = Array.from({ length: 3 * width * height }, (_, i) => {
          const [y, x, c] = [Math.floor(i / 3 / width), Math.floor(i / 3) % width, i % 3];
          if (colour === 3) return palette[3 * sample(y, x, 0) + c];
          const own = sample(y, x, channels < 3 ? 0 : c);
          return bits === 16 ? own >> 8 : (own * 255) / (2 ** bits - 1);
        });
        expect([...(await decodeImage(file, 'image/png', 'x')).pixels]).toEqual(expected);
        expect(isDepthImage(file)).toBe(bits === 16 && !(colour & 2));
      },
    ),
    { seed: 22, numRuns: 300 },
  );
});

test('PNG: a number beyond its palette, and bits that its colour type does not have, are refused', async () => {
  const file = (bits: number, colour: number, palette: Uint8Array) =>
    pngFile(
      [0, 0, 0, 1, 0, 0, 0, 1, bits, colour, 0, 0, 0],
      [zlibSync(Uint8Array.of(0, 2))],
      [pngChunk('PLTE', palette)],
    );
  expect((await decodeImage(file(8, 3, new Uint8Array(9).fill(5)), 'image/png', 'x')).pixels).toEqual(
    Uint8Array.of(5, 5, 5),
  );
  await expect(decodeImage(file(8, 3, new Uint8Array(6)), 'image/png', 'x')).rejects.toThrow(
    'no colour 2 in its palette',
  );
  await expect(decodeImage(file(16, 3, new Uint8Array(9)), 'image/png', 'x')).rejects.toThrow(
    'colour type 3 of 16 bits',
  );
});

test('WebP: lossy and lossless; the header says the size; cut-off files are one line', async () => {
  const decoded = async (packed: string) => {
    const bytes = Uint8Array.from(atob(packed), (character) => character.charCodeAt(0));
    expect(imageTypeOf(bytes)).toBe('image/webp');
    await expect(decodeImage(bytes.slice(0, -9), 'image/webp', 'x')).rejects.toThrow(
      'x: damaged or cut-off image/webp (',
    );
    return decodeImage(bytes, 'image/webp', 'x');
  };
  for (const [packed, apart] of [
    [lossyWebp, 6],
    [losslessWebp, 0],
    [alphaWebp, 0],
  ] as const) {
    const { width, height, pixels } = await decoded(packed);
    expect([width, height]).toEqual([5, 3]);
    for (const [i, value] of pixels.entries())
      expect(Math.abs(value - [200, 100, 50][i % 3])).toBeLessThanOrEqual(apart);
  }
});
