/** Statistics of samples that assume no distribution: quartiles, and intervals of medians and of ratios. */

/** Milliseconds of one repeat, over the rounds. */
export type Spread = ReturnType<typeof spread>;

/** Median and quartiles, interpolated linearly between two values. */
export function spread(values: readonly number[]) {
  const sorted = ascending(values);
  const at = (share: number) => {
    const place = share * (sorted.length - 1);
    const low = Math.floor(place);
    return sorted[low] + (place - low) * (sorted[Math.ceil(place)] - sorted[low]);
  };
  return { median: at(0.5), lowerQuartile: at(0.25), upperQuartile: at(0.75), rounds: sorted.length };
}

const ascending = (values: readonly number[]) => [...values].sort((a, b) => a - b);

/** The probability that an interval does not hold what it is for. */
export const DOUBT = 0.01;

/**
 * An interval that holds the median of what the values are drawn from, independently, but for the probability `doubt`: from the k-th
 * smallest to the k-th largest, with the largest k for which a binomial distribution of n and 1/2 is below k with a probability of at
 * most doubt / 2 (the sign test's interval; Conover, Practical Nonparametric Statistics, section 3.2). Null for too few values.
 */
export function medianInterval(values: readonly number[], doubt = DOUBT): readonly [low: number, high: number] | null {
  const sorted = ascending(values);
  const n = sorted.length;
  let k = 0;
  let below = 0;
  for (let term = 2 ** -n; k < n / 2 && 2 * (below + term) <= doubt; k++) {
    below += term;
    term *= (n - k) / (k + 1);
  }
  return k === 0 ? null : [sorted[k - 1], sorted[n - k]];
}

/** A ratio of times, and the interval that holds it. */
export interface Ratio {
  readonly ratio: number;
  readonly low: number;
  readonly high: number;
}

/** The median ratio of times that were measured in the same rounds; null for too few rounds. */
export function pairedRatio(times: readonly number[], others: readonly number[], doubt = DOUBT): Ratio | null {
  return medianRatio(
    times.slice(0, others.length).map((time, round) => time / others[round]),
    doubt,
  );
}

/** The median of ratios; null for too few of them. */
export function medianRatio(ratios: readonly number[], doubt = DOUBT): Ratio | null {
  const interval = medianInterval(ratios, doubt);
  return interval && { ratio: spread(ratios).median, low: interval[0], high: interval[1] };
}

/**
 * The ratio of times from two runs; null for too few rounds. `drifts` are the ratios, now to before, of known work that each run
 * measured beside its rows: how the machine changed. Nobody knows how much of that a row feels: the interval covers everything from
 * nothing to as much as the known work that changed most.
 */
export function ratioOfRuns(
  now: readonly number[],
  before: readonly number[],
  drifts: readonly number[],
  doubt = DOUBT,
): Ratio | null {
  const [own, earlier] = [medianInterval(now, doubt / 2), medianInterval(before, doubt / 2)];
  if (!own || !earlier) return null;
  const factors = [1, ...drifts.map((drift) => 1 / drift)];
  const raw = spread(now).median / spread(before).median;
  return {
    ratio: raw / (drifts.length > 0 ? spread(drifts).median : 1),
    low: (own[0] / earlier[1]) * Math.min(...factors),
    high: (own[1] / earlier[0]) * Math.max(...factors),
  };
}

/** Differences below this share are no change: two processes of the same program differ by as much. */
export const SAME = 0.04;

/** Whether an interval of time ratios lies beyond what counts as the same, or within it. */
export function changeOf(ratio: Ratio | null): 'slower' | 'faster' | 'same' | 'undecided' {
  if (!ratio) return 'undecided';
  if (ratio.low > 1 + SAME) return 'slower';
  if (ratio.high < 1 / (1 + SAME)) return 'faster';
  return ratio.low > 1 / (1 + SAME) && ratio.high < 1 + SAME ? 'same' : 'undecided';
}
