import { Tokenizer } from '@huggingface/tokenizers';
import { isId, quote, unknownId } from './action-tokenizer.ts';
import { defaultMerges } from './default-merges.ts';
import { checkAddedTokens, exactTokenizerJson } from './exact-json.ts';
import { type ByteLevelTokenizerJson, byteLevelTokenizerJson } from './tokenizer-json.ts';

/** A parsed tokenizer.json. */
export type TokenizerJson = object;

/** Padding, end and begin of sequence. */
export type SpecialIds = Readonly<Record<'pad' | 'eos' | 'bos', number>>;

/** More steps than any normaliser, pre-tokenizer or decoder has. */
const MOST_PARTS = 100;

const SPECIAL_NAMES: Record<keyof SpecialIds, readonly string[]> = {
  pad: ['<pad>', '[PAD]', '<|pad|>'],
  eos: ['<eos>', '</s>', '<|endoftext|>', '<|end_of_text|>'],
  bos: ['<bos>', '<s>', '<|endoftext|>', '<|begin_of_text|>'],
};

/**
 * A text tokenizer from a tokenizer.json, read by @huggingface/tokenizers: byte-level files (GPT-2, Llama 3) and
 * SentencePiece files (Gemma, Llama 2; the scored pieces of stories260K by `scoredPiecesTokenizerJson`). The file's
 * template is not applied: BOS and EOS are the caller's choice. The name of a special token in a text stays text, so an
 * instruction cannot end its own sequence.
 */
export class TextTokenizer {
  readonly special: SpecialIds;
  readonly vocabularySize: number;
  private readonly json: TokenizerJson;
  private readonly tokenizer: Tokenizer;
  private readonly added: ReadonlyMap<string, number>;
  private readonly specialIds: ReadonlySet<number>;

  /** `special` gives ids for which the file lacks the usual names (`<pad>`, `<eos>` or `</s>`, `<bos>` or `<s>` ...). */
  constructor(json: TokenizerJson, special: Partial<SpecialIds> = {}) {
    const added = addedTokens(json);
    this.json = json;
    this.tokenizer = read({ ...json, added_tokens: added.filter((token) => !token.special) });
    this.added = new Map(added.map(({ content, id }) => [content, id]));
    this.special = {
      pad: this.specialId('pad', special.pad),
      eos: this.specialId('eos', special.eos),
      bos: this.specialId('bos', special.bos),
    };
    this.specialIds = new Set([
      ...Object.values(this.special),
      ...added.filter((token) => token.special).map((token) => token.id),
    ]);
    let largest = -1;
    for (const ids of [this.tokenizer.get_vocab(), this.added])
      for (const id of ids.values()) largest = Math.max(largest, id);
    this.vocabularySize = largest + 1;
  }

  /** The built-in vocabulary, trained on the language of the built-in world; other text falls back to bytes. */
  static default(): TextTokenizer {
    return new TextTokenizer(defaultTokenizerJson());
  }

  /**
   * Ids of a text, with `bos` behind the begin-of-sequence id. A file with neither bytes nor an unknown token drops unknown
   * characters; the default has all bytes.
   */
  encode(text: string, { bos = false }: { readonly bos?: boolean } = {}): Int32Array {
    const ids = text === '' ? [] : this.tokenizer.encode(text, { add_special_tokens: false }).ids;
    return Int32Array.from(bos ? [this.special.bos, ...ids] : ids);
  }

  /** Text of the ids without special ids. Bytes that are not UTF-8 become U+FFFD. Throws on an unknown id. */
  decode(ids: ArrayLike<number>): string {
    const kept = Array.from(ids).filter((id, position) => {
      if (!Number.isInteger(id) || id < 0 || id >= this.vocabularySize)
        throw unknownId(id, position, this.vocabularySize);
      return !this.specialIds.has(id);
    });
    return kept.length === 0 ? '' : this.tokenizer.decode(kept, { clean_up_tokenization_spaces: false });
  }

  /** Id of a token by its name in the file; undefined if there is none. */
  idOf(token: string): number | undefined {
    return this.added.get(token) ?? this.tokenizer.token_to_id(token);
  }

  toJSON(): TokenizerJson {
    return this.json;
  }

  private specialId(role: keyof SpecialIds, given?: number): number {
    if (given !== undefined) return given;
    for (const name of SPECIAL_NAMES[role]) {
      const id = this.idOf(name);
      if (id !== undefined) return id;
    }
    throw new Error(
      `TextTokenizer: the vocabulary has none of ${SPECIAL_NAMES[role].join(' ')}; give its id as { ${role}: ... }`,
    );
  }
}

export function defaultTokenizerJson(): ByteLevelTokenizerJson {
  return byteLevelTokenizerJson(defaultMerges);
}

function addedTokens(json: TokenizerJson): readonly { id: number; content: string; special?: boolean }[] {
  const { added_tokens: added = [] } = (json ?? {}) as { added_tokens?: unknown };
  const isToken = (token: { id?: unknown; content?: unknown } | null) =>
    isId(token?.id) && typeof token?.content === 'string';
  if (!Array.isArray(added) || !added.every(isToken))
    throw new Error('TextTokenizer: "added_tokens" of the tokenizer.json is no list of tokens with id and content');
  return added;
}

function read(json: TokenizerJson): Tokenizer {
  const { vocab, merges } = (json as { model?: { vocab?: unknown; merges?: unknown } | null }).model ?? {};
  const wrong = Object.entries(vocab ?? {}).find(([, id]) => !Array.isArray(vocab) && !isId(id));
  if (wrong) throw unreadable(`"model.vocab" has the token ${quote(wrong[0])} with the id ${quote(wrong[1])}`);
  const isText = (part: unknown) => typeof part === 'string';
  const isMerge = (merge: unknown) => isText(merge) || (Array.isArray(merge) && merge.every(isText));
  const merge = Array.isArray(merges) ? merges.find((own) => !isMerge(own)) : undefined;
  if (merge !== undefined) throw unreadable(`"model.merges" has ${quote(merge)}, expected two tokens`);
  const parts = ['normalizer', 'pre_tokenizer', 'decoder'].flatMap((name) => {
    const own = (json as Record<string, unknown>)[name];
    return typeof own === 'object' && own ? Object.values(own).filter(Array.isArray) : [];
  });
  if (parts.some(({ length }) => length > MOST_PARTS)) throw unreadable(`a list of more than ${MOST_PARTS} parts`);
  try {
    const tokenizer = new Tokenizer(exactTokenizerJson(json as Record<string, unknown>), {});
    checkAddedTokens(json as Record<string, unknown>, tokenizer.normalizer);
    withMetaspace(tokenizer, (json as { decoder?: Metaspace | null }).decoder ?? null);
    tokenizer.encode('A 1?', { add_special_tokens: false }); // compiles what is compiled when it is used
    return tokenizer;
  } catch (error) {
    const stumbled = error instanceof TypeError; // over what is missing, or of another type
    throw unreadable(stumbled ? 'its parts do not fit together' : (error as Error).message);
  }
}

type Metaspace = { readonly type: string; readonly replacement?: string } & Readonly<
  Record<'prepend_scheme' | 'add_prefix_space', unknown>
>;

/** Decodes as Python's Metaspace: all signs of the first token are dropped if the scheme prepends them, and none otherwise. */
function withMetaspace({ decoder }: Tokenizer, part: Metaspace | null): void {
  if (!decoder || part?.type !== 'Metaspace') return;
  const { replacement = '▁', prepend_scheme: scheme, add_prefix_space: prefix } = part;
  const prepends = scheme === undefined ? prefix !== false : scheme !== 'never';
  decoder.decode_chain = (tokens) =>
    tokens.map((token, i) => token.replaceAll(replacement, prepends && i === 0 ? '' : ' '));
}

const unreadable = (why: string) => new Error(`TextTokenizer: this is not a tokenizer.json that can be read: ${why}`);
