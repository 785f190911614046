/**
 * Byte-pair merging (Sennrich et al., arXiv 1508.07909): a table says which two neighbouring ids join into which id, and the
 * rank of each merge. While any pair of neighbours stands in the table, the pair of lowest rank, leftmost among equals, is
 * joined. This is the order of the `tokenizers` library, so that its files give the same ids here.
 *
 * The pairs that wait lie in a binary heap of keys made of rank and place; a key whose pair is gone when its turn comes is
 * skipped. n ids take O(n log n).
 */
export class Merges {
  private readonly ranks = new Map<number, number>();

  /**
   * Merge `rank` joins left[rank] and right[rank] into joined[rank].
   *
   * @param ids all ids are below this
   * @throws Error where two merges join the same pair
   */
  constructor(
    private readonly left: Int32Array,
    private readonly right: Int32Array,
    private readonly joined: Int32Array,
    private readonly ids: number,
  ) {
    for (let rank = 0; rank < left.length; rank++) {
      const key = left[rank] * (ids + 1) + right[rank];
      const earlier = this.ranks.get(key);
      if (earlier !== undefined) throw new Error(`merge ${rank} repeats merge ${earlier}`);
      this.ranks.set(key, rank);
    }
  }

  /** Joins what can be joined in `sequence`, whose ids must be from 0 to ids - 1. */
  apply(sequence: ArrayLike<number>): Int32Array {
    const { left, right, joined, ranks, ids } = this;
    const { length } = sequence;
    // A linked list; places 0 and length + 1 are its ends, and `ids` stands there and where a symbol was joined to another.
    const symbol = new Int32Array(length + 2).fill(ids);
    symbol.set(sequence, 1);
    const next = new Int32Array(length + 2);
    const previous = new Int32Array(length + 2);
    for (let place = 0; place < length + 2; place++) {
      next[place] = place + 1;
      previous[place] = place - 1;
    }
    // At most length - 1 pairs at first, and two more for each of at most length - 1 joins.
    const waiting = new Heap(3 * length);
    const offer = (place: number, after: number) => {
      const rank = ranks.get(symbol[place] * (ids + 1) + symbol[after]);
      if (rank !== undefined) waiting.push(rank * (length + 1) + place);
    };
    for (let place = 1; place < length; place++) offer(place, place + 1);

    let alive = length;
    while (waiting.size > 0) {
      const key = waiting.pop();
      const rank = Math.floor(key / (length + 1));
      const place = key - rank * (length + 1);
      const after = next[place];
      if (symbol[place] !== left[rank] || symbol[after] !== right[rank]) continue;
      alive--;
      symbol[place] = joined[rank];
      symbol[after] = ids;
      next[place] = next[after];
      previous[next[after]] = place;
      offer(previous[place], place);
      offer(place, next[place]);
    }
    const result = new Int32Array(alive);
    for (let index = 0, place = next[0]; index < alive; index++, place = next[place]) result[index] = symbol[place];
    return result;
  }
}

/** Numbers, the smallest first. */
class Heap {
  size = 0;
  private readonly keys: Float64Array;

  constructor(capacity: number) {
    this.keys = new Float64Array(capacity);
  }

  push(key: number): void {
    const { keys } = this;
    let place = this.size++;
    while (place > 0) {
      const parent = (place - 1) >> 1;
      if (keys[parent] <= key) break;
      keys[place] = keys[parent];
      place = parent;
    }
    keys[place] = key;
  }

  pop(): number {
    const { keys } = this;
    const smallest = keys[0];
    const last = keys[--this.size];
    let place = 0;
    for (;;) {
      let child = 2 * place + 1;
      if (child >= this.size) break;
      if (child + 1 < this.size && keys[child + 1] < keys[child]) child++;
      if (keys[child] >= last) break;
      keys[place] = keys[child];
      place = child;
    }
    keys[place] = last;
    return smallest;
  }
}
