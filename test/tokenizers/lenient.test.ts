import { expect, test } from 'vitest';
import {
  type ActionTokenizer,
  BinActionTokenizer,
  decodeBeginning,
  FastTokenizer,
  StrideTokenizer,
  StringActionTokenizer,
} from '../../tokenizers/index.ts';

const shape = { horizon: 6, dimension: 2 };
const chunk = { ...shape, data: Float32Array.from({ length: 12 }, (_, i) => Math.sin(i) / 2) };

test.each<[string, ActionTokenizer, number]>([
  ['fast', FastTokenizer.fit([chunk]), 0],
  ['bins', new BinActionTokenizer(), 2 / 256],
  ['stride', new StrideTokenizer(new BinActionTokenizer(), 2), 2 / 256],
  ['string', new StringActionTokenizer(), 1e-4],
])('%s: whole ids decode as always, and a beginning is followed by about zero', (kind, tokenizer, error) => {
  const ids = tokenizer.encode(chunk);
  expect(decodeBeginning(tokenizer, ids, shape)).toEqual(Float32Array.from(tokenizer.decode(ids, shape)));
  const none = decodeBeginning(tokenizer, ids.slice(0, 0), shape);
  expect(none.length).toBe(12);
  expect(Math.max(...none.map(Math.abs))).toBeLessThanOrEqual(error);
  if (kind === 'fast') return; // its ids are frequencies, and every one of them reaches every step
  const half = decodeBeginning(tokenizer, ids.slice(0, Math.floor(ids.length / 2)), shape);
  expect(half.length).toBe(12);
  expect(Math.abs(half[0] - chunk.data[0])).toBeLessThanOrEqual(error);
  // Strings hold the last value that was read.
  expect(Math.abs(half[11] - (kind === 'string' ? half[9] : 0))).toBeLessThanOrEqual(error);
});
