const HALF = 65536;

/**
 * Mean, deviation, extremes and quantiles of the columns of a table [rows, dimension], exact, in memory that does not
 * grow with the rows: the table is shown twice, in any pieces. The first pass counts values by the upper 16 bits of
 * their float32, ordered as integers, the second by the lower 16 bits where a quantile lies.
 */
export class ColumnCounter {
  count = 0;
  readonly #sum: Float64Array;
  readonly #squares: Float64Array;
  readonly #min: Float64Array;
  readonly #max: Float64Array;
  readonly #coarse: Uint32Array[];
  /** For each dimension, by the upper half of a value: its counts by the lower half; for halves with a quantile only. */
  #fine: Map<number, Uint32Array>[] = [];
  readonly #one = new Float32Array(1);
  readonly #bits = new Uint32Array(this.#one.buffer);

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

  /** First pass. */
  add(rows: Float32Array): void {
    const { dimension } = this;
    this.count += rows.length / dimension;
    for (let i = 0; i < rows.length; i++) {
      const d = i % dimension;
      const value = rows[i] + 0; // -0 becomes 0
      this.#sum[d] += value;
      if (value < this.#min[d]) this.#min[d] = value;
      if (value > this.#max[d]) this.#max[d] = value;
      this.#coarse[d][this.#key(value) >>> 16] += 1;
    }
  }

  /** Second pass, over the same rows. */
  addAgain(rows: Float32Array): void {
    if (this.#fine.length === 0) this.#fine = this.#coarse.map((counts) => this.#chosen(counts));
    const { dimension } = this;
    for (let i = 0; i < rows.length; i++) {
      const d = i % dimension;
      const value = rows[i] + 0;
      this.#squares[d] += (value - this.#sum[d] / this.count) ** 2;
      const key = this.#key(value);
      const fine = this.#fine[d].get(key >>> 16);
      if (fine) fine[key & (HALF - 1)] += 1;
    }
  }

  /** After both passes; `quantiles` holds a list of all dimensions for each part. */
  finish() {
    const { count } = this;
    const columns = Array.from(this.#coarse, (coarse, d) =>
      this.parts.map((part) => quantileOf((rank) => this.#valueAt(coarse, this.#fine[d], rank), count, part)),
    );
    return {
      count,
      mean: Array.from(this.#sum, (sum) => sum / count),
      std: Array.from(this.#squares, (sum) => Math.sqrt(sum / count)),
      min: Array.from(this.#min),
      max: Array.from(this.#max),
      quantiles: this.parts.map((_, i) => columns.map((column) => column[i])),
    };
  }

  /** An integer that orders as the float32 does. */
  #key(value: number): number {
    this.#one[0] = value;
    const bits = this.#bits[0];
    return (bits & 0x80000000 ? ~bits : bits | 0x80000000) >>> 0;
  }

  #chosen(coarse: Uint32Array): Map<number, Uint32Array> {
    const chosen = new Map<number, Uint32Array>();
    for (const part of this.parts) {
      const below = Math.floor((this.count - 1) * part);
      for (const rank of [below, Math.min(below + 1, this.count - 1)]) {
        const { place } = placeOf(coarse, rank);
        if (!chosen.has(place)) chosen.set(place, new Uint32Array(HALF));
      }
    }
    return chosen;
  }

  /** The value of rank `rank`, from 0, of a column. */
  #valueAt(coarse: Uint32Array, fine: Map<number, Uint32Array>, rank: number): number {
    const { place, before } = placeOf(coarse, rank);
    const key = (place * HALF + placeOf(fine.get(place)!, rank - before).place) >>> 0;
    this.#bits[0] = key & 0x80000000 ? key & 0x7fffffff : ~key;
    return this.#one[0];
  }
}

/** The place in a list of counts where the count of rank `rank` lies, and how many come before that place. */
function placeOf(counts: Uint32Array, rank: number): { place: number; before: number } {
  let before = 0;
  let place = 0;
  while (before + counts[place] <= rank) before += counts[place++];
  return { place, before };
}

/** A quantile with linear interpolation between neighbours, as numpy's default; `at` gives the value of a rank. */
function quantileOf(at: (rank: number) => number, count: number, part: number): number {
  const place = (count - 1) * part;
  const below = Math.floor(place);
  const [a, b] = [at(below), at(Math.min(below + 1, count - 1))];
  const rest = place - below;
  return rest < 0.5 ? a + (b - a) * rest : b - (b - a) * (1 - rest);
}

/** The quantile of sorted values, as numpy's default. */
export function quantile(sorted: ArrayLike<number>, part: number): number {
  return quantileOf((rank) => sorted[rank], sorted.length, part);
}
