/**
 * A claim of a paper as a value: what it says, the test that decides it, and what of the paper is missing here. It is written before its
 * runs, and its verdict is computed from their raw numbers by the rule in statistics.ts.
 */
import type { OtherScenes } from '../arms.ts';
import type { MeasureName } from '../measures.ts';
import { LEAST_SEEDS } from '../statistics.ts';

/** Compares two arms, or two systems that were timed in turn, by a measure: the difference first - second, seed by seed. */
export interface Test {
  readonly arms: readonly [first: string, second: string];
  readonly measure: MeasureName;
  /** Scenes of a closed loop; the simple ones by default. */
  readonly scenes?: OtherScenes;
  /** What the claim says of the difference. */
  readonly says: 'higher' | 'lower' | 'alike';
  /** A difference that would matter, in the unit of the measure. */
  readonly margin: number;
  /** The part of the claim that it decides, in words; a test without one stands beside the claim. */
  readonly part?: string;
  /** Is subtracted from the difference: a claim of "20 % more" is one of 'alike' with 0.2. */
  readonly less?: number;
}

export interface Claim {
  /** Its number among the papers' claims; a letter for one that is ours. */
  readonly number: string;
  /** The word after `insula study`. */
  readonly name: string;
  readonly source: string;
  readonly says: string;
  /** The differences between the test and the paper. */
  readonly here: string;
  /** What its verdict holds for, in a few words. */
  readonly limit?: string;
  /** The first of the seeds that decide: earlier runs of its arms were known when it was written. 0 by default. */
  readonly firstSeed?: number;
  /** Those with a `part` decide, the others are beside them. None: the claim cannot be tried here, for the reason in `here`. */
  readonly tests: readonly Test[];
}

/** The seeds that decide: as many as a verdict takes, from the claim's first on, where no others are asked for. */
export const seedsOf = (
  { firstSeed = 0 }: Claim,
  { first = firstSeed, count = LEAST_SEEDS }: { readonly first?: number; readonly count?: number } = {},
): number[] => Array.from({ length: count }, (_, i) => first + i);

/** The arms that a claim compares: those of its first test come first. */
export const armsOf = ({ tests }: Claim): string[] => [
  ...new Set(tests.flatMap(({ arms }) => arms).map((own) => own.split(':')[0])),
];
