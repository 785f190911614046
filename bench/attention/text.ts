/** Results of `insula bench attention` as a table for people, as CSV, and beside an earlier run. */
import { InputError } from '../../engine/index.ts';
import type { Spread } from '../measure/measure.ts';
import { provenanceLine } from '../measure/provenance.ts';
import { comparisonOf } from '../measure/saved-run.ts';
import { aligned, changeCells, csvOf, digits, quartiles } from '../measure/table.ts';
import { type BenchResult, keyText, type ResultRow, type SavedAttentionRun, type Timer } from './run.ts';

/** The numbers of a row, measured in `time`, by the names of their columns. */
const numbers: Readonly<Record<string, (row: ResultRow, time: Spread) => string>> = {
  ms: (_, { median }) => digits(median),
  quartiles: (_, time) => quartiles(time),
  'GFLOP/s': ({ gigaflops }) => digits(gigaflops),
  'x dense': ({ toDense }) => digits(toDense.time),
  'x live work': ({ toDense }) => digits(toDense.work),
  '% matmul': ({ percentOfMatmul }) => digits(percentOfMatmul),
  '% roof': ({ percentOfRoof }) => digits(percentOfRoof),
  'x unfused': ({ unfusedToThis }) => (unfusedToThis === null ? '-' : digits(unfusedToThis)),
  MB: ({ memoryBytes }) => digits(memoryBytes / 1e6),
  workgroups: ({ workgroups }) => String(workgroups),
};
export const numberColumns = Object.keys(numbers);
export const numberCells = (row: ResultRow, timer: Timer) =>
  Object.values(numbers).map((cell) => cell(row, timeOf(row, timer)));

export function timeOf({ wall, gpu }: Pick<ResultRow, 'wall' | 'gpu'>, timer: Timer): Spread {
  return timer === 'gpu' ? gpu! : wall;
}

export function byShape({ rows }: BenchResult): { title: string; rows: ResultRow[] }[] {
  return [...new Set(rows.map(({ shape }) => shape))].map((shape) => {
    const own = rows.filter((row) => row.shape === shape);
    return { title: shape.includes(own[0].sizes) ? shape : `${shape} (${own[0].sizes})`, rows: own };
  });
}

export function headLines(result: BenchResult): string[] {
  const { timer, rows, matmuls, roof, defaults } = result;
  return [
    provenanceLine(result),
    `times: ${timer === 'gpu' ? 'GPU timestamps, summed over the dispatches of a repeat' : 'wall time from submission to end'}; medians of ${rows[0].wall.rounds} rounds that interleave all rows`,
    ...defaults,
    ...[...matmuls, roof].map((anchor) => {
      const time = timeOf(anchor, timer);
      return `${anchor.name}: ${digits(anchor.gigaflops)} GFLOP/s, ${digits(time.median)} ms (${quartiles(time)})`;
    }),
  ];
}

export const legend = [
  'ms: time of one repeat. GFLOP/s: rate of live work, as the tile lists of the plan hold it. x dense, x live work: time and',
  'live work, divided by those of the same row with a dense mask. % matmul: share of the rate of the matrix product above',
  'that has about the FLOPs of dense attention. % roof: share of the rate of fused multiply-adds in registers. x unfused: time',
  'of matmul + mask + softmax + matmul, divided by the time of this row. MB: memory of operands, results and intermediates.',
  'workgroups: count in one repeat.',
];

export function benchLines(result: BenchResult): string[] {
  const lines = [...headLines(result)];
  const header = ['mask', 'variant', 'direction', 'storage', ...numberColumns];
  for (const { title, rows } of byShape(result)) {
    const cells = rows.map((row) => [
      ...[row.mask, row.variant, row.direction, row.storage],
      ...numberCells(row, result.timer),
    ]);
    lines.push('', title, ...aligned([header, ...cells]));
  }
  const profiled = result.rows.filter(({ dispatches }) => dispatches.length > 0);
  if (result.options.profile && profiled.length > 0) {
    lines.push('', 'single dispatches: ms by GPU timestamps, workgroups');
    for (const row of profiled)
      lines.push(
        `  ${row.shape}, ${row.mask}, ${row.variant}, ${row.direction}, ${row.storage}: ${row.dispatches
          .map(({ label, milliseconds, workgroups }) => `${label} ${digits(milliseconds)} (${workgroups})`)
          .join(', ')}`,
      );
  }
  return [...lines, '', ...legend, ...result.leftOut.map((line) => `left out: ${line}`)];
}

export function csv({ rows }: BenchResult): string {
  const none = { median: null, lowerQuartile: null, upperQuartile: null, rounds: null };
  return csvOf(rows.map(({ dispatches: _, ...row }) => ({ ...row, gpu: row.gpu ?? none })));
}

/** The medians of rows as ratios to those of the earlier run, alone and beside the ratio of the matrix product. */
export function comparisonLines(before: SavedAttentionRun, after: BenchResult): string[] {
  const { timer } = after;
  if (before.timer !== timer)
    throw new InputError(
      `--compare: the times of the earlier run are by ${before.timer}, those of this run by ${timer}; give --timer ${before.timer}`,
    );
  const productTime = ({ matmuls }: SavedAttentionRun, wanted: string) => {
    const product = matmuls.find(({ name }) => name === wanted);
    return product && timeOf(product, timer).median;
  };
  return comparisonOf(before, after, {
    key: keyText,
    columns: [
      ...['row', 'variant', 'direction', 'storage', 'ms before', 'ms now', 'now / before'],
      ...['matmul', 'less matmul', 'quartiles apart'],
    ],
    left: 4,
    cells: (earlier, row) => {
      const [beforeTime, time] = [timeOf(earlier, timer), timeOf(row, timer)];
      const [was, now, ratio, apart] = changeCells(beforeTime, time);
      const productBefore = productTime(before, row.matmul);
      const product = productBefore && productTime(after, row.matmul)! / productBefore;
      const relative = product ? [digits(product), digits(time.median / beforeTime.median / product)] : ['-', '-'];
      const name = [`${row.shape}, ${row.mask}`, row.variant, row.direction, row.storage];
      return [[...name, was, now, ratio, ...relative, apart]];
    },
    legend:
      'now / before: below 1 is faster. matmul: the same ratio for the matrix product. less matmul: the first ratio divided by the second.',
  });
}
