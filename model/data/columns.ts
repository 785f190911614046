const HALF = 65536;

/** Counts by the lower 16 bits, only for the upper 16 bits h that hold a quantile: counts[slots[h] - 1]. */
interface Fine {
  readonly slots: Uint8Array;
  readonly counts: readonly Uint32Array[];
}

/**
 * Computes mean, standard deviation, extremes and quantiles of the columns of a table [rows, dimension] exactly, in
 * memory that does not grow with the rows. The table is passed twice, in pieces of any size: the first pass counts
 * values by the upper 16 bits of their float32, ordered as integers; the second counts by the lower 16 bits near each
 * quantile.
 */
export class ColumnCounter {
  count = 0;
  readonly #sum: Float64Array;
  readonly #squares: Float64Array;
  readonly #min: Float64Array;
  readonly #max: Float64Array;
  readonly #coarse: Uint32Array[];
  #fine: Fine[] = [];

  /** @param parts the quantiles, each from 0 to 1 */
  constructor(
    readonly dimension: number,
    readonly parts: readonly number[],
  ) {
    const zeros = () => new Float64Array(dimension);
    [this.#sum, this.#squares] = [zeros(), zeros()];
    [this.#min, this.#max] = [zeros().fill(Number.POSITIVE_INFINITY), zeros().fill(Number.NEGATIVE_INFINITY)];
    this.#coarse = Array.from({ length: dimension }, () => new Uint32Array(HALF));
  }

  /** Adds rows in the first pass. */
  add(rows: Float32Array): void {
    const { dimension } = this;
    const keys = keysOf(rows);
    this.count += rows.length / dimension;
    for (let d = 0; d < dimension; d++) {
      const coarse = this.#coarse[d];
      let [sum, min, max] = [this.#sum[d], this.#min[d], this.#max[d]];
      for (let i = d; i < rows.length; i += dimension) {
        const value = rows[i] + 0; // -0 becomes 0
        sum += value;
        if (value < min) min = value;
        if (value > max) max = value;
        coarse[keys[i] >>> 16] += 1;
      }
      [this.#sum[d], this.#min[d], this.#max[d]] = [sum, min, max];
    }
  }

  /** Adds the same rows in the second pass. */
  addAgain(rows: Float32Array): void {
    if (this.#fine.length === 0) this.#fine = this.#coarse.map((counts) => this.#chosen(counts));
    const { dimension } = this;
    const keys = keysOf(rows);
    for (let d = 0; d < dimension; d++) {
      const mean = this.#sum[d] / this.count;
      const { slots, counts } = this.#fine[d];
      let squares = 0;
      for (let i = d; i < rows.length; i += dimension) {
        squares += (rows[i] - mean) * (rows[i] - mean);
        const slot = slots[keys[i] >>> 16];
        if (slot > 0) counts[slot - 1][keys[i] & (HALF - 1)] += 1;
      }
      this.#squares[d] += squares;
    }
  }

  /**
   * Returns the results after both passes; `quantiles` holds a list of all dimensions for each of `parts`. `still` says of
   * each dimension whether the two or more values from the first to the last quantile are one.
   */
  finish() {
    const { count, parts, dimension } = this;
    const [first, last] = [Math.ceil((count - 1) * parts[0]), Math.floor((count - 1) * parts.at(-1)!)];
    const dimensions = Array.from({ length: dimension }, (_, d) => d);
    return {
      count,
      mean: Array.from(this.#sum, (sum) => sum / count),
      std: Array.from(this.#squares, (sum) => Math.sqrt(sum / count)),
      min: Array.from(this.#min),
      max: Array.from(this.#max),
      still: dimensions.map((d) => first < last && this.#valueAt(d, first) === this.#valueAt(d, last)),
      quantiles: parts.map((part) => dimensions.map((d) => quantileOf((rank) => this.#valueAt(d, rank), count, part))),
    };
  }

  #chosen(coarse: Uint32Array): Fine {
    const slots = new Uint8Array(HALF);
    const counts: Uint32Array[] = [];
    for (const part of this.parts) {
      const below = Math.floor((this.count - 1) * part);
      for (const rank of [below, Math.min(below + 1, this.count - 1)]) {
        const { place } = placeOf(coarse, rank);
        if (slots[place] === 0) slots[place] = counts.push(new Uint32Array(HALF));
      }
    }
    return { slots, counts };
  }

  /** Finds the value of rank `rank` (from 0) in column `d`. */
  #valueAt(d: number, rank: number): number {
    const { slots, counts } = this.#fine[d];
    const { place, before } = placeOf(this.#coarse[d], rank);
    const key = (place * HALF + placeOf(counts[slots[place] - 1], rank - before).place) >>> 0;
    return new Float32Array(Uint32Array.of(key & 0x80000000 ? key & 0x7fffffff : ~key).buffer)[0];
  }
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
