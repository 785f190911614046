import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BinActionTokenizer, digitizeState } from '../../tokenizers/index.ts';

const values = [-1.2, -1, -0.999, -0.5, 0, 0.25, 0.999, 1, 1.2];
const shape = { horizon: 3, dimension: 3 };

describe('BinActionTokenizer', () => {
  const tokenizer = new BinActionTokenizer();

  it('gives the indices and centres of test vector 11', () => {
    const ids = tokenizer.encode({ data: Float32Array.from(values), ...shape });
    expect(Array.from(ids, (id) => id + 1)).toEqual([1, 1, 1, 64, 128, 160, 255, 256, 256]);
    const centres = [-0.996078, -0.996078, -0.996078, -0.501961, 0, 0.25098, 0.996078, 0.996078, 0.996078];
    tokenizer.decode(ids, shape).forEach((value, index) => {
      expect(Math.abs(value - centres[index])).toBeLessThan(1e-6);
    });
    expect(tokenizer.vocabularySize).toBe(256);
  });

  it('comes back within half a bin', () => {
    const anyValue = fc.float({ min: -1, max: 1, noNaN: true });
    fc.assert(
      fc.property(anyValue, fc.integer({ min: 2, max: 1000 }), (value, bins) => {
        const one = new BinActionTokenizer({ bins });
        const line = { horizon: 1, dimension: 1 };
        const [decoded] = one.decode(one.encode({ data: Float32Array.of(value), ...line }), line);
        expect(Math.abs(decoded - value)).toBeLessThanOrEqual(1 / (bins - 1) + 1e-7);
      }),
      { seed: 4, numRuns: 500 },
    );
  });

  it('names bad input', () => {
    const nan = { data: Float32Array.of(0, Number.NaN), horizon: 1, dimension: 2 };
    expect(() => tokenizer.encode(nan)).toThrow('the value at step 0, dimension 1 is NaN');
    expect(() => tokenizer.decode([1, 2], shape)).toThrow('2 ids, but horizon 3 x dimension 3 needs 9');
    expect(() => tokenizer.decode([256], { horizon: 1, dimension: 1 })).toThrow('id 256 at position 0 is unknown');
    expect(() => new BinActionTokenizer({ bins: 1 })).toThrow('bins must be an integer of at least 2, got 1');
  });
});

describe('digitizeState', () => {
  it('gives test vector 11, clamped or as openpi leaves it', () => {
    expect(Array.from(digitizeState(values))).toEqual([0, 0, 0, 64, 128, 160, 255, 255, 255]);
    expect(Array.from(digitizeState(values, { clamp: false }))).toEqual([-1, 0, 0, 64, 128, 160, 255, 255, 255]);
  });

  it('takes another number of bins', () => {
    expect(Array.from(digitizeState([-1, -0.01, 0, 0.99, 1], { bins: 4 }))).toEqual([0, 1, 2, 3, 3]);
    expect(Array.from(digitizeState([-7, 7], { bins: 1 }))).toEqual([0, 0]);
  });

  it('names bad input', () => {
    expect(() => digitizeState([0, Number.NEGATIVE_INFINITY])).toThrow('the value at dimension 1 is -Infinity');
    expect(() => digitizeState([0], { bins: 2.5 })).toThrow('bins must be an integer of at least 1, got 2.5');
  });
});
