/** The special tokens of a tokenizer.json, whose ids are the first. */
export function addedTokens(contents: readonly string[]) {
  return contents.map((content, id) => ({
    id,
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  }));
}
