import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { roundHalfToEven } from '../../tokenizers/fast-alphabet.ts';
import type { ActionChunk, FastTokenizerJson } from '../../tokenizers/index.ts';
import { dct, FastTokenizer, inverseDct } from '../../tokenizers/index.ts';

const shape = { horizon: 5, dimension: 2 };
const chunk: ActionChunk = { data: Float32Array.of(-1, 0.5, -0.5, 0.5, 0, 0.25, 0.5, 0, 1, -0.25), ...shape };
/** Scale 10, minimum -16, 23 symbols and no merges: the ids are the shifted coefficients. */
const plain = FastTokenizer.fromJSON({ type: 'fast', scale: 10, minimum: -16, symbols: 23, merges: [] });

function chunks(count: number): ActionChunk[] {
  return Array.from({ length: count }, (_, index) => ({
    horizon: 10,
    dimension: 3,
    data: Float32Array.from({ length: 30 }, (_, i) => Math.sin(0.3 * Math.floor(i / 3) * ((i % 3) + 1) + index)),
  }));
}

describe('FastTokenizer', () => {
  it('rounds half to even', () => {
    const rounded = [0.5, 1.5, 2.5, -0.5, -1.5, 0.49999999999999994, -2.5, 3, 1e15 + 1].map(roundHalfToEven);
    expect(rounded.map((value) => value + 0)).toEqual([0, 2, 2, 0, -2, 0, -2, 3, 1e15 + 1]);
  });

  it('gives test vector 1', () => {
    expect(Array.from(plain.coefficients(chunk), (value) => value + 0)).toEqual([0, 4, -16, 6, 0, -1, -1, 0, 0, 0]);
    const ids = plain.encode(chunk);
    expect(Array.from(ids)).toEqual([16, 20, 0, 22, 16, 15, 15, 16, 16, 16]);
    const decoded = [-0.999576, 0.488619, -0.534647, 0.421478, 0, 0.242131, 0.534647, -0.024619, 0.999576, -0.233182];
    plain.decode(ids, shape).forEach((value, index) => {
      expect(Math.abs(value - decoded[index])).toBeLessThan(1e-5);
    });
    const fitted = FastTokenizer.fit([chunk]);
    expect([fitted.scale, fitted.minimum, fitted.maximum, fitted.codec.symbols]).toEqual([10, -16, 6, 23]);
  });

  it('explains its ids', () => {
    const data = chunks(12);
    const tokenizer = FastTokenizer.fit(data, { vocabularySize: 60 });
    for (const own of data) {
      const { coefficients, quantised, symbols, merges, ids, lengths } = tokenizer.explain(own);
      expect(coefficients).toEqual(dct(own.data, own.horizon, own.dimension));
      expect(quantised).toEqual(tokenizer.coefficients(own));
      expect(Array.from(symbols)).toEqual(Array.from(quantised, (value) => value - tokenizer.minimum));
      expect(ids).toEqual(tokenizer.encode(own));
      expect(merges.length).toBe(symbols.length - ids.length);
      const spans = Array.from(symbols, (id, at) => ({ id, at }));
      for (const { left, right, id, at } of merges) {
        const index = spans.findIndex((span) => span.at === at);
        expect(spans.splice(index, 2, { id, at }).map((span) => span.id)).toEqual([left, right]);
      }
      expect(spans.map(({ id }) => id)).toEqual(Array.from(ids));
      const ends = spans.map((_, i) => spans[i + 1]?.at ?? symbols.length);
      expect(lengths).toEqual(spans.map(({ at }, i) => ends[i] - at));
    }
    const published = FastTokenizer.fit(data, { format: 'published' });
    expect(() => published.explain(data[0])).toThrow('join characters');
  });

  it('loses the rounding of the coefficients and nothing else', () => {
    const anyChunk = fc
      .record({
        horizon: fc.integer({ min: 1, max: 50 }),
        dimension: fc.integer({ min: 1, max: 8 }),
        scale: fc.constantFrom(3, 10, 25),
      })
      .chain((sizes) =>
        fc.record({
          sizes: fc.constant(sizes),
          data: fc.float32Array({
            min: -1.5,
            max: 1.5,
            noNaN: true,
            minLength: sizes.horizon * sizes.dimension,
            maxLength: sizes.horizon * sizes.dimension,
          }),
        }),
      );
    fc.assert(
      fc.property(anyChunk, ({ sizes: { scale, ...size }, data }) => {
        const given = { data, ...size };
        const tokenizer = FastTokenizer.fit([given], { scale });
        const ids = tokenizer.encode(given);
        const decoded = tokenizer.decode(ids, size);
        const [before, after] = [data, decoded].map((x) => dct(x, size.horizon, size.dimension));
        before.forEach((value, index) => {
          expect(Math.abs(value - after[index])).toBeLessThanOrEqual(0.5 / scale + 1e-5);
        });
        expect(ids.length).toBeLessThanOrEqual(data.length);
        expect(tokenizer.decodeRelaxed(ids, size)).toEqual({
          data: decoded,
          exact: true,
          cut: 0,
          padded: 0,
          unknownAt: -1,
        });
      }),
      { seed: 3, numRuns: 100 },
    );
  });

  it('brings chunks of any shape back as the inverse transform of their rounded coefficients, to the bit', () => {
    const made: [horizon: number, dimension: number, value: (step: number, d: number) => number][] = [
      [1, 1, () => 0.3],
      [1, 7, (_, d) => d / 7],
      [20, 1, (step) => Math.sin(step / 5)],
      [20, 7, () => 0],
      [20, 7, () => 0.77],
      [20, 7, (step) => 3 * Math.sin(step)],
      [1000, 7, (step, d) => Math.sin(step / 90 + d)],
      [50, 64, (step, d) => Math.sin(step / 9 + d)],
    ];
    for (const [horizon, dimension, value] of made) {
      const data = Float32Array.from({ length: horizon * dimension }, (_, i) =>
        value(Math.floor(i / dimension), i % dimension),
      );
      const given = { data, horizon, dimension };
      for (const format of ['integers', 'published'] as const) {
        const tokenizer = FastTokenizer.fit([given], { format, vocabularySize: 2048 });
        const rounded = tokenizer.coefficients(given).map((q) => q / tokenizer.scale);
        const expected = Float32Array.from(inverseDct(rounded, horizon, dimension));
        expect(tokenizer.decode(tokenizer.encode(given), given)).toEqual(expected);
      }
    }
  });

  it('codes exactly the rounded coefficients, clamped to the alphabet, of any other chunk in either format', () => {
    const fitted = chunks(40).map((one) => ({ ...one, data: one.data.map((value) => 0.6 * value) }));
    const formats = (['integers', 'published'] as const).map((format) => FastTokenizer.fit(fitted, { format }));
    const value = fc.oneof(
      fc.float({ min: -2, max: 2, noNaN: true }),
      fc.float({ noNaN: true, noDefaultInfinity: true }),
      fc.constantFrom(0, -0, 1e-45, 3.4e38, -3.4e38),
    );
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 20 }),
        fc.array(value, { minLength: 60, maxLength: 60 }),
        (horizon, values) => {
          const size = { horizon, dimension: 3 };
          const given = { ...size, data: Float32Array.from(values.slice(0, 3 * horizon)) };
          for (const tokenizer of formats) {
            const { symbols } = tokenizer.codec.read(tokenizer.encode(given), 3 * horizon);
            const inside = [...tokenizer.coefficients(given)].map((q) =>
              Math.min(Math.max(q, tokenizer.minimum), tokenizer.maximum),
            );
            if (tokenizer === formats[0])
              expect([...symbols].map((s) => s + tokenizer.minimum)).toEqual(inside.map((q) => q + 0));
            else expect(symbols.length).toBe(inside.length);
          }
        },
      ),
      { seed: 19, numRuns: 300 },
    );
  });

  it.each([0, 5, 1000])('an outlier of %d times the range in one chunk widens the alphabet by little', (size) => {
    const size50 = { horizon: 50, dimension: 7 };
    const calm = Array.from({ length: 200 }, (_, i) => ({
      ...size50,
      data: Float32Array.from({ length: 350 }, (_, j) => Math.sin(i + j / 7 / 9 + (j % 7))),
    }));
    const glitch = { ...size50, data: calm[0].data.map((value, j) => (j % 7 === 3 ? size : value)) };
    for (const format of ['integers', 'published'] as const) {
      // a vocabulary that the coefficients of the outlier alone would fill
      const options = { format, vocabularySize: 400 };
      const [before, after] = [calm, [...calm, glitch]].map((chunks) => FastTokenizer.fit(chunks, options));
      expect(after.vocabularySize).toBe(400);
      expect(after.maximum - before.maximum).toBeLessThanOrEqual(106 - before.maximum); // 1.5 * 10 * sqrt(50)
      expect(after.minimum).toBe(before.minimum);
      expect(calm.map((chunk) => after.clamping(chunk).clamped)).toEqual(calm.map(() => 0));
      // a constant column has one coefficient, of frequency 0
      expect(after.clamping(glitch)).toEqual({ clamped: size > 1.5 ? 1 : 0, total: 350 });
      const back = after.decode(after.encode(glitch), size50);
      // each of 50 coefficients is off by at most 0.05
      const most = 0.05 * Math.sqrt(50) + 1e-6;
      glitch.data.forEach((value, j) => {
        expect(Math.abs(Math.min(value, after.maximum / 10 / Math.sqrt(50)) - back[j])).toBeLessThan(most);
      });
    }
  });

  it('keeps what most chunks have, however large, and refuses what then does not fit', () => {
    const large = Array.from({ length: 30 }, (_, i) => ({
      ...{ horizon: 4, dimension: 1 },
      data: new Float32Array(4).fill(i % 2 ? 3 : -3),
    }));
    const tokenizer = FastTokenizer.fit(large);
    expect([tokenizer.minimum, tokenizer.maximum]).toEqual([-60, 60]);
    expect(() => FastTokenizer.fit(large, { vocabularySize: 100 })).toThrow('121 symbols for a vocabulary of 100');
  });

  it('clamps nothing that it was told to cover', () => {
    const calm = [{ horizon: 12, dimension: 2, data: new Float32Array(24).fill(0.1) }];
    const tokenizer = FastTokenizer.fit(calm, { covers: 1.5 });
    expect([tokenizer.minimum, tokenizer.codec.symbols]).toEqual([-52, 105]);
    const anyData = fc.float32Array({ min: -1.5, max: 1.5, noNaN: true, minLength: 24, maxLength: 24 });
    fc.assert(
      fc.property(anyData, (data) => {
        const size = { horizon: 12, dimension: 2 };
        const decoded = tokenizer.decode(tokenizer.encode({ data, ...size }), size);
        const [before, after] = [data, decoded].map((x) => dct(x, 12, 2));
        before.forEach((value, index) => {
          expect(Math.abs(value - after[index])).toBeLessThanOrEqual(0.05 + 1e-5);
        });
      }),
      { seed: 20, numRuns: 200 },
    );
    expect(() => FastTokenizer.fit(calm, { covers: -1 })).toThrow('covers must be a number from 0, got -1');
  });

  it('compresses smooth chunks, within the vocabulary asked for', () => {
    const tokenizer = FastTokenizer.fit(chunks(50), { vocabularySize: 200 });
    expect(tokenizer.vocabularySize).toBeLessThanOrEqual(200);
    expect(tokenizer.vocabularySize).toBeGreaterThan(tokenizer.codec.symbols);
    const lengths = chunks(50).map((smooth) => tokenizer.encode(smooth).length);
    expect(Math.max(...lengths)).toBeLessThan(30);
  });

  it('clamps coefficients beyond the fitted ones at both ends', () => {
    const narrow = FastTokenizer.fromJSON({ type: 'fast', scale: 10, minimum: -2, symbols: 5, merges: [] });
    const line = (value: number) => ({ data: Float32Array.of(value), horizon: 1, dimension: 1 });
    const ids = [-1e30, -0.2, 0, 0.2, 0.3, 1e30].map((value) => narrow.encode(line(value))[0]);
    expect(ids).toEqual([0, 0, 2, 4, 4, 4]);
  });

  it('survives JSON with the same ids', () => {
    const tokenizer = FastTokenizer.fit(chunks(20));
    const again = FastTokenizer.fromJSON(JSON.parse(JSON.stringify(tokenizer)) as FastTokenizerJson);
    for (const one of chunks(30)) expect(again.encode(one)).toEqual(tokenizer.encode(one));
    expect(again.toJSON()).toEqual(tokenizer.toJSON());
  });

  it('decodes strictly: the number of coefficients and every id must be right', () => {
    expect(() => plain.decode([16, 16, 16], shape)).toThrow(
      '3 ids spell 3 coefficients, but horizon 5 x dimension 2 needs 10',
    );
    expect(() => plain.decode(new Array(11).fill(16), shape)).toThrow('11 ids spell 11 coefficients');
    expect(() => plain.decode([...new Array(9).fill(16), 23], shape)).toThrow('id 23 at position 9 is unknown');
    expect(() => plain.decode([16], { horizon: 0, dimension: 2 })).toThrow('horizon must be a positive integer');
  });

  it('decodes relaxed: cuts, pads with zero, stops at an unknown id, and says so', () => {
    const ids = Array.from(plain.encode(chunk));
    const whole = plain.decode(ids, shape);
    const cut = plain.decodeRelaxed([...ids, 3, 4], shape);
    expect(cut).toEqual({ data: whole, exact: false, cut: 2, padded: 0, unknownAt: -1 });
    // The last three coefficients of this chunk are zero, so that padding restores it.
    const padded = plain.decodeRelaxed(ids.slice(0, 7), shape);
    expect(padded).toEqual({ data: whole, exact: false, cut: 0, padded: 3, unknownAt: -1 });
    const unknown = plain.decodeRelaxed([...ids.slice(0, 8), -1, 16], shape);
    expect(unknown).toEqual({ data: whole, exact: false, cut: 0, padded: 2, unknownAt: 8 });
    expect(plain.decodeRelaxed([], shape)).toEqual({
      data: new Float32Array(10),
      exact: false,
      cut: 0,
      padded: 10,
      unknownAt: -1,
    });
    // A merge that reaches over the end of the chunk is cut within.
    const merged = FastTokenizer.fromJSON({ type: 'fast', scale: 10, minimum: -16, symbols: 23, merges: [[16, 20]] });
    const long = merged.decodeRelaxed([23, 16, 16], { horizon: 1, dimension: 3 });
    expect([long.cut, long.exact, ...long.data]).toEqual([1, false, 0, Math.fround(0.4), 0]);
  });

  it('names bad input', () => {
    const bad = (value: number) => ({ data: Float32Array.of(0, 0, 0, value), horizon: 2, dimension: 2 });
    expect(() => plain.encode(bad(Number.NaN))).toThrow(
      'FastTokenizer.encode: the value at step 1, dimension 1 is NaN',
    );
    expect(() => plain.encode(bad(Number.POSITIVE_INFINITY))).toThrow('dimension 1 is Infinity');
    expect(() => FastTokenizer.fit([chunk, bad(Number.NaN)])).toThrow('FastTokenizer.fit, chunk 1');
    expect(() => plain.encode({ data: new Float32Array(3), horizon: 2, dimension: 2 })).toThrow('data holds 3 values');
    expect(() => FastTokenizer.fit([])).toThrow('no chunks to fit on');
    expect(() => FastTokenizer.fit([bad(200)])).toThrow(
      'run from -1414 to 1414, 2829 symbols for a vocabulary of 1024',
    );
    expect(() => FastTokenizer.fit([chunk], { scale: 0 })).toThrow('scale must be a number from 1e-6 to 1e6, got 0');
    expect(() => FastTokenizer.fromJSON({ ...plain.toJSON(), type: 'other' } as never)).toThrow("expected 'fast'");
    expect(() => FastTokenizer.fromJSON({ ...plain.toJSON(), minimum: 0.5 } as FastTokenizerJson)).toThrow(
      'minimum must be an integer',
    );
  });
});
