/**
 * Actions as tokens, and the text around them; independent of GPU, node and browser. A reading order:
 *
 * 1. Chunks to ids: action-tokenizer.ts (the common interface), dct.ts, fast.ts, bpe.ts with bpe-merging.ts (merges are applied)
 *    and bpe-training.ts (merges are learned), fast-alphabet.ts; bins.ts, stride.ts, string.ts; from-json.ts restores a saved tokenizer.
 * 2. FAST in the files of openpi and LeRobot: gpt2.ts, published-fast.ts, published-fast-training.ts; published-fast-code.ts is
 *    their Python side.
 * 3. Ids in a model's vocabulary, and prompts: vocabulary.ts, location.ts, prompts.ts.
 * 4. Text: text.ts, exact-json.ts (what Python's library does), tokenizer-json.ts; the default vocabulary (default-merges.ts) is trained on world-language.ts.
 *
 * ```ts
 * import * as tokenizers from 'insula/tokenizers';
 *
 * const waves = (seed: number) => new Float32Array(20 * 7).map((_, i) => Math.sin(seed + i / 40) / 2);
 * const chunks = Array.from({ length: 100 }, (_, i) => ({ data: waves(i), horizon: 20, dimension: 7 })); // normalised to [-1, 1]
 * const [chunk] = chunks;
 * const fast = tokenizers.FastTokenizer.fit(chunks); // or BinActionTokenizer, StringActionTokenizer, FastTokenizer.fromPublished
 * const ids = fast.encode(chunk);
 * const again = fast.decode(ids, chunk); // throws if the ids spell no such chunk; decodeRelaxed does not
 * console.log(ids, again.subarray(0, 7));
 * const bins = tokenizers.digitizeState([-1, 0, 0.5, 1]);
 * console.log(tokenizers.prompts['pi0-fast']({ instruction: 'Pick up the cup', state: bins })); // pieces before and behind the ids
 * console.log(tokenizers.placesText([{ coordinates: [0.1, 0.2], label: 'cup' }])); // <loc0102><loc0205> cup
 * const last = tokenizers.actionIdsFromEnd({ ...tokenizers.publicMappings.openpi, size: fast.vocabularySize }); // FAST in PaliGemma
 * console.log(last.toVocabulary(ids)); // rangesAfterText gives disjoint ids behind a text vocabulary instead
 * ```
 */

export type {
  ActionChunk,
  ActionTokenizer,
  ActionTokenKind,
  ChunkGrammar,
  ChunkShape,
  Clamping,
} from './action-tokenizer.ts';
export { actionTokenKinds } from './action-tokenizer.ts';
export { BinActionTokenizer, type BinFormat, digitizeState, MOST_BINS } from './bins.ts';
export * from './bpe.ts';
export type { MergeLearning } from './bpe-training.ts';
export { dct, inverseDct } from './dct.ts';
export * from './fast.ts';
export { actionTokenizerFromJson } from './from-json.ts';
export { decodeBeginning } from './lenient.ts';
export * from './location.ts';
export * from './prompts.ts';
export type { PublishedTokenizerJson } from './published-fast.ts';
export { PROCESSOR_FILE, processorCode } from './published-fast-code.ts';
export { StrideTokenizer } from './stride.ts';
export { type LenientParsing, StringActionTokenizer, type StringFormat } from './string.ts';
export * from './text.ts';
export type { ByteLevelTokenizerJson, ScoredPieces } from './tokenizer-json.ts';
export { byteLevelTokenizerJson, scoredPiecesTokenizerJson, trainByteLevelMerges } from './tokenizer-json.ts';
export * from './vocabulary.ts';
export { fillTemplate, type WorldTask, worldInstructions, worldLanguage } from './world-language.ts';
