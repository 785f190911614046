/** Results of `insula tokenize` as lines for people. */
import { formatPercent } from '../../model/report/markup.ts';
import { aligned } from '../measure/table.ts';
import type { ReportRow } from './report.ts';

/** Width of the longest bar in characters. */
const BAR = 24;
/** The most dimensions that are shown; --json has all. */
const DIMENSIONS = 50;

export interface ReportedDimension {
  readonly name: string;
  /** The value in the units of the data that is 1 when normalised. */
  readonly halfRange: number;
}

export const NOTE =
  'error, largest: root mean square and largest error of normalised values (1 is half the usual range); ratio: tokens of the first row, divided by those of this row';

/** Head and rows: the length and the error of each tokenizer. */
export function summaryTable(rows: readonly ReportRow[]): string[][] {
  const head = ['held-out chunks', 'tokens/chunk', 'least', 'most', 'tokens/s', 'ratio', 'zeros', 'clamped'];
  const body = rows.map(({ name, tokensPerChunk, tokensPerSecond, compression, zeroShare, clampedShare, ...row }) => [
    name,
    tokensPerChunk.mean.toFixed(1),
    `${tokensPerChunk.least}`,
    `${tokensPerChunk.most}`,
    tokensPerSecond.toFixed(1),
    compression.toFixed(2),
    zeroShare === null ? '' : formatPercent(zeroShare),
    clampedShare === null ? '' : formatPercent(clampedShare, 2),
    row.error.rootMeanSquare.toFixed(5),
    row.error.largest.toFixed(5),
    `${row.use.distinct}/${row.vocabularySize}`,
    row.use.entropy.toFixed(2),
  ]);
  return [[...head, 'error', 'largest', 'ids used', 'bits/token'], ...body];
}

/** Head and rows: the root mean square error of each dimension. */
export function errorTable(rows: readonly ReportRow[], dimensions: readonly ReportedDimension[]): string[][] {
  const body = dimensions.map(({ name, halfRange }, d) => [
    name,
    halfRange.toPrecision(4),
    ...rows.map(({ error }) => error.perDimension[d].rootMeanSquare.toFixed(5)),
  ]);
  return [['error by dimension', '1 is', ...rows.map(({ name }) => name)], ...body];
}

export function reportLines(rows: readonly ReportRow[], dimensions: readonly ReportedDimension[]): string[] {
  const more = dimensions.length - DIMENSIONS;
  return [
    ...aligned(summaryTable(rows), 1),
    `(${NOTE})`,
    '',
    ...aligned(errorTable(rows, dimensions.slice(0, DIMENSIONS)), 1),
    ...(more > 0 ? [`(${more} more with --json)`] : []),
    '',
    ...rows.flatMap(histogramLines),
  ];
}

/** The most frequent ids with their meanings, and the number of ids that share the rest. */
function histogramLines({ name, use }: ReportRow): string[] {
  const widest = use.frequent[0].share;
  const rows = use.frequent.map(({ id, share, spells }) => {
    const bar = '#'.repeat(Math.max(1, Math.round((BAR * share) / widest))).padEnd(BAR);
    return `  ${String(id).padStart(5)}  ${(100 * share).toFixed(1).padStart(5)} %  ${bar}  ${cut(spells)}`;
  });
  const rest = use.distinct - use.frequent.length;
  const others = 1 - use.frequent.reduce((sum, { share }) => sum + share, 0);
  const more = rest > 0 ? `; ${rest} others make ${formatPercent(others)}` : '';
  return [`${name}: the most frequent ids${more}`, ...rows];
}

const cut = (text: string) => (text.length > 40 ? `${text.slice(0, 40)}...` : text);
