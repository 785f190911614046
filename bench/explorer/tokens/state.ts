/** What the page of action tokens holds in its link, and what it computes of that. */
import * as v from 'valibot';
import { count } from '../../../engine/files/json-schema.ts';
import { type ActionChunk, type ActionTokenizer, FastTokenizer } from '../../../tokenizers/index.ts';
import { reportRows } from '../../tokenize/report.ts';
import { presets, shape, smoothChunks, valuesOf } from './chunks.ts';
import type { Span } from './spelling.ts';

export const kinds = ['FAST', 'bins', 'string'] as const;
const value = v.pipe(v.number(), v.minValue(-1), v.maxValue(1));
export const schema = v.object({
  chunk: v.pipe(v.array(value), v.length(shape.horizon * shape.dimension)),
  dimension: count(0, shape.dimension - 1),
  scale: count(1, 40),
  vocabulary: count(64, 1024),
  bins: count(2, 256),
  decimals: count(1, 4),
  /** The tokenizer whose reconstruction is drawn, and whose ids are edited. */
  kind: v.picklist(kinds),
  /** The first symbol of the selected FAST token. */
  token: v.nullable(count(0, shape.horizon * shape.dimension - 1)),
  /** Number of merges applied; null for all. */
  merged: v.nullable(count(0, shape.horizon * shape.dimension)),
  /** Edited ids; null for those of the chunk. */
  ids: v.nullable(v.string()),
});
export type TokensState = v.InferOutput<typeof schema>;

/** What a link without a state shows. */
export const initial: TokensState = {
  ...{ chunk: valuesOf(presets.reach), dimension: 0, scale: 10, vocabulary: 256, bins: 256, decimals: 4 },
  ...{ kind: 'FAST', token: null, merged: null, ids: null },
};

export const FITTED_CHUNKS = 256;

/** FAST as the page fits it: its alphabet holds the coefficients of every chunk that can be drawn. */
export function fitted({ scale, vocabulary }: Pick<TokensState, 'scale' | 'vocabulary'>): FastTokenizer {
  return FastTokenizer.fit(smoothChunks(FITTED_CHUNKS), { scale, vocabularySize: vocabulary, covers: 1 });
}

/** The errors of `chunk` if a tokenizer's ids for it were these. */
export function errorOf(tokenizer: ActionTokenizer, ids: Int32Array, chunk: ActionChunk) {
  const saying: ActionTokenizer = Object.assign(Object.create(tokenizer), { encode: () => ids });
  return reportRows([['', saying]], [chunk], 1)[0].error;
}

/** The ids of the chunk with zeros in place of some coefficients of its flattened string. */
export function idsWithout(tokenizer: FastTokenizer, chunk: ActionChunk, { at, length }: Omit<Span, 'id'>): Int32Array {
  const zero = -tokenizer.minimum;
  const { symbols } = tokenizer.explain(chunk);
  return tokenizer.codec.encode(symbols.fill(zero, at, at + length));
}
