/**
 * GPT-2's printable character for each byte, which byte-level tokenizer.json files write their tokens in: the byte
 * itself if it is printable, otherwise 256, 257, ... in order (openai/gpt-2, encoder.py, bytes_to_unicode).
 */
export const byteCharacters: readonly string[] = (() => {
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte > 32 && byte < 127) || (byte > 160 && byte < 256 && byte !== 173);
    return String.fromCodePoint(printable ? byte : next++);
  });
})();

export const byteOfCharacter: ReadonlyMap<string, number> = new Map(
  byteCharacters.map((character, byte) => [character, byte]),
);

// Unicode's white space, at which the `tokenizers` library splits: JavaScript's \s without U+FEFF and with U+0085.
const SPACE = '[\\t-\\r \\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]';
const OTHER = SPACE.replace('[', '[^').replace(']', '\\p{L}\\p{N}]');

/** GPT-2's pre-tokenizer: contractions; letters, digits or other signs with a leading space; white space. */
export const gpt2Pieces = new RegExp(
  `'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?${OTHER}+|${SPACE}+(?!${SPACE.replace('[', '[^')})|${SPACE}+`,
  'gu',
);
