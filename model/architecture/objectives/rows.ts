/** The rows that a head reads, beside those of a flow and of next-token prediction, and counts of their labels. */
import type { Tensor } from '../../../engine/index.ts';
import { reshape } from '../../../kernels/index.ts';
import { blockNamed, blocksBefore, type ModelConfiguration, patchesPerImage } from '../configuration.ts';
import type { Pass } from './objective.ts';
import type { RowsOf } from './settings.ts';

/** Width of the rows, and the group that the head's parameters belong to. */
export function rowWidth(configuration: ModelConfiguration, rows: RowsOf): { width: number; group: string } {
  const { experts, vision } = configuration;
  if ('tower' in rows) {
    const tower = vision?.towers[rows.tower];
    if (!tower) throw new Error(`the model has no vision tower '${rows.tower}'`);
    return { width: tower.width, group: rows.tower };
  }
  const { weights } = blockNamed(configuration, rows.block);
  return { width: experts[weights].width, group: weights };
}

/** Rows of an example that a head reads. */
export function rowCount({ vision, blocks }: ModelConfiguration, rows: RowsOf): number {
  return 'tower' in rows ? vision!.cameras * patchesPerImage(vision!) : blockNamed({ blocks }, rows.block).length;
}

/** The vision tower or the blocks that a head reads, and those of the blocks that it reads after the last layer. */
export function readBlocks(configuration: ModelConfiguration, rows: RowsOf, before = false) {
  if ('tower' in rows) return { reads: [rows.tower], blocks: [] };
  const { depth } = configuration;
  const first = before ? blocksBefore(configuration, blockNamed(configuration, rows.block)) : [];
  const reads = [...first.map(({ name }) => name), rows.block];
  return { reads, blocks: (rows.layer ?? depth) < depth ? [] : reads };
}

/** [batch, rows, width], or for a tower [batch * cameras, patches, width]. No head on a tower acts, so that acting has none. */
export function rowsOfPass(
  { rows: own, tower }: Pick<Pass, 'rows'> & Partial<Pick<Pass, 'tower'>>,
  rows: RowsOf,
  at?: Tensor,
): Tensor {
  return 'tower' in rows ? tower!(rows.tower) : own(rows.block, { layer: rows.layer, at });
}

/** The same rows in another division into samples. */
export function regrouped(rows: Tensor, samples: number): Tensor {
  const [count, each, width] = rows.shape;
  return count === samples ? rows : reshape(rows, [samples, (count * each) / samples, width]);
}

/** By example: how many of its `rows` rows that count have each label. */
export function labelCounts(labels: ArrayLike<number>, valid: ArrayLike<number>, rows: number): Map<number, number>[] {
  return Array.from({ length: labels.length / rows }, (_, example) => {
    const counts = new Map<number, number>();
    for (let row = example * rows; row < (example + 1) * rows; row++)
      if (valid[row]) counts.set(labels[row], (counts.get(labels[row]) ?? 0) + 1);
    return counts;
  });
}
