import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { deflateSync } from 'node:zlib';
import fc from 'fast-check';
import { encode as encodePng } from 'fast-png';
import { unzlibSync } from 'fflate';
import { describe, expect, test } from 'vitest';
import { InputError } from '../../engine/files/errors.ts';
import { crc32 } from '../../model/data/checksum.ts';
import { decodeImage } from '../../model/data/image-files.ts';
import { imageTypeOf, isDepthImage, isPlainRgb } from '../../model/data/image-header.ts';
import { openDataset } from '../../model/data/index.ts';
import { decodePng } from '../../model/data/png.ts';
import { encodeJpeg, expectClear, gradientImage } from './synthetic.ts';

function withBytes(file: Uint8Array<ArrayBuffer>, place: number, ...bytes: number[]): Uint8Array<ArrayBuffer> {
  const changed = file.slice();
  changed.set(bytes, place);
  return changed;
}

function pngChunk(type: string, data: Uint8Array = new Uint8Array(0)): Uint8Array {
  const chunk = new Uint8Array(12 + data.length);
  const view = new DataView(chunk.buffer);
  view.setUint32(0, data.length);
  chunk.set(new TextEncoder().encode(type), 4);
  chunk.set(data, 8);
  view.setUint32(8 + data.length, crc32(chunk.subarray(4, 8 + data.length)));
  return chunk;
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

describe('decodeImage', () => {
  const image = gradientImage(20, 12);

  test('PNG: colour, alpha, grey, grey with alpha and 16 bits', async () => {
    const n = image.width * image.height;
    const grey = Uint8Array.from({ length: n }, (_, i) => i % 256);
    const interleave = (parts: ArrayLike<number>[], sizes: number[]) =>
      Array.from({ length: n }, (_, i) =>
        parts.flatMap((part, p) => Array.from({ length: sizes[p] }, (_, c) => part[i * sizes[p] + c])),
      ).flat();
    const greyRgb = Uint8Array.from(interleave([grey, grey, grey], [1, 1, 1]));
    const alpha = new Uint8Array(n).fill(7);
    const cases = [
      { data: image.pixels, channels: 3, expected: image.pixels },
      { data: Uint8Array.from(interleave([image.pixels, alpha], [3, 1])), channels: 4, expected: image.pixels },
      { data: grey, channels: 1, expected: greyRgb },
      { data: Uint8Array.from(interleave([grey, alpha], [1, 1])), channels: 2, expected: greyRgb },
      {
        data: Uint16Array.from(image.pixels, (value) => value * 256 + 99),
        channels: 3,
        depth: 16 as const,
        expected: image.pixels,
      },
    ];
    for (const { expected, ...data } of cases) {
      const file = encodePng({ width: image.width, height: image.height, ...data });
      const decoded = await decodeImage(new Uint8Array(file), 'image/png', 'x');
      expect(decoded).toEqual({ width: 20, height: 12, pixels: expected });
    }
  });

  test('PNG: every filter, pixels in several chunks, one block of literal bytes alone; unpacked here and by node', async () => {
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
    const head = Uint8Array.of(0, 0, 0, width, 0, 0, 0, height, 8, 2, 0, 0, 0);
    const packed = oneBlock(rows);
    const pieces = Array.from({ length: Math.ceil(packed.length / 8192) }, (_, i) =>
      packed.subarray(8192 * i, 8192 * (i + 1)),
    );
    const signature = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);
    const file = (parts: readonly Uint8Array[]) => {
      const chunks = parts.map((part) => pngChunk('IDAT', part));
      return Uint8Array.from(Buffer.concat([signature, pngChunk('IHDR', head), ...chunks, pngChunk('IEND')]));
    };
    const expected = { width, height, pixels };
    for (const parts of [pieces, [packed]]) expect(await decodeImage(file(parts), 'image/png', 'x')).toEqual(expected);
    const inBrowser = decodePng(file(pieces), (own, size) => unzlibSync(own, { out: new Uint8Array(size) }));
    expect(inBrowser).toEqual(expected);
    for (const [parts, complaint] of [
      [[deflateSync(rows.subarray(1))], 'bytes of pixels'],
      [[deflateSync(Buffer.concat([rows, rows]))], 'more pixels than the'],
      [[deflateSync(withBytes(rows, 0, 9))], 'filter 9 of a row'],
      [[packed.subarray(0, -9)], 'damaged or cut-off'],
    ] as const)
      await expect(decodeImage(file(parts), 'image/png', 'x')).rejects.toThrow(complaint);
  });

  test('JPEG: close to what was encoded', async () => {
    const decoded = await decodeImage(await encodeJpeg(image), 'image/jpeg', 'x');
    expect([decoded.width, decoded.height]).toEqual([20, 12]);
    const errors = [...decoded.pixels].map((value, i) => Math.abs(value - image.pixels[i]));
    expect(Math.max(...errors)).toBeLessThan(24);
    expect(errors.reduce((sum, error) => sum + error, 0) / errors.length).toBeLessThan(4);
  });

  test('damaged files: one line, and the next image is decoded as before', async () => {
    const jpeg = await encodeJpeg(gradientImage(64, 64));
    const png = new Uint8Array(encodePng({ ...image, data: image.pixels, channels: 3 }));
    const whole = await decodeImage(jpeg, 'image/jpeg', 'x');
    const frame = jpeg.findIndex((byte, i) => byte === 0xff && (jpeg[i + 1] & 0xfe) === 0xc0); // the size follows this marker
    for (const [bytes, type] of [
      [jpeg.slice(0, jpeg.length >> 1), 'image/jpeg'],
      [jpeg.slice(0, 30), 'image/jpeg'],
      [new Uint8Array(0), 'image/jpeg'],
      [png, 'image/jpeg'],
      [png.slice(0, png.length >> 1), 'image/png'],
      [png.slice(0, 20), 'image/png'],
      [jpeg, 'image/png'],
      [withBytes(jpeg, frame + 5, 255, 255, 255, 255), 'image/jpeg'],
      [withBytes(png, 16, 0, 1, 0, 0, 0, 1, 0, 0), 'image/png'],
    ] as const) {
      const failed = decodeImage(bytes, type, 'the image of step 3');
      const next = decodeImage(jpeg, 'image/jpeg', 'x');
      await expect(failed).rejects.toThrow(InputError);
      await expect(failed).rejects.toThrow(/^the image of step 3: damaged or cut-off image\/(png|jpeg) \(.+\)$/);
      expect(await next).toEqual(whole);
    }
    // The first damage is detected, the second makes the decoder itself fail.
    const damage = fc.tuple(fc.constantFrom(jpeg, png), fc.nat(), fc.nat(255), fc.nat());
    await fc.assert(
      fc.asyncProperty(damage, async ([file, place, byte, end]) => {
        const changed = withBytes(file, place % file.length, byte).slice(0, file.length - (end % 40));
        const type = file === jpeg ? 'image/jpeg' : 'image/png';
        await decodeImage(changed, type, 'x').catch((error) => expectClear(error, `x: damaged or cut-off ${type} (`));
        expect(await decodeImage(jpeg, 'image/jpeg', 'x')).toEqual(whole);
      }),
      { seed: 17, numRuns: 150 },
    );
    await expect(decodeImage(png, 'image/gif', 'x')).rejects.toThrow(
      'x: image type "image/gif" is not one of image/jpeg, image/png, image/webp',
    );
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
          const head = Uint8Array.of(0, 0, 0, width, 0, 0, 0, height, bits, colour, 0, 0, interlaced ? 1 : 0);
          const colours = colour === 3 ? [pngChunk('PLTE', palette), pngChunk('tRNS', Uint8Array.of(0))] : [];
          const pixels = deflateSync(Uint8Array.from(rows));
          const chunks = [pngChunk('IHDR', head), ...colours, pngChunk('IDAT', pixels), pngChunk('IEND')];
          const signature = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);
          const file = Uint8Array.from(Buffer.concat([signature, ...chunks]));
          const expected = Array.from({ length: 3 * width * height }, (_, i) => {
            const [y, x, c] = [Math.floor(i / 3 / width), Math.floor(i / 3) % width, i % 3];
            if (colour === 3) return palette[3 * sample(y, x, 0) + c];
            const own = sample(y, x, channels < 3 ? 0 : c);
            return bits === 16 ? own >> 8 : (own * 255) / (2 ** bits - 1);
          });
          expect([...(await decodeImage(file, 'image/png', 'x')).pixels]).toEqual(expected);
          expect(isDepthImage(file)).toBe(bits === 16 && colour === 0);
        },
      ),
      { seed: 22, numRuns: 300 },
    );
  });

  test('PNG: a number beyond its palette, and bits that its colour type does not have, are refused', async () => {
    const file = (bits: number, colour: number, palette: Uint8Array) => {
      const head = Uint8Array.of(0, 0, 0, 1, 0, 0, 0, 1, bits, colour, 0, 0, 0);
      const chunks = [pngChunk('PLTE', palette), pngChunk('IDAT', deflateSync(Uint8Array.of(0, 2))), pngChunk('IEND')];
      return Uint8Array.from(
        Buffer.concat([Uint8Array.of(0x89, 80, 78, 71, 13, 10, 26, 10), pngChunk('IHDR', head), ...chunks]),
      );
    };
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
      const bytes = new Uint8Array(Buffer.from(packed, 'base64'));
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

  test('a file that is no image, or one that is not read, is named', async () => {
    const of = (...bytes: (number | string)[]) =>
      Uint8Array.from(
        bytes.flatMap((own) => (typeof own === 'string' ? [...own].map((one) => one.charCodeAt(0)) : [own])),
      );
    for (const [bytes, name] of [
      [of(0x1f, 0x8b, 8), 'a file compressed by gzip'],
      [of('BM', 0, 0), 'a BMP file'],
      [of('GIF89a'), 'a GIF file'],
      [of('II*', 0), 'a TIFF file'],
      [of(0, 0, 0, 24, 'ftypavif'), 'an AVIF file'],
      [of('version https://git-lfs.github.com/spec/v1'), 'a pointer of Git LFS, whose file "git lfs pull" fetches'],
      [of(), 'an empty file'],
      [of('some text'), 'no image file'],
    ] as const)
      await expect(decodeImage(bytes, imageTypeOf(bytes), 'x')).rejects.toThrow(
        `x: ${name}; JPEG, PNG and WebP are read`,
      );
    const jpeg = await encodeJpeg(image);
    const frame = jpeg.findIndex((byte, i) => byte === 0xff && [0xc0, 0xc2].includes(jpeg[i + 1]));
    await expect(decodeImage(withBytes(jpeg, frame + 9, 4), 'image/jpeg', 'x')).rejects.toThrow('printers (CMYK)');
  });
});

const cases = join(import.meta.dirname, '../../../shared/cases');
const haveCases = existsSync(cases);
const folder22 = join(cases, '22-png-bit-depths');
const folder08 = join(cases, '08-png-kinds');
describe.skipIf(!haveCases)(`cases${haveCases ? '' : ' (skipped: ../shared/cases is not there)'}`, () => {
  test('22-png-bit-depths', async () => {
    for (const name of (await readdir(folder22)).filter((own) => own.endsWith('.png'))) {
      const { pixels } = await decodeImage(new Uint8Array(await readFile(join(folder22, name))), 'image/png', name);
      expect(pixels, name).toEqual(new Uint8Array(await readFile(join(folder22, name.replace('png', 'rgb')))));
    }
  });

  test('08-png-kinds', async () => {
    const expected = JSON.parse(await readFile(join(folder08, 'expected.json'), 'utf8'));
    const {
      episodes: [episode],
      cameras: [camera],
    } = await openDataset(folder08);
    for (const [i, name] of (expected.order as string[]).entries()) {
      const bytes = (await episode.imageFile!(camera, i))!;
      const found = decodeImage(bytes, imageTypeOf(bytes), name);
      if (name === 'cmyk') await expect(found).rejects.toThrow('cmyk: a JPEG file in the colours of printers');
      else if (name === 'bmp') await expect(found).rejects.toThrow('bmp: a BMP file');
      else {
        const { width, height, pixels } = await found;
        const at = 3 * (8 * width + 8);
        expect([...pixels.subarray(at, at + 3), width, height], name).toEqual(expected.pixel_8_8_then_size[name]);
      }
    }
  });
});

test('isPlainRgb accepts colour files of 8 bits without alpha and without an orientation', async () => {
  const jpeg = await encodeJpeg(gradientImage(9, 7));
  const png = (channels: 1 | 3 | 4, depth: 8 | 16 = 8) => {
    const data = depth === 8 ? new Uint8Array(12 * channels) : new Uint16Array(12 * channels);
    return encodePng({ width: 4, height: 3, data, channels, depth });
  };
  expect([jpeg, png(3)].map(isPlainRgb)).toEqual([true, true]);
  expect([png(1), png(4), png(3, 16)].map(isPlainRgb)).toEqual([false, false, false]);
  const exif = Uint8Array.from([
    ...jpeg.subarray(0, 2),
    0xff,
    0xe1,
    0,
    8,
    ...new TextEncoder().encode('Exif\0\0'),
    ...jpeg.subarray(2),
  ]);
  expect(await decodeImage(exif, 'image/jpeg', 'turned')).toEqual(await decodeImage(jpeg, 'image/jpeg', 'plain'));
  expect(isPlainRgb(exif)).toBe(false);
  const frame = jpeg.findIndex((byte, i) => byte === 0xff && [0xc0, 0xc2].includes(jpeg[i + 1]));
  expect(isPlainRgb(withBytes(jpeg, frame + 9, 1))).toBe(false); // one component: grey
});
