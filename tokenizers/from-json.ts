import { type ActionTokenizer, quote } from './action-tokenizer.ts';
import { BinActionTokenizer, type BinTokenizerJson } from './bins.ts';
import { FastTokenizer, type FastTokenizerJson } from './fast.ts';
import { StrideTokenizer, type StrideTokenizerJson } from './stride.ts';
import { StringActionTokenizer, type StringTokenizerJson } from './string.ts';

/** Restores an action tokenizer from the result of its toJSON. @throws Error that names the fault */
export function actionTokenizerFromJson(json: unknown): ActionTokenizer {
  const { type } = (json ?? {}) as { type?: unknown };
  if (type === 'fast' || type === 'fast-published') return FastTokenizer.fromJSON(json as FastTokenizerJson);
  if (type === 'bins') return new BinActionTokenizer(json as BinTokenizerJson);
  if (type === 'string') return new StringActionTokenizer(json as StringTokenizerJson);
  if (type === 'stride') {
    const { inner, stride } = json as StrideTokenizerJson;
    if ((inner as { type?: unknown } | null)?.type === 'stride') throw new Error('a stride within a stride');
    return new StrideTokenizer(actionTokenizerFromJson(inner), stride);
  }
  throw new Error(`type is ${quote(type)}; there are fast, fast-published, bins, stride and string`);
}
