import { InputError } from '../../engine/files/errors.ts';
import { randomStream, streams } from '../../engine/random.ts';
import type { Dataset } from './dataset.ts';

/** Where examples come from: `TrainingSampler`, or a vision-language set. */
export interface ExampleSource<T> {
  /** Examples of one epoch. */
  readonly size: number;
  /** Example number `place`, counted from 0 over all epochs. */
  at(place: number): T;
}

export interface MixtureMember<T> {
  readonly name: string;
  readonly source: ExampleSource<T>;
  /** Its weight beside the others of its group; n^0.43 of its n examples by default, as pi0's. */
  readonly weight?: number;
}

export interface MixtureGroup<T> {
  /** The part of every batch that is this group's: GenVLA gives robot data and vision-language data half each. */
  readonly share: number;
  readonly members: readonly MixtureMember<T>[];
}

/** Of pi0 (arXiv 2410.24164, section V-A): large sets are over-represented less than their size says. */
export const MIXTURE_EXPONENT = 0.43;
const GOLDEN_RATIO = (Math.sqrt(5) - 1) / 2;

interface Group<T> {
  readonly members: readonly MixtureMember<T>[];
  /** Cumulative weights, the last 1. */
  readonly ends: readonly number[];
  /** How far the members were counted: `counts` are their examples among the group's first `counted`. */
  counted: number;
  counts: number[];
}

/**
 * Batches from several sources, by shares of every batch and by weights: which example comes when is a function of seed,
 * step and batch size, so a resumed run goes on as if it had never stopped. A group's members take turns as the
 * multiples of the golden ratio fall into their weights, which keeps every stretch of examples close to the weights;
 * each member goes through its own examples in its own order.
 */
export class Mixture<T> {
  readonly #groups: readonly Group<T>[];
  readonly #shares: readonly number[];
  /** Where the turns begin, from 0 to 1. */
  readonly #start: number;

  /** @throws InputError where there is no member, or a share or weight is not above 0 */
  constructor(groups: readonly MixtureGroup<T>[], seed: number) {
    this.#start = randomStream(seed, 0, streams.shuffle).uniform(0);
    const checked = (value: number, what: string) => {
      if (!(value > 0 && Number.isFinite(value))) throw new InputError(`mixture: ${what} is ${value}, not above 0`);
      return value;
    };
    if (groups.length === 0 || groups.some(({ members }) => members.length === 0))
      throw new InputError('mixture: a group has no data set');
    this.#shares = groups.map(({ share }, i) => checked(share, `the share of group ${i + 1}`));
    this.#groups = groups.map(({ members }) => {
      const weights = members.map(({ name, source, weight }) =>
        checked(weight ?? source.size ** MIXTURE_EXPONENT, `the weight of "${name}"`),
      );
      const total = weights.reduce((sum, weight) => sum + weight, 0);
      let end = 0;
      const ends = weights.map((weight) => {
        end += weight / total;
        return end;
      });
      ends[ends.length - 1] = 1;
      return { members, ends, counted: 0, counts: members.map(() => 0) };
    });
  }

  /** Each member's part of all examples. */
  weights(): { name: string; weight: number }[] {
    const total = this.#shares.reduce((sum, share) => sum + share, 0);
    return this.#groups.flatMap(({ members, ends }, g) =>
      members.map(({ name }, m) => ({ name, weight: ((ends[m] - (ends[m - 1] ?? 0)) * this.#shares[g]) / total })),
    );
  }

  /** The examples of training step `step` (from 0), group by group; each group's number is that of its share. */
  batch(step: number, batchSize: number): { name: string; example: T }[] {
    return this.#sizes(batchSize).flatMap((size, g) =>
      Array.from({ length: size }, (_, i) => this.#example(this.#groups[g], step * size + i)),
    );
  }

  /** Shares of a batch in whole examples, the rest to the largest remainders. */
  #sizes(batchSize: number): number[] {
    const total = this.#shares.reduce((sum, share) => sum + share, 0);
    const exact = this.#shares.map((share) => (share * batchSize) / total);
    const sizes = exact.map(Math.floor);
    const order = exact.map((_, i) => i).sort((a, b) => exact[b] - sizes[b] - (exact[a] - sizes[a]) || a - b);
    const left = batchSize - sizes.reduce((sum, size) => sum + size, 0);
    for (const i of order.slice(0, left)) sizes[i] += 1;
    if (sizes.includes(0)) throw new InputError(`mixture: a batch of ${batchSize} has no room for one of its groups`);
    return sizes;
  }

  #example(group: Group<T>, place: number): { name: string; example: T } {
    const memberAt = (at: number) => {
      const turn = (this.#start + at * GOLDEN_RATIO) % 1;
      return group.ends.findIndex((end) => turn < end);
    };
    if (place < group.counted) [group.counted, group.counts] = [0, group.members.map(() => 0)];
    while (group.counted < place) group.counts[memberAt(group.counted++)] += 1;
    const member = memberAt(place);
    const { name, source } = group.members[member];
    return { name, example: source.at(group.counts[member]) };
  }
}

/**
 * Data sets whose actions one model is to learn must go by the same time step; with slot maps they may have other
 * dimensions.
 *
 * @throws InputError with what differs
 */
export function checkMixable(datasets: readonly Dataset[], { slots = false } = {}): void {
  const [first, ...others] = datasets;
  for (const dataset of others) {
    const differs = (what: string, own: number, unlike: number, advice: string) => {
      if (own !== unlike)
        throw new InputError(`"${first.name}" has ${own} ${what}, "${dataset.name}" ${unlike}: ${advice}`);
    };
    differs('Hz', first.rate, dataset.rate, 'a chunk would last another time in each; train them apart or resample');
    if (slots) continue;
    differs('action dimensions', first.actionDimension, dataset.actionDimension, 'give each a slot map');
    differs('state dimensions', first.stateDimension, dataset.stateDimension, 'give each a slot map');
  }
}
