import { learnMerges } from './bpe-training.ts';
import { byteCharacters, bytesOfCharacters, gpt2Pieces } from './byte-characters.ts';
import { Merges } from './merges.ts';
import type { Reading, SymbolCodec } from './symbols.ts';

/**
 * The tokenizer.json of a published FAST tokenizer (physical-intelligence/fast, processing_action_tokenizer.py): each shifted
 * coefficient is the character of that number; the text is cut into GPT-2's pieces, each piece written in UTF-8, and
 * byte-pair encoded in GPT-2's characters. Only what decides the ids is named here; the rest is kept as it is.
 */
export interface PublishedTokenizerJson {
  readonly normalizer: null;
  readonly pre_tokenizer: { readonly type: string; readonly add_prefix_space?: boolean; readonly use_regex?: boolean };
  readonly model: {
    readonly type: string;
    readonly vocab: Readonly<Record<string, number>>;
    /** Pairs, or in older files `left right` in one string. */
    readonly merges: readonly (string | readonly string[])[];
    readonly [setting: string]: unknown;
  };
  readonly [setting: string]: unknown;
}

/** Symbols up to here have characters: U+D800 begins the surrogates, which UTF-8 cannot write. */
const CHARACTERS = 0xd800;
/** Ids above this are taken for a damaged file. */
const MOST_IDS = 2 ** 22;

/**
 * Symbols to the ids of such a file and back. Where the published code drops a character that the file has no token for, so
 * that the rest shifts and nothing can be decoded, the nearest character that it can spell is taken.
 */
export class PublishedCodec implements SymbolCodec {
  readonly symbols: number;
  readonly vocabularySize: number;
  private readonly merges: Merges;
  private readonly idOfByte: Int32Array;
  /** For each symbol the nearest one that the file can spell. */
  private readonly nearest: Uint16Array;
  private readonly bytesOfId: (Uint8Array | undefined)[] = [];
  private readonly lengths: Float64Array;
  private readonly spelled: number[][] = [];

  /** @throws Error where the file is no byte-level BPE as the published code makes them */
  constructor(readonly json: PublishedTokenizerJson) {
    checkKind(json);
    const { vocab, merges } = json.model;
    let largest = -1;
    for (const [token, id] of Object.entries(vocab)) {
      if (!Number.isInteger(id) || id < 0 || id >= MOST_IDS)
        throw wrong(`token ${quote(token)} has the id ${quote(id)}`);
      largest = Math.max(largest, id);
      this.bytesOfId[id] = spelledBytes(token);
    }
    this.vocabularySize = largest + 1;
    this.idOfByte = Int32Array.from(byteCharacters, (character) => own(vocab, character) ?? -1);
    this.merges = readMerges(vocab, merges, this.vocabularySize);
    const spellable: number[] = [];
    for (let symbol = 0; symbol < CHARACTERS; symbol++) {
      if (utf8(symbol).every((byte) => this.idOfByte[byte] >= 0)) spellable.push(symbol);
    }
    if (spellable.length === 0) throw wrong('the vocabulary has no token for any byte');
    this.symbols = spellable[spellable.length - 1] + 1;
    this.nearest = nearestOf(spellable);
    this.lengths = Float64Array.from({ length: this.vocabularySize }, (_, id) => {
      const { length, bad } = this.read([id], 0);
      return bad < 0 ? length : 0;
    });
  }

  encode(sequence: ArrayLike<number>): Int32Array {
    let text = '';
    for (let index = 0; index < sequence.length; index++) text += String.fromCharCode(this.nearest[sequence[index]]);
    const ids: number[] = [];
    for (const piece of text.match(gpt2Pieces) ?? []) {
      const bytes: number[] = [];
      for (let index = 0; index < piece.length; index++)
        for (const id of this.idsOf(piece.charCodeAt(index))) bytes.push(id);
      for (const id of bytes.length > 1 ? this.merges.apply(bytes) : bytes) ids.push(id);
    }
    return Int32Array.from(ids);
  }

  /** Ids of the bytes of a symbol that the file can spell. */
  private idsOf(symbol: number): readonly number[] {
    this.spelled[symbol] ??= Array.from(utf8(symbol), (byte) => this.idOfByte[byte]);
    return this.spelled[symbol];
  }

  lengthOf(id: number): number {
    return this.lengths[id];
  }

  read(ids: ArrayLike<number>, atMost: number): Reading {
    const symbols: number[] = [];
    let length = 0;
    // Of the character under way: its bits so far, how many bytes are missing, and the least one that needs so many.
    let [character, missing, least] = [0, 0, 0];
    const upTo = (bad: number): Reading => ({ symbols: Int32Array.from(symbols), length, bad });
    for (let index = 0; index < ids.length; index++) {
      const bytes = this.bytesOfId[ids[index]];
      if (!bytes) return upTo(index);
      for (const byte of bytes) {
        if (missing === 0) {
          if ((byte >= 0x80 && byte < 0xc2) || byte > 0xef) return upTo(index);
          [missing, least] = byte < 0x80 ? [0, 0] : byte < 0xe0 ? [1, 0x80] : [2, 0x800];
          character = byte & [0x7f, 0x1f, 0x0f][missing];
        } else {
          if (byte >> 6 !== 2) return upTo(index);
          character = (character << 6) | (byte & 0x3f);
          missing--;
        }
        if (missing > 0) continue;
        if (character < least || character >= CHARACTERS) return upTo(index);
        if (length++ < atMost) symbols.push(character);
      }
    }
    return upTo(missing > 0 ? ids.length - 1 : -1);
  }
}

/** The file of a byte-level BPE trained as the published code trains it: pairs of count 2 at least, ties to the smaller ids. */
export function trainPublished(
  sequences: readonly ArrayLike<number>[],
  { symbols, vocabularySize }: { readonly symbols: number; readonly vocabularySize: number },
): PublishedTokenizerJson {
  const pieces = sequences.flatMap((sequence) =>
    (
      Array.from(sequence, (symbol) => String.fromCharCode(symbol))
        .join('')
        .match(gpt2Pieces) ?? []
    ).map((piece) => Array.from(encoder.encode(piece), (byte) => byteCharacters[byte])),
  );
  // The characters of all symbols, though only those that are their own byte's character are ever used, and those of the text.
  const alphabet = new Set(Array.from({ length: symbols }, (_, symbol) => String.fromCharCode(symbol)));
  for (const piece of pieces) for (const character of piece) alphabet.add(character);
  const tokens = [...alphabet].sort((a, b) => a.charCodeAt(0) - b.charCodeAt(0));
  const ids = new Map(tokens.map((token, id) => [token, id]));
  if (tokens.length > vocabularySize) {
    throw new Error(
      `FastTokenizer.fit: the published format needs ${tokens.length} ids for the characters of ${symbols} coefficients; vocabularySize is ${vocabularySize}`,
    );
  }
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
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: byteLevel(false, true),
    post_processor: byteLevel(true, false),
    decoder: byteLevel(true, true),
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries([...new Set(tokens)].map((token, id) => [token, id])),
      merges,
    },
  };
}

function checkKind(json: PublishedTokenizerJson): void {
  if (typeof json !== 'object' || json === null) throw wrong(`it is ${quote(json)}`);
  const { normalizer, pre_tokenizer, model } = json;
  if (normalizer) throw wrong('it has a normalizer');
  const { type, add_prefix_space = true, use_regex = true } = pre_tokenizer ?? {};
  if (type !== 'ByteLevel' || add_prefix_space || !use_regex)
    throw wrong(
      `pre_tokenizer is ${quote(pre_tokenizer)}, expected ByteLevel with use_regex and without add_prefix_space`,
    );
  if (model?.type !== 'BPE') throw wrong(`model.type is ${quote(model?.type)}, expected "BPE"`);
  const settings = [
    'dropout',
    'unk_token',
    'continuing_subword_prefix',
    'end_of_word_suffix',
    'byte_fallback',
    'ignore_merges',
  ];
  for (const setting of settings) if (model[setting]) throw wrong(`model.${setting} is set, which changes the ids`);
  if (typeof model.vocab !== 'object' || model.vocab === null || Array.isArray(model.vocab))
    throw wrong('model.vocab is no object');
  if (!Array.isArray(model.merges)) throw wrong('model.merges is no list');
}

function readMerges(vocab: Readonly<Record<string, number>>, merges: readonly unknown[], ids: number): Merges {
  const columns = [0, 1, 2].map(() => new Int32Array(merges.length));
  merges.forEach((merge, rank) => {
    const parts: unknown = typeof merge === 'string' ? merge.split(' ') : merge;
    const pair =
      Array.isArray(parts) && parts.length === 2 && parts.every((part) => typeof part === 'string') ? parts : null;
    if (!pair) throw wrong(`model.merges[${rank}] is ${quote(merge)}, expected two tokens`);
    [pair[0], pair[1], pair[0] + pair[1]].forEach((token: string, column) => {
      const id = own(vocab, token);
      if (id === undefined)
        throw wrong(`model.merges[${rank}] is ${quote(merge)}, but ${quote(token)} is not in model.vocab`);
      columns[column][rank] = id;
    });
  });
  try {
    return new Merges(columns[0], columns[1], columns[2], ids);
  } catch (error) {
    throw wrong(`model.merges: ${(error as Error).message}`);
  }
}

const encoder = new TextEncoder();
const utf8 = (symbol: number) => encoder.encode(String.fromCharCode(symbol));

/** Bytes of a token in GPT-2's characters; a token with any other character is text, as the `tokenizers` library decodes it. */
function spelledBytes(token: string): Uint8Array {
  const bytes = Array.from(token, (character) => bytesOfCharacters.get(character));
  return bytes.includes(undefined) ? encoder.encode(token) : Uint8Array.from(bytes as number[]);
}

/** For 0 .. the last of the ascending `values`, the nearest of them; the smaller of two. */
function nearestOf(values: readonly number[]): Uint16Array {
  let index = 0;
  return Uint16Array.from({ length: values[values.length - 1] + 1 }, (_, wanted) => {
    while (index + 1 < values.length && Math.abs(values[index + 1] - wanted) < Math.abs(values[index] - wanted))
      index++;
    return values[index];
  });
}

/** A property that is the object's own: the vocabulary may hold any word. */
function own(vocab: Readonly<Record<string, number>>, token: string): number | undefined {
  return Object.hasOwn(vocab, token) ? vocab[token] : undefined;
}

const quote = (value: unknown) => (JSON.stringify(value) ?? String(value)).slice(0, 100);
const wrong = (what: string) => new Error(`not a tokenizer.json of the published FAST format: ${what}`);
