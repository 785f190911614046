import { quote } from './action-tokenizer.ts';
import { gpt2Pieces } from './gpt2.ts';

type Part = Readonly<Record<string, unknown>>;

/**
 * A tokenizer.json of which @huggingface/tokenizers makes the ids that Python's `tokenizers` makes. Parts that it reads otherwise
 * (`split` of Metaspace, behaviours of Split, white space and digits beyond ASCII) are written with others that it reads
 * the same; it refuses the rest by name.
 *
 * @throws Error that names the part and the flag
 */
export function exactTokenizerJson(json: Part): Part {
  const { normalizer, pre_tokenizer: pieces, model, decoder } = json;
  checkModel(model as Part);
  checkDecoder(decoder as Part | null, 'decoder');
  return {
    ...json,
    normalizer: exactNormalizer(normalizer as Part | null, 'normalizer'),
    pre_tokenizer: exactPreTokenizer(pieces as Part | null, 'pre_tokenizer', true),
  };
}

/** @throws Error at a flag of an added token that would be ignored; `normalise` is the file's normalizer */
export function checkAddedTokens(json: Part, normalise: ((text: string) => string) | null): void {
  const vocab = (json.model as Part).vocab as Part;
  (json.added_tokens as Part[]).forEach(({ content, id, special, single_word: single, normalized = !special }, i) => {
    const at = `added_tokens[${i}] (${quote(content)})`;
    if (single) throw refused(`${at}: "single_word"`, true);
    if (normalized && normalise && normalise(content as string) !== content)
      throw refused(`${at}: "normalized" with a normalizer that changes its content`, true);
    const known = Array.isArray(vocab) || !Object.hasOwn(vocab, content as string) ? id : vocab[content as string];
    if (known !== id) throw new Error(`${at} has the id ${id}, and model.vocab ${quote(known)}: make them the same`);
  });
}

const refused = (flag: string, value: unknown) =>
  new Error(
    `${flag} is ${quote(value)}, which cannot be read as Python's tokenizers does; take it out of the file, or use another tokenizer`,
  );

const usualNormalizers: readonly unknown[] = ['NFC', 'NFD', 'NFKC', 'NFKD', 'Lowercase', 'StripAccents', 'Prepend'];

function exactNormalizer(part: Part | null, at: string): Part | null {
  const { type, normalizers, content } = part ?? {};
  if (!part || usualNormalizers.includes(type)) return part;
  if (type === 'Sequence')
    return { ...part, normalizers: (normalizers as Part[]).map((own, i) => exactNormalizer(own, `${at}[${i}]`)) };
  // In JavaScript, `$` in the content stands for parts of the match.
  if (type === 'Replace') return { ...part, content: (content as string).replaceAll('$', '$$$$') };
  throw refused(`"${at}.type"`, type);
}

/** `whole`: the part gets texts, and not pieces of another part. */
function exactPreTokenizer(part: Part | null, at: string, whole: boolean): Part | null {
  if (!part) return part;
  const { type } = part;
  switch (type) {
    case 'Sequence': {
      const parts = part.pretokenizers as Part[];
      return sequence(...parts.map((own, i) => exactPreTokenizer(own, `${at}[${i}]`, whole && i === 0)!));
    }
    case 'ByteLevel': {
      const { add_prefix_space: prefix, use_regex: split = true } = part;
      return sequence(...(prefix ? [metaspace(' ', 'always')] : []), ...(split ? [matches(gpt2Pieces.source)] : []), {
        type,
        add_prefix_space: false,
        use_regex: false,
      });
    }
    case 'Metaspace': {
      const { replacement = '▁', add_prefix_space: prefix = true, split = true } = part;
      const scheme = part.prepend_scheme ?? (prefix ? 'always' : 'never');
      if (!whole && scheme === 'first') throw refused(`"${at}.prepend_scheme" behind another pre-tokenizer`, scheme);
      const own = escaped(replacement as string);
      return sequence(
        metaspace(replacement, scheme),
        ...(split ? [matches(piecesOf(own, 'MergedWithNext', false, at))] : []),
      );
    }
    case 'Split': {
      const { pattern, behavior, invert = false } = part;
      const { Regex, String: text } = pattern as { Regex?: string; String?: string };
      return matches(piecesOf(Regex ?? escaped(text!), behavior, invert, at));
    }
    case 'Digits':
      return matches(part.individual_digits ? '\\p{N}|\\P{N}+' : '\\p{N}+|\\P{N}+');
    case 'Punctuation':
      return matches(piecesOf(PUNCTUATION, part.behavior ?? 'Isolated', false, at));
    case 'Whitespace':
      return matches(`[${WORD}]+|[^${WORD}\\s]+`);
    case 'WhitespaceSplit':
      return matches('\\S+');
    default:
      throw refused(`"${at}.type"`, type);
  }
}

const PUNCTUATION = '[\\p{P}\\x21-\\x2f\\x3a-\\x40\\x5b-\\x60\\x7b-\\x7e]';
/** The characters that `\\w` matches in Rust. */
const WORD = '\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\u200c\\u200d';
const sequence = (...pretokenizers: Part[]): Part => ({ type: 'Sequence', pretokenizers });
const metaspace = (replacement: unknown, scheme: unknown): Part => ({
  ...{ type: 'Metaspace', replacement, prepend_scheme: scheme },
});
/** The matches of a pattern are the pieces; what lies between them is dropped. */
const matches = (Regex: string): Part => ({ type: 'Split', pattern: { Regex }, behavior: 'Removed', invert: true });
const escaped = (text: string) => text.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&');

/** A pattern that matches each piece into which a pattern splits a text. */
function piecesOf(pattern: string, behavior: unknown, invert: unknown, at: string): string {
  const match = `(?:${pattern})`;
  const other = `(?:(?!${match})[\\s\\S])`;
  switch (behavior) {
    case 'Removed':
      return invert ? match : `${other}+`;
    case 'Isolated':
      return `${match}|${other}+`;
    case 'Contiguous':
      return `${match}+|${other}+`;
    case 'MergedWithPrevious':
      if (!invert) return `${other}*${match}|${other}+`;
      break;
    case 'MergedWithNext':
      if (!invert) return `${match}${other}*|${other}+`;
  }
  throw refused(`"${at}.behavior"${invert ? ' with "invert"' : ''}`, behavior);
}

function checkModel(model: Part): void {
  const { type, dropout, continuing_subword_prefix: prefix, byte_fallback: bytes } = model;
  if (type !== undefined && type !== 'BPE' && type !== 'Unigram') throw refused('"model.type"', type);
  if (type === 'Unigram' && bytes) throw refused('"model.byte_fallback" of Unigram', bytes);
  if (dropout) throw refused('"model.dropout"', dropout);
  if (prefix) throw refused('"model.continuing_subword_prefix"', prefix);
}

function checkDecoder(part: Part | null, at: string): void {
  if (part?.type === 'CTC' || part?.type === 'WordPiece') throw refused(`"${at}.type"`, part.type);
  if (part?.type !== 'Sequence') return;
  (part.decoders as Part[]).forEach((own, i) => {
    if (own.type === 'Metaspace') throw refused(`"${at}[${i}].type" in a sequence`, own.type);
    checkDecoder(own, `${at}[${i}]`);
  });
}
