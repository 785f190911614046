import { learnMerges } from './bpe-training.ts';
import { byteCharacters, gpt2Pieces } from './gpt2.ts';
import { CHARACTERS, type PublishedTokenizerJson } from './published-fast.ts';
import { common, plainBpe } from './tokenizer-json.ts';

/** The file of a byte-level BPE, trained like the published code. @throws Error if the characters do not fit */
export function trainPublished(
  sequences: readonly ArrayLike<number>[],
  { symbols, vocabularySize }: { readonly symbols: number; readonly vocabularySize: number },
): PublishedTokenizerJson {
  if (symbols > CHARACTERS)
    throw new Error(
      `FastTokenizer.fit: the published format has characters for ${CHARACTERS} coefficients, not for ${symbols}`,
    );
  const pieces = sequences.flatMap((sequence) =>
    (
      Array.from(sequence, (symbol) => String.fromCharCode(symbol))
        .join('')
        .match(gpt2Pieces) ?? []
    ).map((piece) => Array.from(new TextEncoder().encode(piece), (byte) => byteCharacters[byte])),
  );
  // The characters of the text, and those of all symbols, of which only those that are their own byte's are ever used.
  const alphabet = new Set(Array.from({ length: symbols }, (_, symbol) => String.fromCharCode(symbol)));
  for (const piece of pieces) for (const character of piece) alphabet.add(character);
  const tokens = [...alphabet].sort((a, b) => a.charCodeAt(0) - b.charCodeAt(0));
  const ids = new Map(tokens.map((token, id) => [token, id]));
  if (tokens.length > vocabularySize)
    throw new Error(
      `FastTokenizer.fit: the published format needs ${tokens.length} ids for the characters of ${symbols} coefficients; vocabularySize is ${vocabularySize}`,
    );
  const pairs = learnMerges(
    pieces.map((piece) => piece.map((character) => ids.get(character)!)),
    { symbols: tokens.length, vocabularySize },
  );
  const merges = pairs.map(([left, right]) => {
    tokens.push(tokens[left] + tokens[right]);
    return [tokens[left], tokens[right]];
  });
  const byteLevel = (add_prefix_space: boolean, trim_offsets: boolean) => {
    return { type: 'ByteLevel', add_prefix_space, trim_offsets, use_regex: true };
  };
  return {
    ...common([]),
    normalizer: null,
    pre_tokenizer: byteLevel(false, true),
    post_processor: byteLevel(true, false),
    decoder: byteLevel(true, true),
    model: {
      ...plainBpe,
      vocab: Object.fromEntries([...new Set(tokens)].map((token, id) => [token, id])),
      merges,
    },
  };
}
