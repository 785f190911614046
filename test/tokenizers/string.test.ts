import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { StringActionTokenizer } from '../../tokenizers/index.ts';

const tokenizer = new StringActionTokenizer();
const shape = { horizon: 2, dimension: 2 };

describe('StringActionTokenizer', () => {
  it('writes the numbers of test vector 13', () => {
    const data = Float32Array.of(0.0312, -0.5, 1, -0.00004);
    expect(tokenizer.format({ data, ...shape })).toBe('+0.0312 -0.5000;+1.0000 +0.0000');
  });

  it('clamps to one digit before the point', () => {
    const data = Float32Array.of(1e30, -12, 9.99999, 9.5);
    expect(tokenizer.format({ data, ...shape })).toBe('+9.9999 -9.9999;+9.9999 +9.5000');
  });

  it('comes back within half of the last digit, one id per character', () => {
    const anyChunk = fc
      .tuple(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 8 }))
      .chain(([horizon, dimension]) =>
        fc.record({
          horizon: fc.constant(horizon),
          dimension: fc.constant(dimension),
          data: fc.float32Array({
            min: -2,
            max: 2,
            noNaN: true,
            minLength: horizon * dimension,
            maxLength: horizon * dimension,
          }),
        }),
      );
    fc.assert(
      fc.property(anyChunk, (chunk) => {
        const ids = tokenizer.encode(chunk);
        expect(ids.length).toBe(8 * chunk.data.length - 1);
        expect(ids.every((id) => id >= 0 && id < tokenizer.vocabularySize)).toBe(true);
        tokenizer.decode(ids, chunk).forEach((value, index) => {
          expect(Math.abs(value - chunk.data[index])).toBeLessThanOrEqual(5e-5 + 2e-7);
        });
      }),
      { seed: 5, numRuns: 100 },
    );
  });

  it('takes nothing but its own form, and says where it differs', () => {
    expect(Array.from(tokenizer.parse('+0.0312 -0.5000;+1.0000 +0.0000', shape))).toEqual(
      [0.0312, -0.5, 1, 0].map(Math.fround),
    );
    expect(() => tokenizer.parse('+0.0312 -0.5000', shape)).toThrow('the text has 1 steps, the horizon is 2');
    expect(() => tokenizer.parse('+0.0312 -0.5000;+1.0000', shape)).toThrow('step 1 has 1 numbers, the dimension is 2');
    expect(() => tokenizer.parse('+0.0312 -0.5000;+1.0000 0.0000', shape)).toThrow(
      'step 1, dimension 1: "0.0000" is not of the form [+-]d.dddd',
    );
    for (const bad of ['+0.31', '+10.0000', '+1.0000\n', '+NaN', '']) {
      expect(() => tokenizer.parse(bad, { horizon: 1, dimension: 1 })).toThrow('is not of the form');
    }
    expect(() => tokenizer.decode([0, 15], shape)).toThrow('id 15 at position 1 is unknown; ids are 0 to 14');
    const nan = { data: Float32Array.of(Number.NaN), horizon: 1, dimension: 1 };
    expect(() => tokenizer.encode(nan)).toThrow('StringActionTokenizer: the value at step 0, dimension 0 is NaN');
  });
});
