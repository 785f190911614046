import { InputError } from '../../engine/files/errors.ts';
import type { Dataset } from './dataset.ts';
import { asObject, unexpected } from './json.ts';
import { type ColumnStatistics, type DatasetStatistics, isFloat32, NORMALISED_BOUND } from './statistics.ts';

// openpi's assets/<robot>/norm_stats.json is { norm_stats: { state, actions } }, each { mean, std, q01, q99 }.

const LISTS = ['mean', 'std', 'q01', 'q99'] as const;

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
  const all = asObject(asObject(json, file, 'the file').norm_stats, file, '"norm_stats"');
  const read = (name: string): ColumnStatistics => {
    const own = asObject(all[name], file, `"${name}"`);
    const [mean, std, q01, q99] = LISTS.map((key) => {
      const list = own[key];
      if (list == null && key.startsWith('q')) {
        const again = "compute it again with openpi's compute_norm_stats.py, which adds it";
        throw new InputError(`${file}: "${name}" has no "${key}", which actions are normalised by here: ${again}`);
      }
      const width = (own.mean as unknown[] | undefined)?.length ?? 'some';
      const fits = Array.isArray(list) && list.length === width && list.length > 0;
      if (!fits) throw unexpected(list, file, `"${name}": "${key}"`, `a list of ${width} finite numbers`);
      const wrong = list.findIndex((value) => !isFloat32(value));
      if (wrong >= 0)
        throw unexpected(list[wrong], file, `"${name}": "${key}" in dimension ${wrong}`, 'a number that f32 holds');
      return list as number[];
    });
    const turned = q01.findIndex((value, d) => value > q99[d]);
    if (turned >= 0) throw new InputError(`${file}: "${name}": "q01" is above "q99" in dimension ${turned}`);
    return { count: 0, mean, std, q01, q99, min: q01, max: q99 };
  };
  const states = all.state == null ? null : read('state');
  return { bound: NORMALISED_BOUND, actions: read('actions'), states };
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
