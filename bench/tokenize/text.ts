/** Results of `insula tokenize` as lines for people. */
import type { ReportRow } from './report.ts';

/** Columns under each other, the first to the left. */
function table(rows: readonly (readonly string[])[]): string[] {
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  return rows.map((row) =>
    row
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[0]) : cell.padStart(widths[column])))
      .join('  ')
      .trimEnd(),
  );
}

/** Characters of the longest bar. */
const BAR = 24;
const percent = (share: number) => `${(100 * share).toFixed(0)} %`;
/** Dimensions shown at most; --json has all. */
const DIMENSIONS = 50;

export interface ReportedDimension {
  readonly name: string;
  /** What 1 is, in the units of the data. */
  readonly halfRange: number;
}

export const NOTE =
  'error: root mean square, and largest, of normalised values, of which 1 is half the usual range; ratio: tokens of the first row by tokens of this one';

/** Head and rows: what each tokenizer costs and loses. */
export function summaryTable(rows: readonly ReportRow[]): string[][] {
  const head = ['held-out chunks', 'tokens/chunk', 'least', 'most', 'tokens/s', 'ratio', 'zeros', 'clamped'];
  const body = rows.map(({ name, tokensPerChunk, tokensPerSecond, compression, zeroShare, clampedShare, ...row }) => [
    name,
    tokensPerChunk.mean.toFixed(1),
    `${tokensPerChunk.least}`,
    `${tokensPerChunk.most}`,
    tokensPerSecond.toFixed(1),
    compression.toFixed(2),
    zeroShare === null ? '' : percent(zeroShare),
    clampedShare === null ? '' : `${(100 * clampedShare).toFixed(2)} %`,
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
    ...table(summaryTable(rows)),
    `(${NOTE})`,
    '',
    ...table(errorTable(rows, dimensions.slice(0, DIMENSIONS))),
    ...(more > 0 ? [`(${more} more with --json)`] : []),
    '',
    ...rows.flatMap(histogramLines),
  ];
}

/** The most frequent ids with what they stand for, and how many ids share the rest. */
function histogramLines({ name, use }: ReportRow): string[] {
  const widest = use.frequent[0].share;
  const rows = use.frequent.map(({ id, share, spells }) => {
    const bar = '#'.repeat(Math.max(1, Math.round((BAR * share) / widest))).padEnd(BAR);
    return `  ${String(id).padStart(5)}  ${(100 * share).toFixed(1).padStart(5)} %  ${bar}  ${cut(spells)}`;
  });
  const rest = use.distinct - use.frequent.length;
  const others = 1 - use.frequent.reduce((sum, { share }) => sum + share, 0);
  const more = rest > 0 ? `; ${rest} others make ${percent(others)}` : '';
  return [`${name}: the most frequent ids${more}`, ...rows];
}

const cut = (text: string) => (text.length > 40 ? `${text.slice(0, 40)}...` : text);
