import { type ChunkGrammar, chunkGrammar, quote, unknownId } from './action-tokenizer.ts';
import { MergeTable } from './bpe-merging.ts';
import { checkSymbols, learnMerges, type MergeLearning } from './bpe-training.ts';

/** Encodes symbols 0 .. symbols - 1 as ids 0 .. vocabularySize - 1: `IntegerBpe`, or the published format of FAST. */
export interface SymbolCodec {
  readonly symbols: number;
  readonly vocabularySize: number;
  /** Symbols -> ids: at most one id for each symbol, in the published format at most three. */
  encode(sequence: ArrayLike<number>): Int32Array;
  /** The grammar of the id sequences that decode to `length` symbols. */
  grammar(length: number): ChunkGrammar;
  /** Decodes ids up to the first invalid one, to at most `atMost` symbols, so that a damaged file cannot exhaust memory. */
  read(ids: ArrayLike<number>, atMost: number): Reading;
}

/** The symbols of ids, up to the first invalid id. */
export interface Reading {
  readonly symbols: Int32Array;
  readonly length: number;
  /** Position of the first id that is outside the vocabulary or breaks a symbol; decoding ends there. -1 if there is none. */
  readonly unreadableAt: number;
}

/** A merge of two neighbouring ids in a sequence. */
export interface AppliedMerge {
  readonly left: number;
  readonly right: number;
  /** The id in their place. */
  readonly id: number;
  /** Index of the first of the symbols that the id stands for. */
  readonly at: number;
}

/** A trained byte-pair encoding as plain data. */
export interface IntegerBpeJson {
  readonly symbols: number;
  /** Merge r replaces the pair of ids merges[r] by the id symbols + r. */
  readonly merges: readonly (readonly [number, number])[];
}

/** The most base symbols; a file with more is refused as damaged. */
const MOST_SYMBOLS = 2 ** 20;
/** The longest sequence that is decoded: a damaged file can make one id stand for 2^1000 symbols. */
const LONGEST = 2 ** 24;

/**
 * Byte-pair encoding of integer sequences (Sennrich et al., arXiv 1508.07909, without characters or words): the most
 * frequent pair of neighbours becomes a new id, repeatedly; encoding applies the merges in the order they were learned
 * (bpe-merging.ts). Every symbol is an id of its own, so encoding is lossless.
 */
export class IntegerBpe implements SymbolCodec {
  readonly symbols: number;
  readonly merges: readonly (readonly [number, number])[];
  readonly vocabularySize: number;
  private readonly table: MergeTable;
  /** Number of base symbols of each id, in float64, because each merge of a chain may double it. */
  private readonly lengths: Float64Array;

  /** Takes the result of training or of toJSON. @throws Error that names the wrong merge */
  constructor({ symbols, merges }: IntegerBpeJson) {
    if (!Number.isInteger(symbols) || symbols < 1 || symbols > MOST_SYMBOLS)
      throw new Error(`IntegerBpe: symbols must be an integer from 1 to ${MOST_SYMBOLS}, got ${quote(symbols)}`);
    if (!Array.isArray(merges)) throw new Error('IntegerBpe: merges must be a list of pairs of ids');
    this.symbols = symbols;
    this.merges = merges;
    this.vocabularySize = symbols + merges.length;
    this.lengths = new Float64Array(this.vocabularySize).fill(1);
    merges.forEach((pair: unknown, rank) => {
      const known = (id: unknown) => Number.isInteger(id) && (id as number) >= 0 && (id as number) < symbols + rank;
      if (!Array.isArray(pair) || pair.length !== 2 || !pair.every(known))
        throw new Error(`IntegerBpe: merge ${rank} is ${quote(pair)}; it must join two ids below ${symbols + rank}`);
      this.lengths[symbols + rank] = this.lengths[pair[0]] + this.lengths[pair[1]];
    });
    this.table = new MergeTable(
      Int32Array.from(merges, (pair) => pair[0]),
      Int32Array.from(merges, (pair) => pair[1]),
      Int32Array.from(merges, (_, rank) => symbols + rank),
      this.vocabularySize,
      'IntegerBpe',
    );
  }

  /** Learns merges from `sequences` of the symbols 0 .. symbols - 1; see bpe-training.ts for counting and ties. */
  static train(sequences: Iterable<ArrayLike<number>>, options: MergeLearning): IntegerBpe {
    return new IntegerBpe({ symbols: options.symbols, merges: learnMerges(sequences, options) });
  }

  /** Symbols 0 .. symbols - 1 -> ids. @throws Error that names the first other symbol */
  encode(sequence: ArrayLike<number>): Int32Array {
    checkSymbols(sequence, this.symbols, 'IntegerBpe.encode');
    return this.table.apply(sequence);
  }

  /** The merges by which `encode` comes from the symbols to the ids, in order. */
  mergesOf(sequence: ArrayLike<number>): AppliedMerge[] {
    checkSymbols(sequence, this.symbols, 'IntegerBpe.mergesOf');
    const applied: AppliedMerge[] = [];
    this.table.apply(sequence, (rank, at) => {
      const [left, right] = this.merges[rank];
      applied.push({ left, right, id: this.symbols + rank, at });
    });
    return applied;
  }

  /** The number of symbols that an id stands for. */
  lengthOf(id: number): number {
    return this.lengths[id];
  }

  /** The state counts symbols. An id is allowed if it stands for no more symbols than are missing. */
  grammar(length: number): ChunkGrammar {
    const ids = Int32Array.from(this.lengths, (_, id) => id);
    return chunkGrammar(
      length,
      (state) => ids.filter((id) => this.lengths[id] <= length - state),
      (id) => this.lengths[id],
    );
  }

  read(ids: ArrayLike<number>, atMost: number): Reading {
    const known = (id: number) => Number.isInteger(id) && id >= 0 && id < this.vocabularySize;
    let length = 0;
    let end = 0;
    for (; end < ids.length && known(ids[end]); end++) length += this.lengths[ids[end]];
    const symbols = new Int32Array(Math.min(length, atMost));
    const stack: number[] = [];
    let written = 0;
    for (let index = 0; written < symbols.length; index++) {
      stack.push(ids[index]);
      while (stack.length > 0 && written < symbols.length) {
        const id = stack.pop()!;
        if (id < this.symbols) symbols[written++] = id;
        else stack.push(this.merges[id - this.symbols][1], this.merges[id - this.symbols][0]);
      }
    }
    return { symbols, length, unreadableAt: end < ids.length ? end : -1 };
  }

  /** Ids -> symbols; throws on an id outside the vocabulary. */
  decode(ids: ArrayLike<number>): Int32Array {
    const { length, unreadableAt: at } = this.read(ids, 0);
    if (at >= 0) throw unknownId(ids[at], at, this.vocabularySize);
    if (length > LONGEST) throw new Error(`IntegerBpe.decode: the ids spell ${length} symbols, more than ${LONGEST}`);
    return this.read(ids, length).symbols;
  }

  toJSON(): IntegerBpeJson {
    return { symbols: this.symbols, merges: this.merges };
  }
}
