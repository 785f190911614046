import { Tokenizer } from '@huggingface/tokenizers';
import { quote } from './action-tokenizer.ts';
import { IntegerBpe } from './bpe.ts';
import { byteCharacters, byteOfCharacter } from './gpt2.ts';

/** The common part of all tokenizer.json files made here; the libraries that read them need every key. */
export const common = (special: readonly string[]) => ({
  version: '1.0',
  truncation: null,
  padding: null,
  added_tokens: special.map((content, id) => ({
    id,
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  })),
});

/** The settings of a BPE model that does no more than merge. */
export const plainBpe = {
  type: 'BPE',
  dropout: null,
  unk_token: null,
  continuing_subword_prefix: null,
  end_of_word_suffix: null,
  fuse_unk: false,
  byte_fallback: false,
  ignore_merges: false,
};

/** Ids 0 to 2 are padding, end and begin of sequence, as in Gemma; byte b is id 3 + b; then the merges follow. */
const SPECIAL_TOKENS = ['<pad>', '<eos>', '<bos>'];

/**
 * The pre-tokenizer: merges do not cross its pieces. As in GPT-2, a word or a number includes the space before it. In
 * addition, a colon belongs to its word, and line breaks to the punctuation before them, so that `State:` and `;\n` are
 * one piece each; digits are split in threes, so that numbers up to 999 can be one piece.
 */
const PIECES = ' ?\\p{N}{1,3}| ?\\p{L}+:?| ?[^\\s\\p{L}\\p{N}]+\\n*|\\s+(?!\\S)|\\s+';

export type ByteLevelTokenizerJson = ReturnType<typeof byteLevelTokenizerJson>;

/** The tokenizer.json of a byte-level BPE for a list of merges, each `left right` in GPT-2's characters. */
export function byteLevelTokenizerJson(merges: readonly string[]) {
  const tokens = [...SPECIAL_TOKENS, ...byteCharacters, ...merges.map((merge) => merge.replace(' ', ''))];
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false };
  return {
    ...common(SPECIAL_TOKENS),
    normalizer: null,
    pre_tokenizer: {
      type: 'Sequence',
      pretokenizers: [{ type: 'Split', pattern: { Regex: PIECES }, behavior: 'Isolated', invert: false }, byteLevel],
    },
    post_processor: null,
    decoder: byteLevel,
    model: { type: 'BPE', vocab: Object.fromEntries(tokens.map((token, id) => [token, id])), merges },
  };
}

/** Learns merges, `left right` in GPT-2's characters; `vocabularySize` counts the special tokens and the bytes too. */
export function trainByteLevelMerges(texts: Iterable<string>, vocabularySize: number): string[] {
  const split = new Tokenizer(byteLevelTokenizerJson([]), {}).pre_tokenizer!;
  const pieces: number[][] = [];
  for (const text of texts)
    for (const piece of split(text)) pieces.push(Array.from(piece, (character) => byteOfCharacter.get(character)!));
  const { merges } = IntegerBpe.train(pieces, {
    symbols: byteCharacters.length,
    vocabularySize: vocabularySize - SPECIAL_TOKENS.length,
  });
  const names = [...byteCharacters];
  return merges.map(([left, right]) => {
    names.push(names[left] + names[right]);
    return `${names[left]} ${names[right]}`;
  });
}

/** A vocabulary of the SentencePiece kind as llama2.c keeps it; the index of a piece is its id. */
export interface ScoredPieces {
  /** Pieces as bytes in latin-1, each with its score: a merge with a higher-scored result comes first. */
  readonly pieces: readonly (readonly [piece: string, score: number])[];
}

const MOST_PIECES = 2 ** 22;

/**
 * The tokenizer.json of such a vocabulary in the form of the Llama family: a space before the text, `▁` for spaces,
 * characters without a piece as the bytes `<0x00>` .. `<0xFF>`, and every pair that concatenates to a piece as a merge,
 * in decreasing order of score. Ids 0, 1 and 2 become `<unk>`, `<s>` and `</s>`.
 *
 * @throws Error that names the wrong piece
 */
export function scoredPiecesTokenizerJson({ pieces }: ScoredPieces): object {
  if (!Array.isArray(pieces) || pieces.length < 259 || pieces.length > MOST_PIECES)
    throw new Error(
      `not a vocabulary of scored pieces: expected a list of at least 259 (3 special ones and the bytes), got ${Array.isArray(pieces) ? pieces.length : typeof pieces}`,
    );
  const special = ['<unk>', '<s>', '</s>'];
  const tokens = pieces.map((entry: unknown, id) => {
    const [piece, score] = Array.isArray(entry) ? entry : [];
    if (typeof piece !== 'string' || typeof score !== 'number')
      throw new Error(`pieces[${id}] is ${quote(entry)}, expected [piece, score]`);
    const bytes = Uint8Array.from(piece, (character) => character.charCodeAt(0));
    return special[id] ?? new TextDecoder().decode(bytes).replaceAll(' ', '▁');
  });
  const ids = new Map(tokens.map((token, id) => [token, id]));
  const merges: { pair: [string, string]; id: number }[] = [];
  for (const [token, id] of ids) {
    if (id < 259) continue;
    const characters = [...token];
    for (let cut = 1; cut < characters.length; cut++) {
      const pair: [string, string] = [characters.slice(0, cut).join(''), characters.slice(cut).join('')];
      if (pair.every((part) => ids.has(part))) merges.push({ pair, id });
    }
  }
  merges.sort((a, b) => pieces[b.id][1] - pieces[a.id][1]);
  const replace = (from: string, content: string) => ({ type: 'Replace', pattern: { String: from }, content });
  return {
    ...common(special),
    normalizer: { type: 'Sequence', normalizers: [{ type: 'Prepend', prepend: '▁' }, replace(' ', '▁')] },
    pre_tokenizer: null,
    post_processor: null,
    decoder: {
      type: 'Sequence',
      decoders: [
        replace('▁', ' '),
        { type: 'ByteFallback' },
        { type: 'Fuse' },
        { type: 'Strip', content: ' ', start: 1, stop: 0 },
      ],
    },
    model: {
      ...plainBpe,
      ...{ unk_token: '<unk>', fuse_unk: true, byte_fallback: true },
      vocab: Object.fromEntries(ids),
      merges: merges.map(({ pair }) => pair),
    },
  };
}
