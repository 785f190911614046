import { existsSync, readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { byteCharacters, gpt2Pieces } from '../../tokenizers/gpt2.ts';
import { IntegerBpe } from '../../tokenizers/index.ts';

type Pair = [number, number];

function joined(sequence: number[], [left, right]: Pair, merged: number): number[] {
  const result: number[] = [];
  for (let index = 0; index < sequence.length; index++) {
    if (sequence[index] === left && sequence[index + 1] === right) {
      result.push(merged);
      index++;
    } else result.push(sequence[index]);
  }
  return result;
}

/** The definition, word for word: count every pair anew, take the best, join it from left to right. */
function slowTrain(sequences: number[][], symbols: number, vocabularySize: number, minimumCount: number): Pair[] {
  const merges: Pair[] = [];
  let text = sequences;
  while (symbols + merges.length < vocabularySize) {
    const counts = new Map<string, number>();
    for (const sequence of text) {
      for (let index = 0; index + 1 < sequence.length; index++) {
        const key = `${sequence[index]} ${sequence[index + 1]}`;
        counts.set(key, (counts.get(key) ?? 0) + 1);
      }
    }
    const ranked = [...counts]
      .filter(([, count]) => count >= minimumCount)
      .map(([key, count]) => ({ count, pair: key.split(' ').map(Number) as Pair }))
      .sort((a, b) => b.count - a.count || a.pair[0] - b.pair[0] || a.pair[1] - b.pair[1]);
    if (ranked.length === 0) break;
    const { pair } = ranked[0];
    text = text.map((sequence) => joined(sequence, pair, symbols + merges.length));
    merges.push(pair);
  }
  return merges;
}

const sequenceOf = (symbols: number, maxLength = 60) =>
  fc.array(fc.integer({ min: 0, max: symbols - 1 }), { maxLength });

describe('IntegerBpe', () => {
  const toy = [
    [0, 1, 2, 2, 2, 2],
    [0, 1, 2, 2, 3],
    [0, 1, 0, 1, 2],
  ];

  it('gives test vector 4', () => {
    const bpe = IntegerBpe.train(toy, { symbols: 4, vocabularySize: 100 });
    expect(bpe.merges).toEqual([
      [0, 1],
      [2, 2],
      [4, 5],
    ]);
    expect(bpe.vocabularySize).toBe(7);
    expect(toy.map((sequence) => Array.from(bpe.encode(sequence)))).toEqual([
      [6, 5],
      [6, 3],
      [4, 4, 2],
    ]);
  });

  it('stops at the vocabulary size and at the minimum count', () => {
    expect(IntegerBpe.train(toy, { symbols: 4, vocabularySize: 5 }).merges).toEqual([[0, 1]]);
    expect(IntegerBpe.train(toy, { symbols: 4, vocabularySize: 100, minimumCount: 4 }).merges).toHaveLength(2);
    expect(IntegerBpe.train([], { symbols: 4, vocabularySize: 100 }).merges).toEqual([]);
  });

  it('learns what the definition says, and encodes by the order of the merges', () => {
    const corpus = fc.integer({ min: 1, max: 5 }).chain((symbols) =>
      fc.record({
        symbols: fc.constant(symbols),
        sequences: fc.array(sequenceOf(symbols), { maxLength: 6 }),
        unseen: sequenceOf(symbols, 200),
        minimumCount: fc.integer({ min: 1, max: 4 }),
      }),
    );
    fc.assert(
      fc.property(corpus, ({ symbols, sequences, unseen, minimumCount }) => {
        const vocabularySize = symbols + 20;
        const bpe = IntegerBpe.train(sequences, { symbols, vocabularySize, minimumCount });
        expect(bpe.merges).toEqual(slowTrain(sequences, symbols, vocabularySize, minimumCount));
        for (const sequence of [...sequences, unseen]) {
          const slow = bpe.merges.reduce((text, pair, rank) => joined(text, pair as Pair, symbols + rank), sequence);
          const ids = bpe.encode(sequence);
          expect(Array.from(ids)).toEqual(slow);
          expect(Array.from(bpe.decode(ids))).toEqual(sequence);
          expect(bpe.read(ids, 2)).toEqual({
            symbols: Int32Array.from(sequence.slice(0, 2)),
            length: sequence.length,
            unreadableAt: -1,
          });
        }
      }),
      { seed: 2, numRuns: 300 },
    );
  });

  it('survives JSON', () => {
    const bpe = IntegerBpe.train(toy, { symbols: 4, vocabularySize: 100 });
    const again = new IntegerBpe(JSON.parse(JSON.stringify(bpe)));
    expect(again.encode(toy[0])).toEqual(bpe.encode(toy[0]));
    expect(again.toJSON()).toEqual(bpe.toJSON());
  });

  it('names bad input', () => {
    const bpe = IntegerBpe.train(toy, { symbols: 4, vocabularySize: 100 });
    expect(() => bpe.encode([0, 4])).toThrow('symbol 4 at position 1 is not an integer from 0 to 3');
    expect(() => bpe.encode([0.5])).toThrow('symbol 0.5 at position 0');
    expect(() => bpe.decode([0, 7])).toThrow('id 7 at position 1 is unknown; ids are 0 to 6');
    expect(() => IntegerBpe.train(toy, { symbols: 4, vocabularySize: 3 })).toThrow('vocabularySize 3 is below');
    expect(() => new IntegerBpe({ symbols: 0, merges: [] })).toThrow('symbols must be an integer from 1 to');
    expect(() => new IntegerBpe({ symbols: 2, merges: [[0, 2]] })).toThrow('merge 0 is [0,2]');
    const twice = { symbols: 2, merges: [[0, 1] as const, [0, 1] as const] };
    expect(() => new IntegerBpe(twice)).toThrow('merge 1 repeats merge 0');
    expect(() => new IntegerBpe({ symbols: 2 } as never)).toThrow('merges must be a list');
  });
});

const reference = new URL('../../../shared/data/tokenizers/bpe-reference/', import.meta.url);
const name = existsSync(reference) ? 'English reference' : 'English reference (skipped: ../shared is not there)';
describe.skipIf(!existsSync(reference))(name, () => {
  // Called while tests are collected, also where they are skipped.
  const read = (file: string) => (existsSync(reference) ? readFileSync(new URL(file, reference), 'utf8') : '');
  const expected = read('train-bpe-reference-merges.txt').trimEnd().split(/\r?\n/);
  const pieces = Array.from(read('corpus.en').matchAll(gpt2Pieces), ([piece]) => new TextEncoder().encode(piece));

  it('learns the merges and the vocabulary of an independent trainer', () => {
    const bpe = IntegerBpe.train(pieces, {
      symbols: 256,
      vocabularySize: 256 + expected.length,
      ties: 'greater-symbols',
    });
    const names = [...byteCharacters];
    const merges = bpe.merges.map(([left, right]) => {
      names.push(names[left] + names[right]);
      return `${names[left]} ${names[right]}`;
    });
    expect(merges).toEqual(expected);
    const vocabulary = JSON.parse(read('train-bpe-reference-vocab.json')) as Record<string, number>;
    expect(new Set([...names, '<|endoftext|>'])).toEqual(new Set(Object.keys(vocabulary)));
  });
});
