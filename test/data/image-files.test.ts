import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { encode as encodePng } from 'fast-png';
import { describe, expect, test } from 'vitest';
import { InputError } from '../../engine/files/errors.ts';
import { decodeImage } from '../../model/data/image-files.ts';
import { imageTypeOf, isPlainRgb, orientationOf } from '../../model/data/image-header.ts';
import { openDataset } from '../../model/data/index.ts';
import { encodeJpeg, expectClear, gradientImage } from './synthetic.ts';

function withBytes(file: Uint8Array<ArrayBuffer>, place: number, ...bytes: number[]): Uint8Array<ArrayBuffer> {
  const changed = file.slice();
  changed.set(bytes, place);
  return changed;
}

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
      'x: image type "image/gif"; JPEG, PNG and WebP are read',
    );
  });

  test('a file that is no image, or one that is not read, is named', async () => {
    const of = (...bytes: (number | string)[]) =>
      Uint8Array.from(
        bytes.flatMap((own) => (typeof own === 'string' ? [...own].map((one) => one.charCodeAt(0)) : [own])),
      );
    for (const [bytes, name] of [
      [of(0x1f, 0x8b, 8), 'a file compressed by gzip: unpack it'],
      [of('BM', 0, 0), 'a BMP file'],
      [of('GIF89a'), 'a GIF file'],
      [of('II*', 0), 'a TIFF file'],
      [of(0, 0, 0, 24, 'ftypavif'), 'an AVIF file'],
      [of('version https://git-lfs.github.com/spec/v1'), 'a Git LFS pointer: run git lfs pull'],
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

test('the Exif orientation of JPEG, PNG and WebP, in both orders of bytes', async () => {
  const text = (own: string) => [...own].map((one) => one.charCodeAt(0));
  const tiff = (little: boolean, value: number) => {
    const [two, four] = [
      (own: number) => (little ? [own, 0] : [0, own]),
      (own: number) => (little ? [own, 0, 0, 0] : [0, 0, 0, own]),
    ];
    const entry = (tag: readonly number[], own: number) => [...tag, ...two(3), ...four(1), ...two(own), 0, 0];
    const [make, orientation] = [
      [0x0f, 0x01],
      [0x12, 0x01],
    ].map((tag) => (little ? tag : tag.toReversed()));
    const list = [...two(2), ...entry(make, 9), ...entry(orientation, value), ...four(0)];
    return [...text(little ? 'II' : 'MM'), ...two(42), ...four(8), ...list];
  };
  const plain = {
    jpeg: await encodeJpeg(gradientImage(8, 8)),
    png: encodePng({ width: 8, height: 8, data: gradientImage(8, 8).pixels, channels: 3 }),
  };
  expect([orientationOf(plain.jpeg), orientationOf(plain.png)]).toEqual([1, 1]);
  for (const little of [true, false]) {
    for (const value of [1, 3, 6, 8]) {
      const exif = tiff(little, value);
      const marked = [...text('Exif'), 0, 0, ...exif];
      const jpeg = [0xff, 0xd8, 0xff, 0xe1, 0, marked.length + 2, ...marked, ...plain.jpeg.subarray(2)];
      const png = [...plain.png.subarray(0, 33), 0, 0, 0, exif.length, ...text('eXIf'), ...exif, 0, 0, 0, 0];
      const chunk = (kind: string, own: readonly number[]) => [...text(kind), own.length, 0, 0, 0, ...own];
      const webp = [
        ...text('RIFF'),
        0,
        0,
        0,
        0,
        ...text('WEBP'),
        ...chunk('VP8 ', [1, 2, 3]),
        0,
        ...chunk('EXIF', exif),
      ];
      for (const file of [jpeg, png, webp]) {
        expect(orientationOf(Uint8Array.from(file))).toBe(value);
        for (let end = 12; end < file.length; end += 5) orientationOf(Uint8Array.from(file.slice(0, end)));
      }
    }
  }
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
