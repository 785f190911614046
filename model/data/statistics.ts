import * as v from 'valibot';
import { checked, count } from '../../engine/files/json-schema.ts';
import { ColumnCounter } from './columns.ts';
import type { Episode } from './dataset.ts';
import { type EpisodePart, loadedInOrder } from './parts.ts';

const QUANTILES = [0.01, 0.99];

/** Whether a JSON value is a number that stays finite in float32. */
export const isFloat32 = (value: unknown): value is number =>
  typeof value === 'number' && Number.isFinite(Math.fround(value));

const numbers = v.pipe(v.array(v.custom<number>(isFloat32, 'a number that f32 holds')), v.readonly());
const positive = v.pipe(v.number(), v.gtValue(0));
const columnsSchema = v.pipe(
  v.object({
    count: count(),
    mean: numbers,
    /** The standard deviation of the whole population (divided by `count`). */
    std: numbers,
    min: numbers,
    max: numbers,
    /** The 1 % and 99 % quantiles. */
    q01: numbers,
    q99: numbers,
  }),
  v.check(
    ({ count: _, ...lists }) => new Set(Object.values(lists).map(({ length }) => length)).size === 1,
    'lists of the same length',
  ),
);
/** The statistics of each column of a table of numbers. */
export type ColumnStatistics = Readonly<v.InferOutput<typeof columnsSchema>>;

export const statisticsSchema = v.object({
  /** The smallest range to divide by, as a fraction of the widest range in the same table. */
  rangeFloor: positive,
  /** Normalised values are clipped to [-bound, bound]. */
  bound: positive,
  actions: columnsSchema,
  /** null if an episode has no state. */
  states: v.nullable(columnsSchema),
});
/** The statistics of a data set and the settings of normalisation: plain JSON, kept beside the weights. */
export type DatasetStatistics = Readonly<v.InferOutput<typeof statisticsSchema>>;

/** By default a dimension that moves less than 1 % of the widest one counts as constant. */
export const RANGE_FLOOR = 0.01;
/** The default bound, five times the usual range, clips no real motion and makes a broken sensor harmless. */
export const NORMALISED_BOUND = 5;

/**
 * Computes exact statistics of the actions and states of parts, in memory that does not grow with them: an episode on
 * disk is loaded twice, and no image is decoded. `actionsOf` replaces the actions of a part, for example by its relative
 * chunks.
 */
export async function measureStatistics(
  parts: readonly EpisodePart[],
  actionsOf = ({ episode, from, to }: EpisodePart): Iterable<Float32Array> => [
    rowsOf(episode.actions, episode, from, to),
  ],
): Promise<DatasetStatistics> {
  if (parts.length === 0) throw new RangeError('statistics need at least one part of an episode');
  let actions: ColumnCounter | null = null;
  let states: ColumnCounter | null = null;
  for (const pass of ['add', 'addAgain'] as const) {
    let first = pass === 'add';
    for await (const part of loadedInOrder(parts)) {
      const { episode, from, to } = part;
      for (const rows of actionsOf(part)) {
        actions ??= new ColumnCounter(episode.actions.length / episode.length, QUANTILES);
        actions[pass](rows);
      }
      if (first && episode.states) states = new ColumnCounter(episode.states.length / episode.length, QUANTILES);
      first = false;
      if (!episode.states) states = null;
      else states?.[pass](rowsOf(episode.states, episode, from, to));
    }
  }
  return {
    rangeFloor: RANGE_FLOOR,
    bound: NORMALISED_BOUND,
    actions: statisticsOf(actions!),
    states: states && statisticsOf(states),
  };
}

function rowsOf(table: Float32Array, { length }: Episode, from: number, to: number): Float32Array {
  const dimension = table.length / length;
  return table.subarray(from * dimension, to * dimension);
}

/** Computes exact statistics of the columns of tables [rows, dimension], stacked. */
export function columnStatistics(tables: readonly Float32Array[], dimension: number): ColumnStatistics {
  const counter = new ColumnCounter(dimension, QUANTILES);
  for (const table of tables) counter.add(table);
  for (const table of tables) counter.addAgain(table);
  return statisticsOf(counter);
}

function statisticsOf(counter: ColumnCounter): ColumnStatistics {
  const { quantiles, ...rest } = counter.finish();
  return { ...rest, q01: quantiles[0], q99: quantiles[1] };
}

/**
 * Maps raw values to about [-1, 1] and back: 2 (x - low) / (high - low) - 1, clipped to [-bound, bound].
 *
 * low and high are q01 and q99. If they lie closer than the floor (rangeFloor times the widest q99 - q01 of the table),
 * the minimum and maximum replace them, so that a gripper that closes in few steps keeps its range. If these lie closer
 * than the floor too, the range is widened around its middle to the floor, so that a constant dimension becomes nearly
 * 0 and its noise stays small.
 */
export class Normaliser {
  readonly dimension: number;
  readonly low: readonly number[];
  readonly high: readonly number[];
  /** The dimensions with a range that was widened to the floor. */
  readonly widened: readonly number[];
  readonly bound: number;

  constructor(columns: ColumnStatistics, { rangeFloor = RANGE_FLOOR, bound = NORMALISED_BOUND } = {}) {
    const { q01, q99, min, max } = columns;
    this.dimension = q01.length;
    this.bound = bound;
    const low = [...q01];
    const high = [...q99];
    const widened: number[] = [];
    const widest =
      Math.max(...q01.map((value, d) => q99[d] - value)) || Math.max(...min.map((value, d) => max[d] - value));
    const floor = widest > 0 ? rangeFloor * widest : 1; // every dimension is constant, so any range will do
    for (let d = 0; d < this.dimension; d++) {
      if (high[d] - low[d] >= floor) continue;
      [low[d], high[d]] = [min[d], max[d]];
      if (high[d] - low[d] >= floor) continue;
      const middle = (low[d] + high[d]) / 2;
      [low[d], high[d]] = [middle - floor / 2, middle + floor / 2];
      widened.push(d);
    }
    this.low = low;
    this.high = high;
    this.widened = widened;
  }

  /** Normalises rows of raw values [..., dimension]. */
  normalise(values: Float32Array): Float32Array {
    this.#check(values);
    const { low, high, bound, dimension } = this;
    return values.map((value, i) => {
      const d = i % dimension;
      const normal = (2 * (value - low[d])) / (high[d] - low[d]) - 1;
      return Math.min(bound, Math.max(-bound, normal));
    });
  }

  /** Maps rows of normalised values [..., dimension] back to raw ones. Nothing is clipped. */
  denormalise(values: Float32Array): Float32Array {
    this.#check(values);
    const { low, high, dimension } = this;
    return values.map((value, i) => {
      const d = i % dimension;
      return low[d] + ((value + 1) / 2) * (high[d] - low[d]);
    });
  }

  #check(values: Float32Array): void {
    if (values.length % this.dimension !== 0) {
      throw new RangeError(`${values.length} values are not rows of ${this.dimension} dimensions`);
    }
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
