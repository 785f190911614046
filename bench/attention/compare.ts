/** The comparison of a run with an earlier one. */
import { InputError } from '../../engine/index.ts';
import { comparisonOf } from '../measure/saved-run.ts';
import { changeCells, digits } from '../measure/table.ts';
import { type BenchResult, keyText, type SavedAttentionRun } from './run.ts';
import { timeOf } from './text.ts';

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
