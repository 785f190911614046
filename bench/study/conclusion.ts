/** The verdicts of claims, computed from the raw numbers of finished runs. */
import { wilsonInterval } from '../../model/report/wilson.ts';
import { spread } from '../measure/statistics.ts';
import { armsOf, type Claim, seedsOf, type Test } from './claims/claim.ts';
import { CHANGED, type Measure, measures } from './measures.ts';
import { type SavedRun, seedOf, type TrainedRun } from './saved.ts';
import {
  type Interval,
  LEAST_SEEDS,
  meanInterval,
  meanOf,
  type Verdict,
  verdictOf,
  wholeVerdict,
  widened,
} from './statistics.ts';

/** Runs by arm and seed. */
export type Runs = ReadonlyMap<string, ReadonlyMap<number, SavedRun>>;

export function runsByArm(all: Iterable<SavedRun>): Runs {
  const runs = new Map<string, Map<number, SavedRun>>();
  for (const run of all) runs.set(run.arm, (runs.get(run.arm) ?? new Map()).set(seedOf(run), run));
  return runs;
}

/** Episodes of all seeds that have what a rate counts, with the 95 % interval of their share over scenes. */
export interface Rate {
  readonly count: number;
  readonly of: number;
  readonly low: number;
  readonly high: number;
}

export interface Outcome {
  readonly test: Test;
  /** By seed: the measure of both arms, and what is compared with 0: their difference, less that of the claim. */
  readonly seeds: readonly {
    readonly seed: number;
    readonly values: readonly [number, number];
    readonly difference: number;
  }[];
  /** The means of both arms over the seeds; NaN without any. */
  readonly means: readonly [number, number];
  /** Over seeds, by Student's t; that of a rate over paired scenes, where it is wider. */
  readonly interval: Interval | null;
  /** Those of all seeds, if some of them do not decide. */
  readonly all: { readonly count: number; readonly interval: Interval } | null;
  /** The rates of both arms over the scenes of the compared seeds; null if the measure is no rate. */
  readonly rates: readonly [Rate, Rate] | null;
  readonly verdict: Verdict;
}

export interface Conclusion {
  readonly claim: Claim;
  /** One for each test, in their order. */
  readonly outcomes: readonly Outcome[];
  /** Those of its tests that decide. */
  readonly parts: readonly Outcome[];
  /** In words. */
  readonly verdict: string;
}

/**
 * Rates of both arms below the first or above the second leave no room for a difference; neither do errors above that of chunks drawn
 * from the data without looking, which is sqrt(2) of the constant's, or above the constant's for a mean.
 */
const [FLOOR, CEILING, BLIND] = [0.1, 0.95, { sample: Math.SQRT2, mean: 1 }];

/** The conclusion from the runs of `deciding`, the seeds of the claim by default. */
export function conclusionOf(claim: Claim, runs: Runs, deciding = seedsOf(claim)): Conclusion {
  const outcomes = claim.tests.map((test) => outcomeOf(test, runs, deciding));
  const parts = outcomes.filter(({ test }) => test.part !== undefined);
  return { claim, outcomes, parts, verdict: wholeVerdict(parts.map((own) => own.verdict)) };
}

export function outcomeOf(test: Test, runs: Runs, deciding: readonly number[]): Outcome {
  const measure: Measure = measures[test.measure];
  const { less = 0 } = test;
  const [first, second] = test.arms.map((own) => runs.get(own.split(':')[0]) ?? new Map<number, SavedRun>());
  const all = [...first.keys()]
    .sort((a, b) => a - b)
    .flatMap((seed) => {
      const pair = [first.get(seed), second.get(seed)];
      const values = valuesOf(test, measure, pair);
      if (!values) return [];
      const [own, other] = values;
      const difference = (measure.unit === 'time' ? own / other - 1 : own - other) - less;
      const scenes = measure.count ? pair.map((run) => countedOf(test, measure, run as TrainedRun)!) : null;
      return [{ seed, values, difference, scenes }];
    });
  const intervalOf = (own: typeof all): Interval | null => {
    if (own.length === 0) return null;
    const overSeeds = meanInterval(own.map(({ difference }) => difference));
    const paired = own.flatMap(
      ({ scenes }) => scenes?.[0].map((one, i) => Number(one) - Number(scenes[1][i]) - less) ?? [],
    );
    return paired.length > 0 ? widened(overSeeds, meanInterval(paired)) : overSeeds;
  };
  const seeds = all.filter(({ seed }) => deciding.includes(seed));
  const interval = intervalOf(seeds);
  const whole = all.length > seeds.length ? { count: all.length, interval: intervalOf(all)! } : null;
  const rateOf = (side: 0 | 1): Rate => {
    const outcomes = seeds.flatMap(({ scenes }) => scenes![side]);
    const count = outcomes.filter(Boolean).length;
    return { count, of: outcomes.length, ...wilsonInterval(count, outcomes.length) };
  };
  const rates = measure.count && seeds.length > 0 ? ([rateOf(0), rateOf(1)] as const) : null;
  const meanAt = (side: 0 | 1) => meanOf(seeds.map(({ values }) => values[side]));
  const means = [meanAt(0), meanAt(1)] as const;
  const isExtreme = rates
    ? means.every((own) => own < FLOOR) || means.every((own) => own > CEILING)
    : measure.blind !== undefined && means.every((own) => own > BLIND[measure.blind!]);
  const ruled = (): Verdict => {
    if (seeds.length < LEAST_SEEDS) return seeds.length === 0 ? 'unrun' : 'few';
    return isExtreme ? 'extreme' : verdictOf(interval!, { direction: test.says, margin: test.margin });
  };
  return { test, seeds, means, interval, all: whole, rates, verdict: ruled() };
}

/** The measure of two runs; null if one is missing or was not measured so. */
function valuesOf(
  test: Test,
  measure: Measure,
  runs: readonly (SavedRun | undefined)[],
): readonly [number, number] | null {
  if (measure.unit === 'time') {
    const medians = runs.map((run, i) => run && medianOf(run, test.arms[i].split(':')[1]));
    return complete(medians);
  }
  const trained = runs as readonly (TrainedRun | undefined)[];
  return complete(
    trained.map((run) => {
      if (!run) return null;
      if (!measure.count) return measure.of!(run);
      const outcomes = countedOf(test, measure, run);
      return outcomes && outcomes.filter(Boolean).length / outcomes.length;
    }),
  );
}

const complete = (values: readonly (number | null | undefined)[]): readonly [number, number] | null =>
  values.every((own) => typeof own === 'number') ? (values as readonly [number, number]) : null;

/** Whether each episode counts; null if the run did not act in the scenes of the test. */
function countedOf(
  { scenes, measure: name }: Test,
  { count }: Measure,
  { episodes, others }: TrainedRun,
): boolean[] | null {
  const named = name === 'success, changed pictures' ? CHANGED : scenes === undefined ? null : [scenes];
  const sets = named ? named.map((own) => others?.[own]) : [episodes];
  return sets.every((own) => own !== undefined) ? sets.flatMap((own) => own!.map(count!)) : null;
}

function medianOf(run: SavedRun, system: string): number | null {
  if (!('rows' in run)) return null;
  const times = run.rows.find((row) => row.system === system)?.times;
  return times ? spread(times).median : null;
}

/** Finished runs of a claim's arms and seeds that were not measured as its tests need. */
export function lackingOf(claim: Claim, runs: Runs, deciding = seedsOf(claim)): SavedRun[] {
  return armsOf(claim).flatMap((arm) => {
    const needed = claim.tests.filter(({ arms }) => arms.includes(arm));
    const own = [...(runs.get(arm)?.values() ?? [])].filter((run) => deciding.includes(seedOf(run)));
    return own.filter((run) => needed.some((test) => valuesOf(test, measures[test.measure], [run, run]) === null));
  });
}
