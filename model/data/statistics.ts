import * as v from 'valibot';
import { checked, count, float32, nonNegative32, positive32 } from '../../engine/files/json-schema.ts';
import { ColumnSummary } from './columns.ts';
import type { Episode } from './dataset.ts';
import { type EpisodePart, loadedInOrder } from './parts.ts';

const QUANTILES = [0.01, 0.99];

export const columnNumbers = v.pipe(v.array(float32), v.readonly());

export const columnsSchema = v.pipe(
  v.object({
    count: count(),
    mean: columnNumbers,
    /** The standard deviation of the whole population (divided by `count`). */
    std: v.pipe(v.array(nonNegative32), v.readonly()),
    min: columnNumbers,
    max: columnNumbers,
    /** The 1 % and 99 % quantiles, interpolated as numpy does. */
    q01: columnNumbers,
    q99: columnNumbers,
    /** The dimensions whose quantiles are interpolated away from the one value that lies between them. */
    still: v.optional(v.pipe(v.array(v.boolean()), v.readonly())),
  }),
  v.check(
    ({ count: _, ...lists }) => new Set(Object.values(lists).map(({ length }) => length)).size === 1,
    'lists of the same length',
  ),
  v.check(({ q01, q99 }) => q01.every((value, d) => value <= q99[d]), '"q01" to be nowhere above "q99"'),
);
/** The statistics of each column of a table of numbers. */
export type ColumnStatistics = Readonly<v.InferOutput<typeof columnsSchema>>;

export const statisticsSchema = v.pipe(
  v.object({
    /** Saved by earlier versions only: see `withSharedFloor`. */
    rangeFloor: v.optional(positive32),
    /** Normalised values are clipped to [-bound, bound]. */
    bound: positive32,
    actions: columnsSchema,
    /** null if an episode has no state. */
    states: v.nullable(columnsSchema),
  }),
  v.transform(({ rangeFloor, actions, states, bound }) => ({
    bound,
    actions: withSharedFloor(actions, rangeFloor),
    states: states && withSharedFloor(states, rangeFloor),
  })),
);
/** The statistics of a data set and the settings of normalisation: plain JSON, kept beside the weights. */
export type DatasetStatistics = Readonly<v.InferOutput<typeof statisticsSchema>>;

/** The default bound, five times the usual range, clips no real motion and makes a broken sensor harmless. */
export const NORMALISED_BOUND = 5;

/**
 * Statistics with the ranges that a model was trained with whose ranges were at least `share` of the widest one. It sets the
 * quantiles to these ranges.
 */
function withSharedFloor(columns: ColumnStatistics, share: number | undefined): ColumnStatistics {
  if (share === undefined) return columns;
  const { q01, q99, min, max } = columns;
  const widths = q01.map((low, d) => q99[d] - low);
  const widest = Math.max(...widths) || Math.max(...min.map((low, d) => max[d] - low));
  const floor = widest > 0 ? share * widest : 1;
  const ranges = q01.map((low, d) => {
    if (widths[d] >= floor) return [low, q99[d]];
    const middle = (min[d] + max[d]) / 2;
    return max[d] - min[d] >= floor ? [min[d], max[d]] : [middle - floor / 2, middle + floor / 2];
  });
  return { ...columns, q01: ranges.map(([low]) => low), q99: ranges.map(([, high]) => high) };
}

/**
 * Computes statistics of the actions and states of parts, in memory that does not grow with them; no image is decoded. `actionsOf`
 * replaces the actions of a part, for example by its relative chunks.
 */
export async function measureStatistics(
  parts: readonly EpisodePart[],
  actionsOf = ({ episode, from, to }: EpisodePart): Iterable<Float32Array> => [
    rowsOf(episode.actions, episode, from, to),
  ],
): Promise<DatasetStatistics> {
  if (parts.length === 0) throw new RangeError('statistics need at least one part of an episode');
  const summaryOf = (table: Float32Array, { length }: Episode) => new ColumnSummary(table.length / length);
  let [actions, states]: ColumnSummary[] = [];
  let allHaveStates = true;
  for await (const part of loadedInOrder(parts)) {
    const { episode, from, to } = part;
    actions ??= summaryOf(episode.actions, episode);
    for (const rows of actionsOf(part)) actions.add(rows);
    allHaveStates &&= episode.states !== null;
    if (!allHaveStates) continue;
    states ??= summaryOf(episode.states!, episode);
    states.add(rowsOf(episode.states!, episode, from, to));
  }
  return {
    bound: NORMALISED_BOUND,
    actions: statisticsOf(actions),
    states: allHaveStates ? statisticsOf(states) : null,
  };
}

/** The rows of the control steps from `from` to `to` - 1 of an episode's table. */
export function rowsOf(table: Float32Array, { length }: Episode, from: number, to: number): Float32Array {
  const dimension = table.length / length;
  return table.subarray(from * dimension, to * dimension);
}

/** Computes statistics of the columns of tables [rows, dimension], stacked. */
export function columnStatistics(tables: readonly Float32Array[], dimension: number): ColumnStatistics {
  const summary = new ColumnSummary(dimension);
  for (const table of tables) summary.add(table);
  return statisticsOf(summary);
}

function statisticsOf(summary: ColumnSummary): ColumnStatistics {
  const { quantiles, still, ...rest } = summary.finish(QUANTILES);
  const [q01, q99] = quantiles;
  const interpolated = still.map((own, d) => own && q01[d] < q99[d]);
  return { ...rest, q01, q99, ...(interpolated.includes(true) && { still: interpolated }) };
}

/**
 * If less than 1 % of the values differ from the others, they lie at least 10 standard deviations from the mean on
 * average (their mean square distance times their share is the variance).
 */
const RARE_DEVIATIONS = 10;

/** A range that float32 can tell from a single value. */
const isRange = ([low, high]: readonly number[]) => Math.fround(low) < Math.fround(high);

/** The range of a dimension that maps to [-1, 1], from its own numbers alone, and whether these are one value. */
function rangeOf({ q01, q99, min, max, std, still }: ColumnStatistics, d: number) {
  const middle = (min[d] + max[d]) / 2;
  const around = (half: number) => [middle - half, middle + half];
  const ranges = [...(still?.[d] ? [] : [[q01[d], q99[d]]]), [min[d], max[d]], around(RARE_DEVIATIONS * std[d])];
  const range = ranges.find(isRange);
  return { range: range ?? around((Math.abs(middle) || 1) / 2), constant: range === undefined };
}

/**
 * Maps raw values to about [-1, 1] and back: 2 (x - low) / (high - low) - 1, clipped to [-bound, bound].
 *
 * low and high are q01 and q99 of the same dimension. If these are one value, the minimum and maximum replace them, so that a
 * gripper that rarely closes keeps its range; if these are one value too (statistics of others have no extremes), 10
 * standard deviations around it. A constant dimension has a range as wide as its magnitude, and becomes 0.
 */
export class Normaliser {
  readonly dimension: number;
  readonly low: readonly number[];
  readonly high: readonly number[];
  /** The dimensions whose values are all the same. */
  readonly constant: readonly number[];
  /** The dimensions with an extreme that is clipped. */
  readonly clipped: readonly number[];
  readonly bound: number;

  constructor(columns: ColumnStatistics, { bound = NORMALISED_BOUND } = {}) {
    const { min, max } = columns;
    const ranges = columns.q01.map((_, d) => rangeOf(columns, d));
    this.dimension = ranges.length;
    this.bound = bound;
    this.low = ranges.map(({ range: [low] }) => low);
    this.high = ranges.map(({ range: [, high] }) => high);
    this.constant = ranges.flatMap(({ constant }, d) => (constant ? [d] : []));
    this.clipped = ranges.flatMap(({ range: [low, high] }, d) => {
      const reach = ((high - low) / 2) * bound;
      return Math.max(max[d] - (low + high) / 2, (low + high) / 2 - min[d]) > reach ? [d] : [];
    });
  }

  /** Normalises rows of raw values [..., dimension]. */
  normalise(values: Float32Array): Float32Array {
    const { bound } = this;
    return this.#map(values, (value, low, width) => {
      return Math.min(bound, Math.max(-bound, (2 * (value - low)) / width - 1));
    });
  }

  /** Maps rows of normalised values [..., dimension] back to raw ones. Nothing is clipped. */
  denormalise(values: Float32Array): Float32Array {
    return this.#map(values, (value, low, width) => low + ((value + 1) / 2) * width);
  }

  #map(values: Float32Array, change: (value: number, low: number, width: number) => number): Float32Array {
    const { dimension, low, high } = this;
    if (values.length % dimension !== 0)
      throw new RangeError(`${values.length} values are not rows of ${dimension} dimensions`);
    return values.map((value, i) => change(value, low[i % dimension], high[i % dimension] - low[i % dimension]));
  }
}

export function normalisers(statistics: DatasetStatistics): { actions: Normaliser; states: Normaliser | null } {
  const { actions, states } = statistics;
  return { actions: new Normaliser(actions, statistics), states: states && new Normaliser(states, statistics) };
}

/** Reads statistics from the JSON of the file `source`. @throws InputError if they are none */
export function statisticsFromJson(json: unknown, source: string): DatasetStatistics {
  return checked(statisticsSchema, json, `${source}: not normalisation statistics`);
}
