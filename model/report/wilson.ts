/** Two-sided 95 % quantile of the standard normal distribution. */
const Z = 1.959963984540054;

/**
 * The 95 % score interval of a proportion (Wilson, "Probable inference, the law of succession, and statistical
 * inference", 1927): centre (p + z^2 / 2n) / (1 + z^2 / n), half width z / (1 + z^2 / n) * sqrt(p (1 - p) / n + z^2 / 4n^2).
 *
 * @returns proportions in [0, 1]
 * @throws RangeError if `trials` is not positive or `successes` is not between 0 and `trials`
 */
export function wilsonInterval(successes: number, trials: number): { low: number; high: number } {
  if (!(trials > 0 && successes >= 0 && successes <= trials))
    throw new RangeError(`wilsonInterval: ${successes} successes of ${trials} trials`);
  const share = successes / trials;
  const scale = 1 + (Z * Z) / trials;
  const centre = (share + (Z * Z) / (2 * trials)) / scale;
  const half = (Z / scale) * Math.sqrt((share * (1 - share)) / trials + (Z * Z) / (4 * trials * trials));
  // Rounding must not leave a bound outside the range of proportions.
  return { low: Math.max(0, centre - half), high: Math.min(1, centre + half) };
}
