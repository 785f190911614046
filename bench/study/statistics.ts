/** Intervals over seeds, and the rule that turns one into a verdict. */

/** The distribution function of Student's t with whole degrees of freedom (Abramowitz and Stegun, 26.7.3 and 26.7.4). */
function studentBelow(t: number, freedom: number): number {
  const angle = Math.atan(Math.abs(t) / Math.sqrt(freedom));
  const [sine, square] = [Math.sin(angle), Math.cos(angle) ** 2];
  const isOdd = freedom % 2 === 1;
  let term = isOdd ? Math.cos(angle) : 1;
  let sum = 0;
  for (let k = isOdd ? 3 : 2; k <= freedom; k += 2) {
    sum += term;
    term *= (square * (k - 1)) / k;
  }
  const within = isOdd ? (2 / Math.PI) * (angle + sine * sum) : sine * sum;
  return 0.5 + (Math.sign(t) * within) / 2;
}

/** The two-sided 95 % quantile of Student's t. */
export function studentQuantile(freedom: number): number {
  let [low, high] = [0, 20];
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if (studentBelow(middle, freedom) < 0.975) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

export interface Interval {
  readonly mean: number;
  readonly low: number;
  readonly high: number;
}

export const meanOf = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length;

/** The mean with its 95 % interval, from values that are independent; the bounds are infinite for a single value. */
export function meanInterval(values: readonly number[]): Interval {
  const { length } = values;
  const mean = meanOf(values);
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  const half = length > 1 ? studentQuantile(length - 1) * Math.sqrt(squares / (length - 1) / length) : Infinity;
  return { mean, low: mean - half, high: mean + half };
}

/** The interval that covers two about the same mean. */
export const widened = (own: Interval, other: Interval): Interval => ({
  mean: own.mean,
  low: Math.min(own.low, other.low),
  high: Math.max(own.high, other.high),
});

export const verdicts = {
  reproduced: 'reproduced',
  small: 'reproduced, with a difference below the margin',
  opposite: 'opposite',
  opposed: 'opposite, with a difference below the margin',
  unlike: 'not reproduced: they differ by more than the margin',
  none: 'not reproduced: no difference as large as the margin',
  undecided: 'not decided by these runs',
  extreme: 'not testable at this scale',
  few: 'no verdict before three seeds',
  unrun: 'not run yet',
} as const;
export type Verdict = keyof typeof verdicts;

/** The seeds that a verdict takes at least. */
export const LEAST_SEEDS = 3;

/**
 * A claim of a difference, 'higher' or 'lower', is reproduced if the interval lies on its side of 0, and opposite if it lies on the other:
 * with a small difference if it also lies within the margin. An interval around 0 within the margin leaves no such difference. A claim that
 * two are 'alike' is reproduced if the interval lies within the margin; beyond it they are unlike.
 */
export function verdictOf(
  { low, high }: Interval,
  { direction, margin }: { readonly direction: 'higher' | 'lower' | 'alike'; readonly margin: number },
): Verdict {
  const within = -margin < low && high < margin;
  if (direction === 'alike') {
    if (within) return 'reproduced';
    return low > margin || high < -margin ? 'unlike' : 'undecided';
  }
  const [least, most] = direction === 'higher' ? [low, high] : [-high, -low];
  if (least > 0) return within ? 'small' : 'reproduced';
  if (most < 0) return within ? 'opposed' : 'opposite';
  return within ? 'none' : 'undecided';
}

/** The verdicts of parts, in a tally. */
const brief: Record<Verdict, string> = {
  reproduced: 'reproduced',
  small: 'of them below the margin',
  opposite: 'opposite',
  opposed: 'opposite, below the margin',
  unlike: 'not alike',
  none: 'without a difference',
  undecided: 'not decided',
  extreme: 'not testable',
  few: 'without its seeds',
  unrun: 'not run',
};

/** The verdict of a claim from those of its parts, in words: theirs if they agree, or else how many of them say what. */
export function wholeVerdict(parts: readonly Verdict[]): string {
  if (parts.length === 0) return 'not testable here';
  const are = (...own: readonly Verdict[]) => parts.every((one) => own.includes(one));
  if (are(parts[0])) return verdicts[parts[0]];
  if (are('undecided', 'extreme')) return verdicts.undecided;
  const others = (Object.keys(brief) as Verdict[]).flatMap((own) => {
    const count = parts.filter((one) => one === own).length;
    return own === 'reproduced' || count === 0 ? [] : [`${count} ${brief[own]}`];
  });
  const reproduced = parts.filter((one) => one === 'reproduced' || one === 'small').length;
  return `${reproduced || 'none'} of ${parts.length} parts reproduced; ${others.join(', ')}`;
}
