import * as v from 'valibot';
import { InputError } from '../../engine/files/errors.ts';
import { checked } from '../../engine/files/json-schema.ts';
import type { Dataset } from './dataset.ts';
import {
  type ColumnStatistics,
  columnNumbers,
  columnsSchema,
  type DatasetStatistics,
  NORMALISED_BOUND,
} from './statistics.ts';

// openpi's assets/<robot>/norm_stats.json is { norm_stats: { state, actions } }, each { mean, std, q01, q99 }.

const LISTS = ['mean', 'std', 'q01', 'q99'] as const;
const columns = v.pipe(
  v.looseObject({ q01: columnNumbers, q99: columnNumbers }),
  v.transform((lists) => ({ ...lists, count: 0, min: lists.q01, max: lists.q99 })),
  columnsSchema,
);
const fileSchema = v.object({ norm_stats: v.object({ actions: columns, state: v.nullish(columns) }) });

/** Makes the JSON of openpi's `norm_stats.json`. */
export function toNormStats({ actions, states }: DatasetStatistics): unknown {
  const columns = (own: ColumnStatistics) => Object.fromEntries(LISTS.map((name) => [name, own[name]]));
  return { norm_stats: { ...(states && { state: columns(states) }), actions: columns(actions) } };
}

/**
 * Reads statistics from the JSON of openpi's `norm_stats.json`. It has no extremes and no count: the quantiles replace
 * the extremes, and the count is 0.
 *
 * @throws InputError if a list is missing, holds something else than numbers, or is of another length than the rest
 */
export function fromNormStats(json: unknown, file: string): DatasetStatistics {
  const where = `${file}: not openpi's normalisation statistics with quantiles, as its compute_norm_stats.py writes them`;
  const { actions, state = null } = checked(fileSchema, json, where).norm_stats;
  return { bound: NORMALISED_BOUND, actions, states: state };
}

/** Drops constant dimensions beyond the data set's: openpi may pad statistics with zeros, as it pads actions. */
export function withoutPadding(statistics: DatasetStatistics, dataset: Dataset): DatasetStatistics {
  const cut = (columns: ColumnStatistics, dimension: number): ColumnStatistics => {
    const { mean, std } = columns;
    const moving = mean.findLastIndex((value, d) => value !== 0 || std[d] !== 0);
    const lists = [...LISTS, 'min', 'max'] as const;
    const own = lists.map((name) => [name, columns[name].slice(0, dimension)]);
    return moving === dimension - 1 ? { ...columns, ...Object.fromEntries(own) } : columns;
  };
  const { actions, states } = statistics;
  const { actionDimension, stateDimension } = dataset;
  return { ...statistics, actions: cut(actions, actionDimension), states: states && cut(states, stateDimension) };
}

/** @throws InputError if the statistics of `file` have other dimensions than the data set */
export function checkStatistics({ actions, states }: DatasetStatistics, dataset: Dataset, file: string): void {
  for (const [what, columns, dimension] of [
    ['actions', actions, dataset.actionDimension],
    ['states', states, dataset.stateDimension],
  ] as const) {
    if (!columns || columns.mean.length === dimension) continue;
    const has = `data set "${dataset.name}" has ${dimension}`;
    throw new InputError(
      `${file}: statistics of ${columns.mean.length} dimensions of ${what}, ${has}: of another robot?`,
    );
  }
}
