/** Variants of kernels measured beside each other, and the best of each place taken. */
import type { Device } from '../../engine/index.ts';
import { type MeasureOptions, measure, type Spread, type Task } from './measure.ts';
import { provenance } from './provenance.ts';
import type { Tuned } from './tuning.ts';

/** What one choice decides, and the variants among which it is made; the shipped one comes first. */
export interface Candidates<Key> {
  readonly key: Key;
  readonly variants: readonly string[];
  /** What they are measured at, for people. */
  readonly sizes: string;
  task(variant: string): Task;
}

export type ChooseOptions = Pick<MeasureOptions, 'rounds' | 'seconds' | 'onProgress'>;

/** Measures all variants of all places in the same rounds. */
export async function choose<Key extends object>(
  device: Device,
  places: readonly Candidates<Key>[],
  options: ChooseOptions,
): Promise<(Key & Tuned)[]> {
  const tasks = places.flatMap(({ variants, task }) => variants.map(task));
  const measured = await measure(device, tasks, { ...options, timestamps: false });
  const { commit, date } = provenance(device);
  let next = 0;
  return places.map(({ key, variants, sizes }) => {
    const own = variants.map((variant) => ({ variant, wall: measured[next++].wall }));
    const milliseconds = Object.fromEntries(own.map(({ variant, wall }) => [variant, wall.median]));
    return { ...key, variant: best(own), milliseconds, sizes, date, commit };
  });
}

/** The shipped variant, which comes first, unless another is faster by more than both spreads. */
export function best(measured: readonly { readonly variant: string; readonly wall: Spread }[]): string {
  const [shipped, ...others] = measured;
  const faster = others.filter(({ wall }) => wall.upperQuartile < shipped.wall.lowerQuartile);
  return [shipped, ...faster].sort((a, b) => a.wall.median - b.wall.median)[0].variant;
}
