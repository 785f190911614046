import { type ChunkGrammar, chunkGrammar, isId, quote } from './action-tokenizer.ts';
import type { Reading, SymbolCodec } from './bpe.ts';
import { MergeTable } from './bpe-merging.ts';
import { byteCharacters, byteOfCharacter, gpt2Pieces } from './gpt2.ts';
import { plainBpe } from './tokenizer-json.ts';

/**
 * The tokenizer.json of a published FAST tokenizer (physical-intelligence/fast, processing_action_tokenizer.py): each
 * shifted coefficient becomes the character with that code point; the text is split into GPT-2's pieces, and each piece
 * is encoded in UTF-8 and then by BPE in GPT-2's characters. This type has only the fields that determine the ids.
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

/** Symbols below this have characters: U+D800 is the first surrogate, which UTF-8 cannot encode. */
export const CHARACTERS = 0xd800;

/**
 * Symbols to the ids of such a file and back. The published code drops a character that the file has no token for, so
 * that the rest shifts and nothing can be decoded; here the nearest character that has tokens replaces it.
 */
export class PublishedCodec implements SymbolCodec {
  readonly symbols: number;
  readonly vocabularySize: number;
  private readonly merges: MergeTable;
  private readonly idOfByte: Int32Array;
  /** For each symbol, the nearest one that the file can encode. */
  private readonly nearest: Uint16Array;
  private readonly bytesOfId: (Uint8Array | undefined)[] = [];
  private readonly spelled: number[][] = [];

  /** @throws Error if the file is not a byte-level BPE of the published code */
  constructor(readonly json: PublishedTokenizerJson) {
    checkKind(json);
    const { vocab, merges } = json.model;
    let largest = -1;
    for (const [token, id] of Object.entries(vocab)) {
      if (!isId(id)) throw wrong(`token ${quote(token)} has the id ${quote(id)}`);
      largest = Math.max(largest, id);
      this.bytesOfId[id] = spelledBytes(token);
    }
    this.vocabularySize = largest + 1;
    this.idOfByte = Int32Array.from(byteCharacters, (character) => own(vocab, character) ?? -1);
    this.merges = readMerges(vocab, merges, this.vocabularySize);
    const spellable: number[] = [];
    for (let symbol = 0; symbol < CHARACTERS; symbol++)
      if (utf8(symbol).every((byte) => this.idOfByte[byte] >= 0)) spellable.push(symbol);
    if (spellable.length === 0) throw wrong('the vocabulary has no token for any byte');
    this.symbols = spellable[spellable.length - 1] + 1;
    this.nearest = nearestOf(spellable);
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

  /** Ids of the bytes of a symbol that the file can encode. */
  private idsOf(symbol: number): readonly number[] {
    this.spelled[symbol] ??= Array.from(utf8(symbol), (byte) => this.idOfByte[byte]);
    return this.spelled[symbol];
  }

  /**
   * The state is twice the number of complete characters, plus one inside a character of two bytes. Longer characters,
   * coefficients 2048 above the smallest, are not allowed.
   */
  grammar(length: number): ChunkGrammar {
    const shapes = Array.from({ length: this.vocabularySize }, (_, id) => shapeOf(this.bytesOfId[id]));
    const canEnd = shapes.some((shape) => shape?.ends && shape.whole === 0 && !shape.begins);
    const ids = Int32Array.from(shapes, (_, id) => id);
    const fits = (id: number, state: number) => {
      const shape = shapes[id];
      if (!shape || shape.ends !== (state % 2 === 1) || (shape.begins && !canEnd)) return false;
      return (state >> 1) + Number(shape.ends) + shape.whole + Number(shape.begins) <= length;
    };
    return chunkGrammar(
      2 * length,
      (state) => ids.filter((id) => fits(id, state)),
      (id) => Number(shapes[id]!.ends) + 2 * shapes[id]!.whole + Number(shapes[id]!.begins),
    );
  }

  read(ids: ArrayLike<number>, atMost: number): Reading {
    const symbols: number[] = [];
    let length = 0;
    // The current character: its bits so far, its missing bytes, and the smallest character with as many bytes.
    let [character, missing, least] = [0, 0, 0];
    const upTo = (unreadableAt: number): Reading => ({ symbols: Int32Array.from(symbols), length, unreadableAt });
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
  for (const [setting, plain] of Object.entries(plainBpe))
    if (model[setting] && model[setting] !== plain) throw wrong(`model.${setting} is set, which changes the ids`);
  if (typeof model.vocab !== 'object' || model.vocab === null || Array.isArray(model.vocab))
    throw wrong('model.vocab is no object');
  if (!Array.isArray(model.merges)) throw wrong('model.merges is no list');
}

function readMerges(vocab: Readonly<Record<string, number>>, merges: readonly unknown[], ids: number): MergeTable {
  const columns = [0, 1, 2].map(() => new Int32Array(merges.length));
  merges.forEach((merge, rank) => {
    const pair: unknown = typeof merge === 'string' ? merge.split(' ') : merge;
    if (!Array.isArray(pair) || pair.length !== 2 || pair.some((part) => typeof part !== 'string'))
      throw wrong(`model.merges[${rank}] is ${quote(merge)}, expected two tokens`);
    [pair[0], pair[1], pair[0] + pair[1]].forEach((token: string, column) => {
      const id = own(vocab, token);
      if (id === undefined)
        throw wrong(`model.merges[${rank}] is ${quote(merge)}, but ${quote(token)} is not in model.vocab`);
      columns[column][rank] = id;
    });
  });
  return new MergeTable(columns[0], columns[1], columns[2], ids, `${FORMAT}: model.merges`);
}

const encoder = new TextEncoder();
const utf8 = (symbol: number) => encoder.encode(String.fromCharCode(symbol));

/** Bytes of a token in GPT-2's characters; like the `tokenizers` library, it takes a token with any other character as text. */
function spelledBytes(token: string): Uint8Array {
  const bytes = Array.from(token, (character) => byteOfCharacter.get(character));
  return bytes.includes(undefined) ? encoder.encode(token) : Uint8Array.from(bytes as number[]);
}

/**
 * A token's bytes as characters of one or two bytes: whether they end one, how many they are whole, and whether they begin one;
 * null if they do not fit such characters.
 */
function shapeOf(bytes: Uint8Array | undefined) {
  if (!bytes || bytes.length === 0) return null;
  let whole = 0;
  let begins = false;
  const ends = bytes[0] >> 6 === 2;
  for (const byte of ends ? bytes.subarray(1) : bytes) {
    if (begins !== (byte >> 6 === 2) || byte > 0xdf || byte === 0xc0 || byte === 0xc1) return null;
    if (begins || byte < 0x80) whole++;
    begins = byte >= 0xc2;
  }
  return { ends, whole, begins };
}

/** For every integer from 0 to the last of the ascending `values`, the nearest value; the smaller one of two. */
function nearestOf(values: readonly number[]): Uint16Array {
  let index = 0;
  return Uint16Array.from({ length: values[values.length - 1] + 1 }, (_, wanted) => {
    while (index + 1 < values.length && Math.abs(values[index + 1] - wanted) < Math.abs(values[index] - wanted))
      index++;
    return values[index];
  });
}

/** An own property of the object, because the vocabulary may contain any word. */
function own(vocab: Readonly<Record<string, number>>, token: string): number | undefined {
  return Object.hasOwn(vocab, token) ? vocab[token] : undefined;
}

const FORMAT = 'not a tokenizer.json of the published FAST format';
const wrong = (what: string) => new Error(`${FORMAT}: ${what}`);
