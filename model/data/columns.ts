import { randomStream, streams } from '../../engine/random.ts';

/** The rows that are kept for quantiles: with so many, the rank of a 1 % quantile is off by 0.02 % of the rows (one standard deviation). */
const KEPT = 2 ** 18;

interface Column {
  sum: number;
  /** The first value, and sums of distances from it and of their squares: a large offset costs the deviation no digits. */
  readonly origin: number;
  distances: number;
  squares: number;
  min: number;
  max: number;
  readonly kept: number[];
}

/**
 * Computes mean, standard deviation, extremes and quantiles of the columns of a table [rows, dimension], which is given in pieces of any
 * size. Quantiles of more than KEPT rows are those of so many of them, drawn evenly (algorithm R of Vitter 1985); all else is exact.
 */
export class ColumnSummary {
  count = 0;
  #columns: Column[] = [];
  readonly #random = randomStream(0, 0, streams.sampling);

  constructor(readonly dimension: number) {}

  add(rows: ArrayLike<number>): void {
    const { dimension } = this;
    for (let first = 0; first < rows.length; first += dimension) {
      if (this.count === 0) this.#columns = Array.from({ length: dimension }, (_, d) => columnFrom(rows[first + d]));
      const place = this.count < KEPT ? this.count : this.#random.integer(this.count, this.count + 1);
      this.count += 1;
      for (let d = 0; d < dimension; d++) {
        const column = this.#columns[d];
        const value = rows[first + d] + 0; // -0 becomes 0
        const distance = value - column.origin;
        column.sum += value;
        column.distances += distance;
        column.squares += distance * distance;
        if (value < column.min) column.min = value;
        if (value > column.max) column.max = value;
        if (place < KEPT) column.kept[place] = value;
      }
    }
  }

  /**
   * `quantiles` holds a list of all dimensions for each of `parts`, growing numbers from 0 to 1; `still` says of each dimension whether
   * the two or more values from the first to the last quantile are one.
   */
  finish(parts: readonly number[]) {
    const { count } = this;
    const columns = this.#columns.map(({ sum, distances, squares, kept, min, max }) => {
      const sorted = Float64Array.from(kept).sort();
      const [first, last] = [Math.ceil((kept.length - 1) * parts[0]), Math.floor((kept.length - 1) * parts.at(-1)!)];
      return {
        ...{ min, max, sorted, mean: sum / count },
        std: Math.sqrt(Math.max(0, squares - (distances * distances) / count) / count),
        still: first < last && sorted[first] === sorted[last],
      };
    });
    return {
      count,
      mean: columns.map(({ mean }) => mean),
      std: columns.map(({ std }) => std),
      min: columns.map(({ min }) => min),
      max: columns.map(({ max }) => max),
      still: columns.map(({ still }) => still),
      quantiles: parts.map((part) => columns.map(({ sorted }) => quantile(sorted, part))),
    };
  }
}

const columnFrom = (value: number): Column => ({
  ...{ sum: 0, origin: value, distances: 0, squares: 0 },
  ...{ min: Number.POSITIVE_INFINITY, max: Number.NEGATIVE_INFINITY, kept: [] },
});

/** Computes a quantile of sorted values, interpolated linearly between neighbours as numpy does by default. */
export function quantile(sorted: ArrayLike<number>, part: number): number {
  const place = (sorted.length - 1) * part;
  const below = Math.floor(place);
  const [a, b] = [sorted[below], sorted[Math.min(below + 1, sorted.length - 1)]];
  const rest = place - below;
  return rest < 0.5 ? a + (b - a) * rest : b - (b - a) * (1 - rest);
}
