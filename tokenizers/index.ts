/**
 * Actions as tokens, and the text around them; independent of GPU, node and browser. A reading order:
 *
 * 1. Chunks to ids: action-tokenizer.ts (the common interface), dct.ts, fast.ts, bpe.ts with bpe-merging.ts (merges are applied)
 *    and bpe-training.ts (merges are learned); bins.ts, stride.ts, string.ts; from-json.ts restores a saved tokenizer.
 * 2. FAST in the files of openpi and LeRobot: gpt2.ts, published-fast.ts, published-fast-training.ts.
 * 3. Ids in a model's vocabulary, and prompts: vocabulary.ts, state.ts, location.ts, prompts.ts.
 * 4. Text: text.ts, tokenizer-json.ts; the default vocabulary (default-merges.ts) is trained on world-language.ts.
 */

export type { ActionChunk, ActionTokenizer, ChunkGrammar, ChunkShape } from './action-tokenizer.ts';
export type { BinFormat } from './bins.ts';
export { BinActionTokenizer } from './bins.ts';
export type { IntegerBpeJson, Reading, SymbolCodec } from './bpe.ts';
export { IntegerBpe } from './bpe.ts';
export type { MergeLearning } from './bpe-training.ts';
export { dct, inverseDct } from './dct.ts';
export type {
  FastFitting,
  FastTokenizerJson,
  PublishedFast,
  PublishedProcessorJson,
  RelaxedDecoding,
} from './fast.ts';
export { FastTokenizer, roundHalfToEven } from './fast.ts';
export { actionTokenizerFromJson } from './from-json.ts';
export {
  decodeWithLocations,
  encodeWithLocations,
  LOCATIONS,
  locationNames,
  type Place,
  parsePlaces,
  placesText,
} from './location.ts';
export type { Mark, Prompt, PromptName, PromptParts, PromptValues } from './prompts.ts';
export { cleanInstruction, encodePieces, prompts, promptText } from './prompts.ts';
export type { PublishedTokenizerJson } from './published-fast.ts';
export type { StateDigitizing } from './state.ts';
export { digitizeState, padState, stateText, stateTextTokens } from './state.ts';
export { StrideTokenizer } from './stride.ts';
export type { LenientParsing, StringFormat } from './string.ts';
export { StringActionTokenizer } from './string.ts';
export type { SpecialIds, TextEncoding, TokenizerJson } from './text.ts';
export { defaultTokenizerJson, TextTokenizer } from './text.ts';
export type { ByteLevelTokenizerJson, ScoredPieces } from './tokenizer-json.ts';
export { byteLevelTokenizerJson, scoredPiecesTokenizerJson, trainByteLevelMerges } from './tokenizer-json.ts';
export type { ActionIds, LastIds, OwnRange } from './vocabulary.ts';
export {
  actionIdsAfterText,
  actionIdsFromEnd,
  allowedNext,
  idsOfPieces,
  publicMappings,
  rangesAfterText,
} from './vocabulary.ts';
export { worldInstructions, worldLanguage } from './world-language.ts';
