export type { BinFormat } from './bins.ts';
export { BinActionTokenizer } from './bins.ts';
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
export { actionTokenizerFromJson } from './from-json.ts';
export type { ChunkGrammar } from './grammar.ts';
export { worldInstructions, worldLanguage } from './language.ts';
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
export { type ScoredPieces, scoredPiecesTokenizerJson } from './sentencepiece.ts';
export type { StateDigitizing } from './state.ts';
export { digitizeState, padState, stateText, stateTextTokens } from './state.ts';
export { StrideTokenizer } from './stride.ts';
export type { LenientParsing, StringFormat } from './string.ts';
export { StringActionTokenizer } from './string.ts';
export type { Reading, SymbolCodec } from './symbols.ts';
export type { SpecialIds, TextEncoding, TokenizerJson } from './text.ts';
export { defaultTokenizerJson, TextTokenizer } from './text.ts';
export type { ActionIds, LastIds, OwnRange } from './vocabulary.ts';
export {
  actionIdsAfterText,
  actionIdsFromEnd,
  allowedNext,
  idsOfPieces,
  publicMappings,
  rangesAfterText,
} from './vocabulary.ts';
