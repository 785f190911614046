import { ColumnCounter, quantile } from '../columns.ts';
import type { Image } from '../dataset.ts';

// LeRobot keeps min, max, mean, std, count and five quantiles of each feature.

const QUANTILES = { q01: 0.01, q10: 0.1, q50: 0.5, q90: 0.9, q99: 0.99 };

/** Lists of [width] numbers, or [3, 1, 1] for images. */
export type FeatureStatistics = Record<'min' | 'max' | 'mean' | 'std' | keyof typeof QUANTILES, unknown[]> & {
  count: number[];
};

export const featureCounter = (width: number) => new ColumnCounter(width, Object.values(QUANTILES));

export function featureStatistics(counter: ColumnCounter): FeatureStatistics {
  const { quantiles, count, min, max, mean, std } = counter.finish();
  const named = Object.fromEntries(Object.keys(QUANTILES).map((name, i) => [name, quantiles[i]]));
  return { min, max, mean, std, count: [count], ...named } as FeatureStatistics;
}

/** Computes the statistics of one episode's [rows, width], which are few enough to sort. */
export function episodeStatistics(rows: ArrayLike<number>, width: number): FeatureStatistics {
  const count = rows.length / width;
  const columns = Array.from({ length: width }, (_, d) => {
    const sorted = Float64Array.from({ length: count }, (_, row) => rows[row * width + d]).sort();
    const mean = sorted.reduce((sum, value) => sum + value, 0) / count;
    const std = Math.sqrt(sorted.reduce((sum, value) => sum + (value - mean) ** 2, 0) / count);
    const quantiles = Object.entries(QUANTILES).map(([name, part]) => [name, quantile(sorted, part)]);
    return { min: sorted[0], max: sorted[count - 1], mean, std, ...Object.fromEntries(quantiles) };
  });
  const lists = Object.keys(columns[0]).map((name) => [name, columns.map((column) => column[name])]);
  return { ...Object.fromEntries(lists), count: [count] };
}

/** Counts the 256 pixel values of each channel, which makes image statistics exact in little memory. */
export class PixelCounter {
  readonly #counts = Array.from({ length: 3 }, () => new Float64Array(256));
  #images = 0;

  add({ pixels }: Image): void {
    this.#images += 1;
    for (let i = 0; i < pixels.length; i++) this.#counts[i % 3][pixels[i]] += 1;
  }

  merge(other: PixelCounter): void {
    this.#images += other.#images;
    this.#counts.forEach((counts, channel) => {
      counts.forEach((_, value) => {
        counts[value] += other.#counts[channel][value];
      });
    });
  }

  /** Returns the statistics of pixel values in [0, 1], shaped [3, 1, 1]; `count` is the number of images. */
  statistics(): FeatureStatistics {
    const channels = this.#counts.map((counts) => {
      const total = counts.reduce((sum, own) => sum + own, 0);
      const mean = counts.reduce((sum, own, value) => sum + own * value, 0) / total;
      const variance = counts.reduce((sum, own, value) => sum + own * (value - mean) ** 2, 0) / total;
      const valueAt = (part: number) => {
        let left = (total - 1) * part;
        return counts.findIndex((own) => {
          left -= own;
          return left < 0;
        });
      };
      const quantiles = Object.fromEntries(Object.entries(QUANTILES).map(([name, part]) => [name, valueAt(part)]));
      return { min: valueAt(0), max: valueAt(1), mean, std: Math.sqrt(variance), ...quantiles };
    });
    const shaped = Object.keys(channels[0]).map((name) => [
      name,
      channels.map((channel) => [[(channel as Record<string, number>)[name] / 255]]),
    ]);
    return { ...Object.fromEntries(shaped), count: [this.#images] };
  }
}
