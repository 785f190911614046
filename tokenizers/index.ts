export type { StateDigitizing } from './bins.ts';
export { BinActionTokenizer, digitizeState } from './bins.ts';
export type { IntegerBpeJson } from './bpe.ts';
export { IntegerBpe } from './bpe.ts';
export type { MergeLearning } from './bpe-training.ts';
export type { ByteLevelTokenizerJson } from './byte-level.ts';
export { byteLevelTokenizerJson, trainByteLevelMerges } from './byte-level.ts';
export type { ActionChunk, ActionTokenizer, ChunkShape } from './chunk.ts';
export { dct, inverseDct } from './dct.ts';
export type {
  FastFitting,
  FastTokenizerJson,
  PublishedFast,
  PublishedProcessorJson,
  RelaxedDecoding,
} from './fast.ts';
export { FastTokenizer, roundHalfToEven } from './fast.ts';
export { allowedNext, type ChunkGrammar } from './grammar.ts';
export { worldInstructions, worldLanguage } from './language.ts';
export type { PublishedTokenizerJson } from './published-fast.ts';
export type { PromptParts } from './state-text.ts';
export { cleanInstruction, promptText } from './state-text.ts';
export { StringActionTokenizer } from './string.ts';
export type { SpecialIds, TextEncoding, TokenizerJson } from './text.ts';
export { defaultTokenizerJson, TextTokenizer } from './text.ts';
export type { ActionIds, LastIds, OwnRange } from './vocabulary.ts';
export { actionIdsAfterText, actionIdsFromEnd } from './vocabulary.ts';
