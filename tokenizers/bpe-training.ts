export interface MergeLearning {
  /** Base symbols are the integers 0 .. symbols - 1. */
  readonly symbols: number;
  /** Training stops at this many ids, symbols included. */
  readonly vocabularySize: number;
  /** Training stops when no pair occurs this often. Default 2. */
  readonly minimumCount?: number;
  /**
   * The choice among equally frequent pairs: the pair of smaller ids, as in the `tokenizers` library (the default), or
   * of the greater symbols, as in Stanford's CS336 reference; left part first.
   */
  readonly ties?: 'smaller-ids' | 'greater-symbols';
}

type Pair = [left: number, right: number];

/**
 * Learns the merges of a byte-pair encoding (Sennrich et al., arXiv 1508.07909): the most frequent pair of neighbouring
 * ids becomes the id symbols + number of merges so far, repeatedly. A pair's count is the number of positions at which
 * its two ids are adjacent, overlaps included (2 2 2 contains (2, 2) twice).
 *
 * Each merge updates the counts. A pair (a, b) can only arise in the merge that makes max(a, b), and every merge runs
 * from left to right; so a pair's list of positions is filled once, in order, and afterwards only loses members: a
 * position is checked when it is used instead of being removed. The most frequent pair is found by a scan of all pairs,
 * some thousands for actions.
 *
 * @throws Error on a symbol outside 0 .. symbols - 1 and on a vocabulary smaller than the symbols
 */
export function learnMerges(sequences: Iterable<ArrayLike<number>>, options: MergeLearning): Pair[] {
  const { symbols, vocabularySize, minimumCount = 2, ties = 'smaller-ids' } = options;
  if (!Number.isInteger(vocabularySize) || !(vocabularySize >= symbols))
    throw new Error(`IntegerBpe.train: vocabularySize ${vocabularySize} is below the ${symbols} symbols`);
  const text = new LinkedText(sequences, symbols);
  const pairs = new Map<number, { count: number; places: number[] }>();
  const add = (left: number, right: number, place: number) => {
    if (left === BOUNDARY || right === BOUNDARY) return;
    const key = left * vocabularySize + right;
    const pair = pairs.get(key);
    if (pair) {
      pair.count++;
      pair.places.push(place);
    } else pairs.set(key, { count: 1, places: [place] });
  };
  const remove = (left: number, right: number) => {
    const pair = pairs.get(left * vocabularySize + right);
    if (left !== BOUNDARY && right !== BOUNDARY && pair) pair.count--;
  };
  text.forEachPair(add);

  const pairOf = (key: number): Pair => [Math.floor(key / vocabularySize), key % vocabularySize];
  /** The symbols of each merged id, if ties need them. */
  const spellings: number[][] = [];
  const spell = (id: number) => (id < symbols ? [id] : spellings[id - symbols]);
  const before = (key: number, best: number) => {
    if (ties === 'smaller-ids') return key < best;
    const [[left, right], [bestLeft, bestRight]] = [pairOf(key), pairOf(best)];
    return (compare(spell(left), spell(bestLeft)) || compare(spell(right), spell(bestRight))) > 0;
  };
  const merges: Pair[] = [];
  while (symbols + merges.length < vocabularySize) {
    let best = -1;
    let bestCount = 0;
    for (const [key, { count }] of pairs) {
      if (count < minimumCount) pairs.delete(key);
      else if (count > bestCount || (count === bestCount && before(key, best))) {
        best = key;
        bestCount = count;
      }
    }
    if (best < 0) break;
    const { places } = pairs.get(best)!;
    pairs.delete(best);
    const [left, right] = pairOf(best);
    const merged = symbols + merges.length;
    merges.push([left, right]);
    if (ties === 'greater-symbols') spellings.push([...spell(left), ...spell(right)]);
    for (const place of places) {
      if (!text.join(place, left, right, merged)) continue;
      const [previous, next] = [text.symbol[text.previous[place]], text.symbol[text.next[place]]];
      remove(previous, left);
      add(previous, merged, text.previous[place]);
      remove(right, next);
      add(merged, next, place);
    }
  }
  return merges;
}

/** Lexicographic order: by the first symbol that differs, then by length. */
function compare(a: readonly number[], b: readonly number[]): number {
  for (let index = 0; index < Math.min(a.length, b.length); index++)
    if (a[index] !== b[index]) return a[index] - b[index];
  return a.length - b.length;
}

const BOUNDARY = -1;
const JOINED = -2;

/** All sequences in one doubly linked list, with a boundary before, between and after them. */
class LinkedText {
  readonly symbol: Int32Array;
  readonly previous: Int32Array;
  readonly next: Int32Array;

  constructor(sequences: Iterable<ArrayLike<number>>, symbols: number) {
    const lists = [...sequences];
    this.symbol = new Int32Array(lists.reduce((sum, list) => sum + list.length + 1, 1)).fill(BOUNDARY);
    let place = 1;
    for (const list of lists) {
      checkSymbols(list, symbols, 'IntegerBpe.train');
      this.symbol.set(list, place);
      place += list.length + 1;
    }
    this.previous = this.symbol.map((_, own) => own - 1);
    this.next = this.symbol.map((_, own) => own + 1);
  }

  forEachPair(visit: (left: number, right: number, place: number) => void): void {
    for (let place = 1; place + 1 < this.symbol.length; place++)
      visit(this.symbol[place], this.symbol[place + 1], place);
  }

  /** Replaces the pair at `place` by `merged`; returns false if the pair is no longer there. */
  join(place: number, left: number, right: number, merged: number): boolean {
    const { symbol, next, previous } = this;
    const second = next[place];
    if (symbol[place] !== left || symbol[second] !== right) return false;
    symbol[place] = merged;
    symbol[second] = JOINED;
    next[place] = next[second];
    previous[next[second]] = place;
    return true;
  }
}

/** Throws in `caller`'s name on anything but integers from 0 to symbols - 1. */
export function checkSymbols(sequence: ArrayLike<number>, symbols: number, caller: string): void {
  for (let index = 0; index < sequence.length; index++) {
    const value = sequence[index];
    if (!Number.isInteger(value) || value < 0 || value >= symbols)
      throw new Error(`${caller}: symbol ${value} at position ${index} is not an integer from 0 to ${symbols - 1}`);
  }
}
