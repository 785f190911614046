/** Measures variants of kernels beside each other and chooses the best for each place. */
import type { Device } from '../../engine/index.ts';
import { measure, type RoundOptions, type Spread, type Task } from './measure.ts';
import { provenance } from './provenance.ts';
import type { Tuned } from './tuning.ts';

/** The alternatives for one choice, identified by its key. */
export interface Candidates<Key> {
  readonly key: Key;
  /** The shipped variant comes first. */
  readonly variants: readonly string[];
  /** The sizes that the variants are measured at, for people. */
  readonly sizes: string;
  task(variant: string): Task;
}

/** Measures all variants of all places in the same rounds. */
export async function choose<Key extends object>(
  device: Device,
  places: readonly Candidates<Key>[],
  options: RoundOptions,
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

/** The shipped variant, which comes first, unless the quartiles of a faster one lie apart from its own. */
export function best(measured: readonly { readonly variant: string; readonly wall: Spread }[]): string {
  const [shipped, ...others] = measured;
  const faster = others.filter(({ wall }) => wall.upperQuartile < shipped.wall.lowerQuartile);
  return [shipped, ...faster].sort((a, b) => a.wall.median - b.wall.median)[0].variant;
}
