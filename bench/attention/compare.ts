/** The comparison of a run with an earlier one. */
import { InputError } from '../../engine/index.ts';
import { comparedWith } from '../measure/provenance.ts';
import { aligned, changeCells, digits } from '../measure/table.ts';
import { type BenchResult, keyText, type SavedAttentionRun } from './run.ts';
import { timeOf } from './text.ts';

/** The medians of the rows that both runs have, as ratios, and the number of rows that only one of them has. */
export function comparisonLines(before: SavedAttentionRun, after: BenchResult): string[] {
  if (before.timer !== after.timer)
    throw new InputError(
      `--compare: the times of the earlier run are by ${before.timer}, those of this run by ${after.timer}; give --timer ${before.timer}`,
    );
  const anchorsBefore = new Map(before.matmuls.map((anchor) => [anchor.name, anchor]));
  const rowsBefore = new Map(before.rows.map((row) => [keyText(row), row]));
  const rows = after.rows.flatMap((row) => {
    const earlier = rowsBefore.get(keyText(row));
    if (!earlier) return [];
    rowsBefore.delete(keyText(row));
    const [beforeTime, time] = [timeOf(earlier, after.timer), timeOf(row, after.timer)];
    const [was, now, ratio, apart] = changeCells(beforeTime, time);
    const anchor = after.matmuls.find(({ name }) => name === row.matmul)!;
    const anchorBefore = anchorsBefore.get(row.matmul);
    const anchorRatio = anchorBefore && timeOf(anchor, after.timer).median / timeOf(anchorBefore, after.timer).median;
    return [
      [
        `${row.shape}, ${row.mask}`,
        row.variant,
        row.direction,
        row.storage,
        ...[was, now, ratio],
        anchorRatio ? digits(anchorRatio) : '-',
        anchorRatio ? digits(time.median / beforeTime.median / anchorRatio) : '-',
        apart,
      ],
    ];
  });
  const header = [
    'row',
    'variant',
    'direction',
    'storage',
    'ms before',
    'ms now',
    'now / before',
    'matmul',
    'less matmul',
    'quartiles apart',
  ];
  const only = after.rows.length - rows.length;
  return [
    `${comparedWith(before)}:`,
    ...(rows.length > 0 ? aligned([header, ...rows]) : []),
    'now / before: below 1 is faster. matmul: the same ratio of the matrix product; less matmul: the first divided by the second.',
    ...(only > 0 ? [`${only} rows of this run are not in the earlier one`] : []),
    ...(rowsBefore.size > 0 ? [`${rowsBefore.size} rows of the earlier run were not measured`] : []),
  ];
}
