/** The report of `insula verify` as lines for people. */
import { provenanceLine } from '../measure/provenance.ts';
import { aligned } from '../measure/table.ts';
import { type Comparison, roundingOf, ulpBins } from './compare.ts';
import type { VerifyResult } from './run.ts';

/** Departing results that are written out. */
const MOST_LINES = 20;

function errorText({ error, tolerance, stored }: Comparison): string {
  const [found, allowed] = [error, tolerance].map((own) => (own / roundingOf(stored)).toPrecision(3));
  return `${found} of ${allowed} ${stored}`;
}

/** The bins of a histogram that hold anything: `0.5:812 1:90 more:1`. */
function histogramText(histogram: readonly number[]): string {
  const bins = histogram.map((count, i) => ({ count, end: ulpBins[i] ?? 'more' }));
  return bins.flatMap(({ count, end }) => (count > 0 ? [`${end}:${count}`] : [])).join(' ');
}

/** One row for each op, variant and storage. */
function rowOf(own: readonly Comparison[]): string[] {
  const [{ op, variant, storage }] = own;
  const sum = ulpBins.concat(0).map((_, bin) => own.reduce((total, { histogram }) => total + histogram[bin], 0));
  const nearest = own.reduce((a, b) => (b.error * (a.tolerance || 1) > a.error * (b.tolerance || 1) ? b : a));
  const worst = own.reduce((most, { worstUlp }) => Math.max(most, worstUlp), 0);
  return [
    ...[op, variant, storage, own.every(({ passed }) => passed) ? 'agrees' : 'DEPARTS', String(own.length)],
    ...[errorText(nearest), worst.toPrecision(3), histogramText(sum)],
  ];
}

const departure = ({ op, variant, storage, name, tensor, departs, error, tolerance }: Comparison) =>
  `  ${op}, ${variant}, ${storage}: ${name}: ${tensor}, element ${departs?.index}: expected ${departs?.expected}, got ${departs?.actual}; error ${error.toExponential(2)} of the norm, allowed ${tolerance.toExponential(2)}`;

export function verifyLines(result: VerifyResult): string[] {
  const { results, failures, limits, adapter, omitted, seconds, subgroupSizes, platform, floor } = result;
  const groups = new Map<string, Comparison[]>();
  for (const own of results) {
    const key = [own.op, own.variant, own.storage].join('|');
    groups.set(key, [...(groups.get(key) ?? []), own]);
  }
  const departing = results.filter(({ passed }) => !passed);
  const left = departing.length - MOST_LINES;
  const wrong = departing.length + failures.length;
  const header = ['op', 'variant', 'storage', '', 'results', 'error', 'worst ULP', 'elements by ULP'];
  return [
    provenanceLine(result),
    `${platform}${floor ? ', opened at the floor' : ''}; subgroups of ${subgroupSizes.join(' to ')}; features: ${adapter.features.join(', ') || 'none'}`,
    `limits: ${Object.entries(limits)
      .map(([name, value]) => `${name} ${value}`)
      .join(', ')}`,
    ...(results.length > 0 ? ['', ...aligned([header, ...[...groups.values()].map(rowOf)], 8)] : []),
    '',
    'error: |actual - expected| / |expected| in the L2 norm, float64 being expected, of the result nearest to its tolerance, and the tolerance, both in',
    'roundings of a storage (f32: 2^-24, f16: 2^-11, bf16: 2^-8); 0 asks for equal numbers. ULP: units in the last place of an element, up to the given',
    'number in each bin; 0.5 is correctly rounded. Sums that cancel have many, so that the error decides.',
    ...(departing.length > 0 ? ['', 'departs:', ...departing.slice(0, MOST_LINES).map(departure)] : []),
    ...(left > 0 ? [`  and ${left} more; --json has all`] : []),
    ...(failures.length > 0
      ? ['', 'could not run:', ...failures.map(({ name, variant, reason }) => `  ${name}, ${variant}: ${reason}`)]
      : []),
    '',
    ...(omitted > 0
      ? [
          `${omitted} checks of further variants, which a software adapter compiles for minutes, are left out; --all runs them`,
        ]
      : []),
    `${wrong === 0 ? `all ${results.length} results agree with float64` : `${wrong} of ${results.length + failures.length} results depart`}; ${seconds.toFixed(0)} seconds`,
  ];
}
