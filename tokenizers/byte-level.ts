import { Tokenizer } from '@huggingface/tokenizers';
import { addedTokens } from './added-tokens.ts';
import { IntegerBpe } from './bpe.ts';
import { byteCharacters, bytesOfCharacters } from './byte-characters.ts';

interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly single_word: boolean;
  readonly lstrip: boolean;
  readonly rstrip: boolean;
  readonly normalized: boolean;
  readonly special: boolean;
}

/** The part of a tokenizer.json that a byte-level BPE uses; the libraries that read it want every key. */
export interface ByteLevelTokenizerJson {
  readonly version: string;
  readonly truncation: null;
  readonly padding: null;
  readonly added_tokens: readonly AddedToken[];
  readonly normalizer: null;
  readonly pre_tokenizer: object;
  readonly post_processor: null;
  readonly decoder: object;
  readonly model: { readonly type: 'BPE'; readonly vocab: Record<string, number>; readonly merges: readonly string[] };
}

/** Ids 0 pad, 1 end and 2 begin of sequence, as in Gemma; byte b is id 3 + b; then the merges. */
const SPECIAL_TOKENS = ['<pad>', '<eos>', '<bos>'];

/**
 * What merges may not cross. As in GPT-2, a word or a number takes the space before it along; besides, a colon stays with its
 * word and line breaks with the punctuation before them, so that `State:` and `;\n` are one piece each, and digits come by
 * threes, so that numbers up to 999 can be one piece.
 */
const PIECES = ' ?\\p{N}{1,3}| ?\\p{L}+:?| ?[^\\s\\p{L}\\p{N}]+\\n*|\\s+(?!\\S)|\\s+';

/** A tokenizer.json for a list of merges, each `left right` in GPT-2's characters. */
export function byteLevelTokenizerJson(merges: readonly string[]): ByteLevelTokenizerJson {
  const tokens = [...SPECIAL_TOKENS, ...byteCharacters, ...merges.map((merge) => merge.replace(' ', ''))];
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: addedTokens(SPECIAL_TOKENS),
    normalizer: null,
    pre_tokenizer: {
      type: 'Sequence',
      pretokenizers: [
        { type: 'Split', pattern: { Regex: PIECES }, behavior: 'Isolated', invert: false },
        { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false },
      ],
    },
    post_processor: null,
    decoder: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false },
    model: { type: 'BPE', vocab: Object.fromEntries(tokens.map((token, id) => [token, id])), merges },
  };
}

/**
 * Learns the merges of a byte-level BPE from texts, `left right` in GPT-2's characters, until the vocabulary (special tokens
 * and bytes included) is full or no pair occurs twice.
 */
export function trainByteLevelMerges(texts: Iterable<string>, vocabularySize: number): string[] {
  const split = new Tokenizer(byteLevelTokenizerJson([]), {}).pre_tokenizer!;
  const pieces: number[][] = [];
  for (const text of texts) {
    for (const piece of split(text)) pieces.push(Array.from(piece, (character) => bytesOfCharacters.get(character)!));
  }
  const bpe = IntegerBpe.train(pieces, {
    symbols: byteCharacters.length,
    vocabularySize: vocabularySize - SPECIAL_TOKENS.length,
  });
  const names = [...byteCharacters];
  return bpe.merges.map(([left, right]) => {
    names.push(names[left] + names[right]);
    return `${names[left]} ${names[right]}`;
  });
}
