/** A trained byte-pair encoding as plain data. */
export interface IntegerBpeJson {
  readonly symbols: number;
  /** Merge r joins the pair of ids merges[r] into the id symbols + r. */
  readonly merges: readonly (readonly [number, number])[];
}

export interface IntegerBpeTraining {
  /** Base symbols are the integers 0 .. symbols - 1. */
  readonly symbols: number;
  /** Training stops at this many ids, symbols included. */
  readonly vocabularySize: number;
  /** Training stops when no pair occurs this often. Default 2. */
  readonly minimumCount?: number;
}

const BOUNDARY = -1;
const JOINED = -2;

/**
 * Byte-pair encoding of integer sequences (Sennrich et al., arXiv 1508.07909, without characters or words): the most
 * frequent pair of neighbours becomes a new id, again and again; encoding applies the merges in the order they were learned.
 *
 * One observation carries both the trainer and the encoder: a pair of neighbours (a, b) can only arise in the merge that
 * makes max(a, b), and every merge runs from left to right. So a pair's list of positions is filled once, in order, and
 * afterwards only loses members; a position is checked when it is used instead of being removed.
 */
export class IntegerBpe {
  readonly symbols: number;
  readonly merges: readonly (readonly [number, number])[];
  /** Ids are 0 .. vocabularySize - 1. */
  readonly vocabularySize: number;
  private readonly ranks = new Map<number, number>();
  /** Base symbols that an id stands for. Float64, since a chain of merges may double it each time. */
  private readonly lengths: Float64Array;

  constructor({ symbols, merges }: IntegerBpeJson) {
    if (!Number.isInteger(symbols) || symbols < 1) {
      throw new Error(`IntegerBpe: symbols must be a positive integer, got ${symbols}`);
    }
    if (!Array.isArray(merges)) throw new Error('IntegerBpe: merges must be a list of pairs of ids');
    this.symbols = symbols;
    this.merges = merges;
    this.vocabularySize = symbols + merges.length;
    this.lengths = new Float64Array(this.vocabularySize).fill(1);
    for (let rank = 0; rank < merges.length; rank++) {
      const pair = merges[rank];
      const known = (id: unknown) => Number.isInteger(id) && (id as number) >= 0 && (id as number) < symbols + rank;
      if (!Array.isArray(pair) || pair.length !== 2 || !pair.every(known)) {
        throw new Error(
          `IntegerBpe: merge ${rank} is ${JSON.stringify(pair)}; it must join two ids below ${symbols + rank}`,
        );
      }
      const key = pair[0] * this.vocabularySize + pair[1];
      if (this.ranks.has(key)) {
        throw new Error(`IntegerBpe: merge ${rank} repeats merge ${this.ranks.get(key)}, ${JSON.stringify(pair)}`);
      }
      this.ranks.set(key, rank);
      this.lengths[symbols + rank] = this.lengths[pair[0]] + this.lengths[pair[1]];
    }
  }

  /**
   * Learns merges from `sequences`. A pair's count is the number of places where its two ids stand side by side, overlaps
   * included (2 2 2 holds (2, 2) twice); among equal counts the smaller pair wins, left id first. Counts are kept up to
   * date by each merge, not counted anew.
   */
  static train(sequences: Iterable<ArrayLike<number>>, options: IntegerBpeTraining): IntegerBpe {
    const { symbols, vocabularySize, minimumCount = 2 } = options;
    if (!Number.isInteger(vocabularySize) || vocabularySize < symbols) {
      throw new Error(`IntegerBpe.train: vocabularySize ${vocabularySize} is below the ${symbols} symbols`);
    }
    const text = linkedText(sequences, symbols, 'IntegerBpe.train');
    const pairs = new Map<number, { count: number; positions: number[] }>();
    const add = (left: number, right: number, position: number) => {
      const key = left * vocabularySize + right;
      const pair = pairs.get(key);
      if (pair) {
        pair.count++;
        pair.positions.push(position);
      } else pairs.set(key, { count: 1, positions: [position] });
    };
    const remove = (left: number, right: number) => {
      const pair = pairs.get(left * vocabularySize + right);
      if (pair) pair.count--;
    };
    text.forEachPair(add);

    const merges: [number, number][] = [];
    while (symbols + merges.length < vocabularySize) {
      let best = -1;
      let bestCount = 0;
      for (const [key, { count }] of pairs) {
        if (count < minimumCount) pairs.delete(key);
        else if (count > bestCount || (count === bestCount && key < best)) {
          best = key;
          bestCount = count;
        }
      }
      if (best < 0) break;
      const { positions } = pairs.get(best)!;
      pairs.delete(best);
      const [left, right] = [Math.floor(best / vocabularySize), best % vocabularySize];
      const merged = symbols + merges.length;
      merges.push([left, right]);
      for (const position of positions) {
        if (!text.join(position, left, right, merged)) continue;
        const before = text.symbolBefore(position);
        const after = text.symbolAfter(position);
        if (before !== BOUNDARY) {
          remove(before, left);
          add(before, merged, text.previous[position]);
        }
        if (after !== BOUNDARY) {
          remove(right, after);
          add(merged, after, position);
        }
      }
    }
    return new IntegerBpe({ symbols, merges });
  }

  static fromJSON(json: IntegerBpeJson): IntegerBpe {
    return new IntegerBpe(json);
  }

  /** Symbols 0 .. symbols - 1 in, ids out: every merge in the order of its rank, from left to right. */
  encode(sequence: ArrayLike<number>): Int32Array {
    const text = linkedText([sequence], this.symbols, 'IntegerBpe.encode');
    const waiting: (number[] | undefined)[] = new Array(this.merges.length);
    const add = (left: number, right: number, position: number) => {
      const rank = this.ranks.get(left * this.vocabularySize + right);
      if (rank === undefined) return;
      const positions = waiting[rank];
      if (positions) positions.push(position);
      else waiting[rank] = [position];
    };
    text.forEachPair(add);

    let length = sequence.length;
    for (let rank = 0; rank < waiting.length; rank++) {
      const positions = waiting[rank];
      if (!positions) continue;
      const [left, right] = this.merges[rank];
      const merged = this.symbols + rank;
      for (const position of positions) {
        if (!text.join(position, left, right, merged)) continue;
        length--;
        const before = text.symbolBefore(position);
        const after = text.symbolAfter(position);
        if (before !== BOUNDARY) add(before, merged, text.previous[position]);
        if (after !== BOUNDARY) add(merged, after, position);
      }
    }
    const ids = new Int32Array(length);
    for (let index = 0, position = text.next[0]; index < length; index++, position = text.next[position]) {
      ids[index] = text.symbol[position];
    }
    return ids;
  }

  /** How many symbols `ids` stand for; throws on an id outside the vocabulary. */
  decodedLength(ids: ArrayLike<number>): number {
    let length = 0;
    for (let index = 0; index < ids.length; index++) {
      if (!this.has(ids[index])) {
        throw new Error(
          `IntegerBpe: id ${ids[index]} at position ${index} is unknown; ids are 0 to ${this.vocabularySize - 1}`,
        );
      }
      length += this.lengths[ids[index]];
    }
    return length;
  }

  has(id: number): boolean {
    return Number.isInteger(id) && id >= 0 && id < this.vocabularySize;
  }

  /** Ids in, symbols out; throws on an id outside the vocabulary. */
  decode(ids: ArrayLike<number>): Int32Array {
    const sequence = new Int32Array(this.decodedLength(ids));
    const stack: number[] = [];
    let length = 0;
    for (let index = 0; index < ids.length; index++) {
      stack.push(ids[index]);
      while (stack.length > 0) {
        const id = stack.pop()!;
        if (id < this.symbols) sequence[length++] = id;
        else {
          const [left, right] = this.merges[id - this.symbols];
          stack.push(right, left);
        }
      }
    }
    return sequence;
  }

  toJSON(): IntegerBpeJson {
    return { symbols: this.symbols, merges: this.merges };
  }
}

/** Sequences as one doubly linked list with a boundary before, between and after them; checks every symbol. */
function linkedText(sequences: Iterable<ArrayLike<number>>, symbols: number, caller: string): LinkedText {
  const lists = [...sequences];
  const symbol = new Int32Array(lists.reduce((sum, list) => sum + list.length + 1, 1)).fill(BOUNDARY);
  let position = 1;
  for (const list of lists) {
    for (let index = 0; index < list.length; index++) {
      const value = list[index];
      if (!Number.isInteger(value) || value < 0 || value >= symbols) {
        throw new Error(`${caller}: symbol ${value} at position ${index} is not an integer from 0 to ${symbols - 1}`);
      }
      symbol[position++] = value;
    }
    position++;
  }
  return new LinkedText(symbol);
}

class LinkedText {
  readonly previous: Int32Array;
  readonly next: Int32Array;

  constructor(readonly symbol: Int32Array) {
    this.previous = Int32Array.from(symbol, (_, position) => position - 1);
    this.next = Int32Array.from(symbol, (_, position) => position + 1);
  }

  forEachPair(visit: (left: number, right: number, position: number) => void): void {
    const { symbol } = this;
    for (let position = 1; position + 1 < symbol.length; position++) {
      if (symbol[position] !== BOUNDARY && symbol[position + 1] !== BOUNDARY) {
        visit(symbol[position], symbol[position + 1], position);
      }
    }
  }

  /** Joins the pair at `position` into `merged`; false where it no longer stands there. */
  join(position: number, left: number, right: number, merged: number): boolean {
    const { symbol, next, previous } = this;
    const second = next[position];
    if (symbol[position] !== left || symbol[second] !== right) return false;
    symbol[position] = merged;
    symbol[second] = JOINED;
    next[position] = next[second];
    previous[next[second]] = position;
    return true;
  }

  symbolBefore(position: number): number {
    return this.symbol[this.previous[position]];
  }

  symbolAfter(position: number): number {
    return this.symbol[this.next[position]];
  }
}
