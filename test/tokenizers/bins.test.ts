import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BinActionTokenizer, StrideTokenizer, StringActionTokenizer } from '../../tokenizers/index.ts';

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
    expect(() => new BinActionTokenizer({ bins: 1 })).toThrow(
      'bins must be an integer of at least 2, up to 1048576, got 1',
    );
  });
});

describe("openpi's bins", () => {
  const openpi = new BinActionTokenizer({ form: 'openpi' });

  it('decode to the left edge, i / 256 * 2 - 1', () => {
    const ids = openpi.encode({ data: Float32Array.from(values), ...shape });
    expect(Array.from(ids)).toEqual([0, 0, 0, 64, 128, 160, 255, 255, 255]);
    const all = Array.from({ length: 256 }, (_, id) => id);
    expect(Array.from(openpi.decode(all, { horizon: 256, dimension: 1 }))).toEqual(all.map((id) => (id / 256) * 2 - 1));
  });
});

describe('StrideTokenizer', () => {
  const every = new StrideTokenizer(new BinActionTokenizer(), 5);
  const ramp = {
    horizon: 50,
    dimension: 2,
    data: Float32Array.from({ length: 100 }, (_, i) => (i % 2 === 0 ? -1 : 1) * (Math.floor(i / 2) / 25 - 1)),
  };

  it('keeps steps 0, 5, 10, ...: 10 of 50', () => {
    const ids = every.encode(ramp);
    expect(ids.length).toBe(20);
    const rows = [0, 5, 10, 15, 20, 25, 30, 35, 40, 45].flatMap((step) => [...ramp.data.slice(2 * step, 2 * step + 2)]);
    const kept = { horizon: 10, dimension: 2, data: Float32Array.from(rows) };
    expect(ids).toEqual(new BinActionTokenizer().encode(kept));
    expect(every.encode({ horizon: 7, dimension: 1, data: new Float32Array(7) }).length).toBe(2);
  });

  it('decodes to straight lines between the kept steps and holds the last', () => {
    const decoded = every.decode(every.encode(ramp), ramp);
    decoded.forEach((value, index) => {
      const expected = ramp.data[Math.min(index, 90 + (index % 2))];
      expect(Math.abs(value - expected)).toBeLessThan(1 / 255 + 1e-6);
    });
    const grammar = every.grammar(ramp);
    expect([grammar.complete, grammar.allowed(19).length, grammar.allowed(20).length]).toEqual([20, 256, 0]);
  });

  it('names bad input', () => {
    expect(() => new StrideTokenizer(new BinActionTokenizer(), 0)).toThrow('stride must be a positive integer, got 0');
    expect(() => every.decode([1], ramp)).toThrow('needs 20');
    const nan = { data: Float32Array.of(0, Number.NaN), horizon: 2, dimension: 1 };
    expect(() => every.encode(nan)).toThrow('StrideTokenizer.encode: the value at step 1');
  });
});

describe('what is clamped is counted', () => {
  const chunk = { horizon: 3, dimension: 2, data: Float32Array.of(1, -1.5, 0, 9.99996, 10, 3) };
  it.each([
    ['bins', new BinActionTokenizer(), { clamped: 4, total: 6 }],
    // steps 0 and 2
    ['every second step', new StrideTokenizer(new BinActionTokenizer(), 2), { clamped: 3, total: 4 }],
    ['strings', new StringActionTokenizer(), { clamped: 2, total: 6 }],
    [
      'strings with a gripper',
      new StringActionTokenizer({ gripper: { dimensions: [1], zero: 0, one: 1 } }),
      { clamped: 1, total: 6 },
    ],
  ])('%s', (_, tokenizer, counted) => {
    expect(tokenizer.clamping(chunk)).toEqual(counted);
    expect(() => tokenizer.clamping({ ...chunk, data: new Float32Array(6).fill(Number.NaN) })).toThrow('is NaN');
  });
});
