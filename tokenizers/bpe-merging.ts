/**
 * Byte-pair merging (Sennrich et al., arXiv 1508.07909): a table maps pairs of neighbouring ids to the id that replaces
 * them, and to the rank of the merge. As long as any pair of neighbours is in the table, the pair of lowest rank,
 * leftmost among equals, is merged. This is the order of the `tokenizers` library, so that its files give the same ids
 * here.
 *
 * The candidate pairs are in a binary heap of keys, rank * (n + 1) + position; a key whose pair no longer exists is
 * skipped. n ids take O(n log n).
 */
export class MergeTable {
  /** A hash table with open addressing: the slot of a pair holds its rank; a free slot holds -1. */
  private readonly slots: Int32Array;
  private room = new Room(0);

  /**
   * Merge `rank` replaces left[rank] and right[rank] by joined[rank].
   *
   * @param ids an upper bound of all ids, exclusive
   * @throws Error, which begins with `what`, if two merges have the same pair
   */
  constructor(
    private readonly left: Int32Array,
    private readonly right: Int32Array,
    private readonly joined: Int32Array,
    private readonly ids: number,
    what: string,
  ) {
    this.slots = new Int32Array(2 ** Math.ceil(Math.log2(4 * left.length + 1))).fill(-1);
    for (let rank = 0; rank < left.length; rank++) {
      const slot = this.slotOf(left[rank], right[rank]);
      if (this.slots[slot] >= 0) throw new Error(`${what}: merge ${rank} repeats merge ${this.slots[slot]}`);
      this.slots[slot] = rank;
    }
  }

  /**
   * Applies all merges to `sequence`; its ids must be from 0 to ids - 1. `merged` is told of each: its rank, and the index in `sequence`
   * of the first of all that it joins.
   */
  apply(sequence: ArrayLike<number>, merged?: (rank: number, at: number) => void): Int32Array {
    const { left, right, joined, ids } = this;
    const { length } = sequence;
    if (this.room.length < length) this.room = new Room(2 * length);
    // A linked list. Positions 0 and length + 1 are its ends; the value `ids` marks them and merged symbols.
    const { symbol, next, previous, waiting } = this.room;
    for (let place = 0; place < length + 2; place++) {
      symbol[place] = place > 0 && place <= length ? sequence[place - 1] : ids;
      next[place] = place + 1;
      previous[place] = place - 1;
    }
    const offer = (place: number, after: number) => {
      const rank = this.slots[this.slotOf(symbol[place], symbol[after])];
      if (rank >= 0) waiting.push(rank * (length + 1) + place);
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
      merged?.(rank, place - 1);
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

  /** The slot of a pair, or the free slot for it. */
  private slotOf(a: number, b: number): number {
    const { slots, left, right } = this;
    const last = slots.length - 1;
    let slot = Math.imul(Math.imul(a, 0x9e3779b1) ^ b, 0x85ebca6b);
    slot = (slot ^ (slot >>> 15)) & last;
    for (; slots[slot] >= 0; slot = (slot + 1) & last) if (left[slots[slot]] === a && right[slots[slot]] === b) break;
    return slot;
  }
}

/** Working memory for sequences up to `length`, reused from one sequence to the next. */
class Room {
  readonly symbol: Int32Array;
  readonly next: Int32Array;
  readonly previous: Int32Array;
  /** At most length - 1 pairs at first, and two more for each of at most length - 1 merges. */
  readonly waiting: Heap;

  constructor(readonly length: number) {
    this.symbol = new Int32Array(length + 2);
    this.next = new Int32Array(length + 2);
    this.previous = new Int32Array(length + 2);
    this.waiting = new Heap(3 * length);
  }
}

/** A min-heap of numbers. */
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
