import { ColumnSummary } from '../columns.ts';
import type { Image } from '../dataset.ts';

// LeRobot keeps min, max, mean, std, count and five quantiles of each feature.

const QUANTILES = { q01: 0.01, q10: 0.1, q50: 0.5, q90: 0.9, q99: 0.99 };

/** Lists of [width] numbers, or [3, 1, 1] for images. */
export type FeatureStatistics = Readonly<Record<string, readonly unknown[]>>;

export function numberStatistics(summary: ColumnSummary): FeatureStatistics {
  const { quantiles, count, min, max, mean, std } = summary.finish(Object.values(QUANTILES));
  const named = Object.fromEntries(Object.keys(QUANTILES).map((name, i) => [name, quantiles[i]]));
  return { min, max, mean, std, count: [count], ...named };
}

/** About as many pixels of an image are counted, evenly spread. */
const PIXELS = 2 ** 14;

/** Statistics of the pixel values of images. */
export class PixelSummary {
  #images = 0;
  readonly #pixels = new ColumnSummary(3);

  add({ pixels }: Image): void {
    this.#images += 1;
    const every = 3 * Math.ceil(pixels.length / (3 * PIXELS));
    for (let i = 0; i < pixels.length; i += every) this.#pixels.add(pixels.subarray(i, i + 3));
  }

  /** The statistics of values in [0, 1], shaped [3, 1, 1]; `count` is the number of images. */
  statistics(): FeatureStatistics {
    const lists = Object.entries(numberStatistics(this.#pixels)).map(([name, values]) => [
      name,
      values.map((value) => [[Number(value) / 255]]),
    ]);
    return { ...Object.fromEntries(lists), count: [this.#images] };
  }
}
