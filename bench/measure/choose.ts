/** Measures variants of kernels beside each other and chooses the best for each place. */
import { type Device, InputError } from '../../engine/index.ts';
import type { Tuned } from '../../kernels/tuning.ts';
import type { Candidates } from './candidates.ts';
import { provenance } from './provenance.ts';
import { type Budget, inRounds } from './rounds.ts';
import { changeOf, pairedRatio, spread } from './statistics.ts';
import { Work } from './work.ts';

/**
 * Measures all variants of all places that have more than one in the same rounds.
 *
 * @throws InputError if there was no time for all of them: a choice among some would be kept as if it were one among all
 */
export async function choose<Key extends object>(
  device: Device,
  places: readonly Candidates<Key>[],
  budget: Budget,
): Promise<(Key & Tuned)[]> {
  const open = places.filter(({ variants }) => variants.length > 1);
  const entrants = open.flatMap(({ key, variants, task }) =>
    variants.map((variant) => new Work(device, `${JSON.stringify(key)} ${variant}`, task(variant))),
  );
  if (entrants.length === 0) return [];
  const { times } = await inRounds(entrants, budget);
  budget.signal?.throwIfAborted();
  const unmeasured = times.filter(({ length }) => length === 0).length;
  if (unmeasured > 0)
    throw new InputError(
      `--seconds: there was no time for ${unmeasured} of ${entrants.length} variants, so nothing is chosen; give more`,
    );
  const { commit, date } = provenance(device);
  let next = 0;
  return open.map(({ key, variants, sizes }) => {
    const own = variants.map((variant) => ({ variant, times: times[next++] }));
    const milliseconds = Object.fromEntries(own.map((one) => [one.variant, spread(one.times).median]));
    return { ...key, variant: best(own), milliseconds, sizes, date, commit };
  });
}

/** The shipped variant, which comes first, unless another is faster beyond doubt; then the fastest of those. */
export function best(measured: readonly { readonly variant: string; readonly times: readonly number[] }[]): string {
  const [shipped, ...others] = measured;
  const faster = others.filter(({ times }) => changeOf(pairedRatio(times, shipped.times)) === 'faster');
  const median = ({ times }: { readonly times: readonly number[] }) => spread(times).median;
  return [shipped, ...faster].sort((a, b) => median(a) - median(b))[0].variant;
}
