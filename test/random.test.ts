import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { InputError } from '../engine/files/errors.ts';
import { philox, randomStream, streams } from '../engine/random.ts';

describe('philox', () => {
  // Known answers of the authors' Random123 library (kat_vectors, philox4x32 10).
  test.each([
    [
      [0, 0],
      [0, 0, 0, 0],
      [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
    ],
    [
      [0xffffffff, 0xffffffff],
      [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
      [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
    ],
    [
      [0xa4093822, 0x299f31d0],
      [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
      [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
    ],
  ])('known answer, key %j', (key, counter, expected) => {
    expect(philox(key as [number, number], counter as [number, number, number, number])).toEqual(expected);
  });

  test('agrees with 64-bit integers', () => {
    const word = fc.integer({ min: 0, max: 0xffffffff });
    fc.assert(
      fc.property(fc.tuple(word, word), fc.tuple(word, word, word, word), (key, counter) => {
        let [k0, k1] = key.map(BigInt);
        let [c0, c1, c2, c3] = counter.map(BigInt);
        const mask = 0xffffffffn;
        for (let round = 0; round < 10; round++) {
          const product0 = 0xd2511f53n * c0;
          const product1 = 0xcd9e8d57n * c2;
          [c0, c1, c2, c3] = [
            (product1 >> 32n) ^ c1 ^ k0,
            product1 & mask,
            (product0 >> 32n) ^ c3 ^ k1,
            product0 & mask,
          ];
          [k0, k1] = [(k0 + 0x9e3779b9n) & mask, (k1 + 0xbb67ae85n) & mask];
        }
        expect(philox(key, counter)).toEqual([c0, c1, c2, c3].map(Number));
      }),
      { seed: 1 },
    );
  });
});

describe('random stream', () => {
  test('words follow the documented layout', () => {
    const seed = 5 * 2 ** 32 + 17;
    const random = randomStream(seed, 9, streams.noise);
    for (const index of [0, 1, 2, 3, 4, 7, 1001, 2 ** 34 + 6]) {
      const block = Math.floor(index / 4);
      const words = philox([17, 5], [block % 2 ** 32, Math.floor(block / 2 ** 32), 9, streams.noise]);
      expect(random.uint32(index)).toBe(words[index % 4]);
    }
  });

  test('a number does not depend on what was drawn before', () => {
    const forward = randomStream(3, 4, 5);
    const backward = randomStream(3, 4, 5);
    const indices = [...Array(40).keys()];
    const there = indices.map((i) => forward.normal(i));
    const back = indices.toReversed().map((i) => backward.normal(i));
    expect(back.toReversed()).toEqual(there);
    expect([...randomStream(3, 4, 5).fillNormal(new Float32Array(9), 31)]).toEqual(there.slice(31).map(Math.fround));
  });

  test('seed, step and stream each change the numbers', () => {
    const first = [...Array(4).keys()].map((i) => randomStream(1, 2, 3).uint32(i));
    for (const other of [
      randomStream(2, 2, 3),
      randomStream(1, 3, 3),
      randomStream(1, 2, 4),
      randomStream(1 + 2 ** 32, 2, 3),
    ]) {
      expect([...Array(4).keys()].map((i) => other.uint32(i))).not.toEqual(first);
    }
  });

  test('streams have different numbers', () => {
    expect(new Set(Object.values(streams)).size).toBe(Object.keys(streams).length);
  });

  test('uniforms: in [0, 1), exact in float32, mean 1/2 and variance 1/12', () => {
    const n = 40000;
    const random = randomStream(7, 0, streams.time);
    const values = Float32Array.from({ length: n }, (_, i) => random.uniform(i));
    let [sum, squares] = [0, 0];
    values.forEach((value, i) => {
      if (value !== random.uniform(i) || value < 0 || value >= 1) throw new Error(`uniform ${i} is ${value}`);
      sum += value;
      squares += value * value;
    });
    // Five standard errors: sqrt(1/12/n) = 0.0014 for the mean, sqrt(1/180/n) = 0.00037 for the variance.
    expect(Math.abs(sum / n - 0.5)).toBeLessThan(0.0072);
    expect(Math.abs(squares / n - (sum / n) ** 2 - 1 / 12)).toBeLessThan(0.0019);
  });

  test('normals: mean 0, variance 1, fourth moment 3, neighbours uncorrelated', () => {
    const n = 40000;
    const values = randomStream(7, 1, streams.noise).fillNormal(new Float32Array(n));
    let [mean, second, fourth, neighbour] = [0, 0, 0, 0];
    for (let i = 0; i < n; i++) {
      mean += values[i] / n;
      second += values[i] ** 2 / n;
      fourth += values[i] ** 4 / n;
      neighbour += (values[i] * values[(i + 1) % n]) / n;
    }
    // Five standard errors: 1, sqrt(2), sqrt(96) and 1, over sqrt(n) = 200.
    expect(Math.abs(mean)).toBeLessThan(0.025);
    expect(Math.abs(second - 1)).toBeLessThan(0.036);
    expect(Math.abs(fourth - 3)).toBeLessThan(0.25);
    expect(Math.abs(neighbour)).toBeLessThan(0.025);
  });

  test('integers are below the bound and cover it evenly', () => {
    const random = randomStream(11, 0, streams.sampling);
    const counts = new Array(7).fill(0);
    for (let i = 0; i < 14000; i++) counts[random.integer(i, 7)]++;
    for (const count of counts) expect(Math.abs(count - 2000)).toBeLessThan(5 * Math.sqrt(2000));
    expect(random.integer(3, 1)).toBe(0);
    expect(random.integer(3, 2 ** 32)).toBe(random.uint32(3));
    expect(random.integer(3, 2 ** 31)).toBe(random.uint32(3) >>> 1);
  });

  test('permutations hold every number once and are even over the places', () => {
    expect([...randomStream(0, 0, streams.shuffle).permutation(0)]).toEqual([]);
    const places = Array.from({ length: 5 }, () => new Array(5).fill(0));
    for (let step = 0; step < 5000; step++) {
      const order = randomStream(0, step, streams.shuffle).permutation(5);
      expect([...order].sort()).toEqual([0, 1, 2, 3, 4]);
      order.forEach((value, place) => {
        places[value][place]++;
      });
    }
    for (const row of places) for (const count of row) expect(Math.abs(count - 1000)).toBeLessThan(5 * Math.sqrt(800));
  });

  test('bad arguments are named', () => {
    expect(() => randomStream(-1, 0, 0)).toThrow(InputError);
    expect(() => randomStream(0.5, 0, 0)).toThrow('seed 0.5');
    expect(() => randomStream(0, 2 ** 32, 0)).toThrow('step');
    expect(() => randomStream(0, 0, -1)).toThrow('stream');
    expect(() => randomStream(0, 0, 0).integer(0, 0)).toThrow('below 0');
  });
});
