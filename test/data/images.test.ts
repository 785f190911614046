import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { withChannels } from '../../model/data/channels.ts';
import type { Image } from '../../model/data/dataset.ts';
import { ImageCache } from '../../model/data/image-files.ts';
import { normaliseImage, resizeWithPadding } from '../../model/data/images.ts';
import { datasetOf, episodeOf, gradientImage } from './synthetic.ts';

function pixel({ width, pixels }: Image, x: number, y: number): number[] {
  return [...pixels.subarray((y * width + x) * 3, (y * width + x) * 3 + 3)];
}

/** Computes the same as one sum over all input pixels, without separating the axes. */
function oracle(image: Image, width: number, height: number): Float64Array {
  const ratio = Math.max(image.width / width, image.height / height);
  const [w, h] = [Math.trunc(image.width / ratio), Math.trunc(image.height / ratio)];
  const triangle = (from: number, to: number, place: number, i: number) =>
    Math.max(0, 1 - Math.abs((place + 0.5) * (from / to) - 0.5 - i) / Math.max(1, from / to));
  const out = new Float64Array(width * height * 3);
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      const sum = [0, 0, 0];
      let total = 0;
      for (let j = 0; j < image.height; j++) {
        for (let i = 0; i < image.width; i++) {
          const weight = triangle(image.width, w, x, i) * triangle(image.height, h, y, j);
          total += weight;
          pixel(image, i, j).forEach((value, c) => {
            sum[c] += weight * value;
          });
        }
      }
      const place = (y + Math.floor((height - h) / 2)) * width + x + Math.floor((width - w) / 2);
      for (let c = 0; c < 3; c++) out[place * 3 + c] = sum[c] / total;
    }
  }
  return out;
}

describe('resizeWithPadding', () => {
  test('agrees with the direct sum, at any sizes', () => {
    const size = fc.integer({ min: 1, max: 17 });
    fc.assert(
      fc.property(
        size,
        size,
        fc.integer({ min: 6, max: 20 }),
        fc.integer({ min: 6, max: 20 }),
        fc.nat(),
        (w, h, W, H, seed) => {
          const ratio = Math.max(w / W, h / H);
          fc.pre(w / ratio >= 1 && h / ratio >= 1);
          const image = {
            width: w,
            height: h,
            pixels: Uint8Array.from({ length: w * h * 3 }, (_, i) => (i * (seed % 97) * 31) % 256),
          };
          const resized = resizeWithPadding(image, W, H);
          expect([resized.width, resized.height, resized.pixels.length]).toEqual([W, H, W * H * 3]);
          const expected = oracle(image, W, H);
          // The tolerance is half a level of rounding, and the difference of float64 sums in another order.
          resized.pixels.forEach((value, i) => {
            if (Math.abs(value - expected[i]) > 0.5 + 1e-9)
              throw new Error(`pixel value ${i}: ${value}, not ${expected[i]}`);
          });
        },
      ),
      { seed: 1, numRuns: 150 },
    );
  });

  test('keeps the aspect ratio, centres, and puts the odd row at the bottom', () => {
    const white = { width: 8, height: 3, pixels: new Uint8Array(8 * 3 * 3).fill(255) };
    const resized = resizeWithPadding(white, 16, 11);
    const rows = Array.from({ length: 11 }, (_, y) => pixel(resized, 7, y)[0]);
    expect(rows).toEqual([0, 0, 255, 255, 255, 255, 255, 255, 0, 0, 0]);
  });

  test('puts the odd column at the right', () => {
    const white = { width: 2, height: 4, pixels: new Uint8Array(24).fill(255) };
    const resized = resizeWithPadding(white, 5, 4);
    expect(Array.from({ length: 5 }, (_, x) => pixel(resized, x, 1)[0])).toEqual([0, 255, 255, 0, 0]);
  });

  test('halving averages over a triangle, doubling interpolates', () => {
    const row = { width: 4, height: 1, pixels: Uint8Array.from([0, 0, 0, 80, 80, 80, 160, 160, 160, 240, 240, 240]) };
    // The weights of the first output pixel are 1 - |0.5 - i| / 2 = 0.75, 0.75, 0.25 for i = 0, 1, 2.
    expect(pixel(resizeWithPadding(row, 2, 1), 0, 0)[0]).toBe(Math.round((0.75 * 80 + 0.25 * 160) / 1.75));
    const wide = resizeWithPadding(row, 8, 2);
    expect(Array.from({ length: 8 }, (_, x) => pixel(wide, x, 0)[0])).toEqual([0, 20, 60, 100, 140, 180, 220, 240]);
  });

  test('an image of the right size is the same', () => {
    const image = gradientImage(9, 7);
    expect(resizeWithPadding(image, 9, 7)).toBe(image);
  });
});

test('normaliseImage maps 0 and 255 to -1 and 1, into a place of a batch', () => {
  const image = { width: 1, height: 1, pixels: Uint8Array.of(0, 51, 255) };
  expect([...normaliseImage(image)]).toEqual([-1, (51 / 255) * 2 - 1, 1].map(Math.fround));
  const batch = normaliseImage(image, new Float32Array(6), 3);
  expect([...batch.subarray(0, 3)]).toEqual([0, 0, 0]);
  expect(batch[5]).toBe(1);
});

test('the colours of a data set may be in the order blue, green, red', async () => {
  const blue: Image = { width: 1, height: 2, pixels: Uint8Array.of(1, 2, 3, 4, 5, 6) };
  const episode = { ...episodeOf('a', [[1], [2]]), image: async () => blue, imageFile: async () => new Uint8Array(1) };
  const dataset = { ...datasetOf([]), episodes: [episode] };
  expect(withChannels(dataset, 'rgb')).toBe(dataset);
  const [swapped] = withChannels(dataset, 'bgr').episodes;
  const image = (await swapped.image('top', 0))!;
  expect([...image.pixels]).toEqual([3, 2, 1, 6, 5, 4]);
  expect(await swapped.image('top', 1)).toBe(image);
  expect(swapped.imageFile).toBeUndefined();
  expect([...blue.pixels]).toEqual([1, 2, 3, 4, 5, 6]);
});

describe('ImageCache', () => {
  const make = (size: number) => async () => ({ width: size, height: 1, pixels: new Uint8Array(size) });

  test('keeps the recently used images within its limit, and makes each held image once', async () => {
    const cache = new ImageCache(100);
    let made = 0;
    const get = (key: string, size = 40) =>
      cache.get(key, () => {
        made++;
        return make(size)();
      });
    await get('a');
    await get('b');
    await Promise.all([get('a'), get('a')]);
    expect(made).toBe(2);
    await get('c'); // drops b, the least recently used
    expect(cache.bytes).toBe(80);
    await get('a');
    expect(made).toBe(3);
    await get('b');
    expect(made).toBe(4);
    await get('large', 1000);
    expect(cache.bytes).toBeLessThanOrEqual(100);
  });

  test('does not hold a failure', async () => {
    const cache = new ImageCache(100);
    await expect(cache.get('a', () => Promise.reject(new Error('damaged')))).rejects.toThrow('damaged');
    expect((await cache.get('a', make(3))).width).toBe(3);
  });
});
