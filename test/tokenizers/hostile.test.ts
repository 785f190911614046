import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { FastTokenizerJson } from '../../tokenizers/index.ts';
import { actionTokenizerFromJson, BinActionTokenizer, FastTokenizer, IntegerBpe } from '../../tokenizers/index.ts';

/** Merge r joins two of what merge r - 1 made: the last id stands for 2^count symbols. */
function doubling(count: number): FastTokenizerJson {
  const merges = Array.from({ length: count }, (_, rank): [number, number] => (rank === 0 ? [0, 0] : [rank, rank]));
  return { type: 'fast', scale: 10, minimum: 0, symbols: 1, merges };
}

describe('files made to do harm', () => {
  it('cannot make decoding allocate what ids claim to stand for', () => {
    for (const count of [40, 2000]) {
      const fast = FastTokenizer.fromJSON(doubling(count));
      const shape = { horizon: 2, dimension: 3 };
      expect(() => fast.decode([count], shape)).toThrow('needs 6');
      const { data, cut } = fast.decodeRelaxed([0, count], shape);
      expect(Array.from(data)).toEqual([0, 0, 0, 0, 0, 0]);
      expect(cut).toBeGreaterThan(1e11);
      expect(() => new IntegerBpe(doubling(count) as never).decode([count])).toThrow('more than 16777216');
    }
  });

  it('cannot ask for chunks beyond what a robot does', () => {
    const fast = FastTokenizer.fromJSON(doubling(3));
    for (const horizon of [1e9, 4097, -1, 0.5, Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(() => fast.decode([0], { horizon, dimension: 1 })).toThrow(
        'horizon must be a positive integer up to 4096',
      );
      expect(() => new BinActionTokenizer().grammar({ horizon: 1, dimension: horizon })).toThrow('dimension must be');
    }
  });

  it('never read in part: any JSON gives a tokenizer that works, or one line', () => {
    const number = fc.oneof(fc.integer({ min: -3, max: 30 }), fc.double(), fc.constantFrom(1e9, 1e300, null, '7'));
    const json = fc.oneof(
      fc.jsonValue({ maxDepth: 3 }),
      fc.record(
        {
          type: fc.constantFrom('fast', 'fast-published', 'bins', 'string', 'stride'),
          scale: number,
          minimum: number,
          symbols: number,
          merges: fc.oneof(fc.array(fc.tuple(number, number), { maxLength: 6 }), fc.jsonValue({ maxDepth: 2 })),
          bins: number,
          form: fc.constantFrom('openvla', 'openpi', 'x'),
          decimals: number,
          betweenSteps: fc.string({ maxLength: 2 }),
          stride: number,
          inner: fc.record({ type: fc.constantFrom('bins', 'stride', 'fast'), bins: number }),
          tokenizer: fc.jsonValue({ maxDepth: 3 }),
          processor: fc.record({ scale: number, min_token: number }),
        },
        { requiredKeys: ['type'] },
      ),
    );
    const chunk = { horizon: 3, dimension: 2, data: Float32Array.of(0.1, -0.9, 5, -5, 0, 1) };
    fc.assert(
      fc.property(json, (given) => {
        let tokenizer: ReturnType<typeof actionTokenizerFromJson>;
        try {
          tokenizer = actionTokenizerFromJson(given);
        } catch (error) {
          expect((error as Error).constructor).toBe(Error);
          expect((error as Error).message).not.toContain('\n');
          return;
        }
        expect(tokenizer.decode(tokenizer.encode(chunk), chunk).every(Number.isFinite)).toBe(true);
      }),
      { seed: 17, numRuns: 2000 },
    );
  });
});
