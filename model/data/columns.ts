const HALF = 65536;

interface Column {
  sum: number;
  squares: number;
  min: number;
  max: number;
  /** Counts by the upper 16 bits. */
  readonly coarse: Uint32Array;
  /** Counts by the lower 16 bits, for those upper 16 bits that hold a quantile. */
  readonly fine: (Uint32Array | undefined)[];
}

/**
 * Computes mean, standard deviation, extremes and quantiles of the columns of a table [rows, dimension] exactly, in
 * memory that does not grow with the rows. The table is passed twice, in pieces of any size: the first pass counts
 * values by the upper 16 bits of their float32, ordered as integers; the second counts by the lower 16 bits near each
 * quantile.
 */
export class ColumnCounter {
  count = 0;
  readonly #columns: readonly Column[];

  /** @param parts the quantiles, each from 0 to 1 */
  constructor(
    readonly dimension: number,
    readonly parts: readonly number[],
  ) {
    this.#columns = Array.from({ length: dimension }, () => ({
      ...{ sum: 0, squares: 0, min: Number.POSITIVE_INFINITY, max: Number.NEGATIVE_INFINITY },
      ...{ coarse: new Uint32Array(HALF), fine: [] },
    }));
  }

  /** Adds rows in the first pass. */
  add(rows: Float32Array): void {
    const keys = keysOf(rows);
    this.count += rows.length / this.dimension;
    for (const [d, column] of this.#columns.entries()) {
      let { sum, min, max } = column;
      const { coarse } = column;
      for (let i = d; i < rows.length; i += this.dimension) {
        const value = rows[i] + 0; // -0 becomes 0
        sum += value;
        if (value < min) min = value;
        if (value > max) max = value;
        coarse[keys[i] >>> 16] += 1;
      }
      Object.assign(column, { sum, min, max });
    }
  }

  /** Adds the same rows in the second pass. */
  addAgain(rows: Float32Array): void {
    const keys = keysOf(rows);
    for (const [d, column] of this.#columns.entries()) {
      const { sum, fine } = column;
      if (fine.length === 0) this.#choose(column);
      const mean = sum / this.count;
      let squares = 0;
      for (let i = d; i < rows.length; i += this.dimension) {
        squares += (rows[i] - mean) * (rows[i] - mean);
        const counts = fine[keys[i] >>> 16];
        if (counts) counts[keys[i] & (HALF - 1)] += 1;
      }
      column.squares += squares;
    }
  }

  /**
   * Returns the results after both passes; `quantiles` holds a list of all dimensions for each of `parts`. `still` says of
   * each dimension whether the two or more values from the first to the last quantile are one.
   */
  finish() {
    const { count, parts } = this;
    const columns = this.#columns;
    const [first, last] = [Math.ceil((count - 1) * parts[0]), Math.floor((count - 1) * parts.at(-1)!)];
    return {
      count,
      mean: columns.map(({ sum }) => sum / count),
      std: columns.map(({ squares }) => Math.sqrt(squares / count)),
      min: columns.map(({ min }) => min),
      max: columns.map(({ max }) => max),
      still: columns.map((own) => first < last && valueAt(own, first) === valueAt(own, last)),
      quantiles: parts.map((part) => columns.map((own) => quantileOf((rank) => valueAt(own, rank), count, part))),
    };
  }

  /** Chooses the upper 16 bits whose lower ones are counted. */
  #choose({ coarse, fine }: Column): void {
    for (const part of this.parts) {
      const below = Math.floor((this.count - 1) * part);
      for (const rank of [below, Math.min(below + 1, this.count - 1)])
        fine[placeOf(coarse, rank).place] ??= new Uint32Array(HALF);
    }
  }
}

/** Finds the value of rank `rank` (from 0) in a column. */
function valueAt({ coarse, fine }: Column, rank: number): number {
  const { place, before } = placeOf(coarse, rank);
  const key = (place * HALF + placeOf(fine[place]!, rank - before).place) >>> 0;
  return new Float32Array(Uint32Array.of(key & 0x80000000 ? key & 0x7fffffff : ~key).buffer)[0];
}

/** Maps float32 values to integers of the same order; -0 counts as 0. */
function keysOf(values: Float32Array): Uint32Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  return bits.map((own) => (own & 0x80000000 ? (own === 0x80000000 ? own : ~own) : own | 0x80000000));
}

/** Finds the index in a list of counts that holds rank `rank`, and the number of values before that index. */
function placeOf(counts: Uint32Array, rank: number): { place: number; before: number } {
  let before = 0;
  let place = 0;
  while (before + counts[place] <= rank) before += counts[place++];
  return { place, before };
}

/** Interpolates a quantile linearly between neighbours, as numpy does by default; `at` gives the value of a rank. */
function quantileOf(at: (rank: number) => number, count: number, part: number): number {
  const place = (count - 1) * part;
  const below = Math.floor(place);
  const [a, b] = [at(below), at(Math.min(below + 1, count - 1))];
  const rest = place - below;
  return rest < 0.5 ? a + (b - a) * rest : b - (b - a) * (1 - rest);
}

/** Computes a quantile of sorted values, as numpy does by default. */
export function quantile(sorted: ArrayLike<number>, part: number): number {
  return quantileOf((rank) => sorted[rank], sorted.length, part);
}
