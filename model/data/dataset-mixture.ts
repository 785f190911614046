import { InputError } from '../../engine/files/errors.ts';
import { randomStream, streams } from '../../engine/random.ts';

/** A source of examples, such as a `TrainingSampler` or a vision-language set. */
export interface ExampleSource<T> {
  /** The number of examples in one epoch. */
  readonly size: number;
  /** Returns example number `place`, counted from 0 over all epochs. */
  at(place: number): T;
}

interface DatasetMember<T> {
  readonly name: string;
  readonly source: ExampleSource<T>;
  /** The weight relative to the other members of the group; n^0.43 for n examples by default, as in pi0. */
  readonly weight?: number;
}

export interface DatasetGroup<T> {
  /** The share of every batch that this group fills; GenVLA fills half with robot data, half with questions. */
  readonly share: number;
  readonly members: readonly DatasetMember<T>[];
}

/** The exponent of pi0 (arXiv 2410.24164, section V-A) weights large sets less than their size does. */
const MIXTURE_EXPONENT = 0.43;
const GOLDEN_RATIO = (Math.sqrt(5) - 1) / 2;

interface GroupState<T> {
  readonly members: readonly DatasetMember<T>[];
  /** The cumulative weights; the last is 1. */
  readonly ends: readonly number[];
  /** `counts` holds the examples of each member among the group's first `counted` examples. */
  counted: number;
  counts: number[];
}

/**
 * Draws batches from several data sets: each group fills its share of every batch, and its members are drawn by weight.
 * The order of examples is a function of seed, step and batch size, so a resumed run continues as if it had never
 * stopped. Multiples of the golden ratio, taken modulo 1, choose the member, which keeps every run of examples close to
 * the weights. Each member goes through its own examples in its own order.
 */
export class DatasetMixture<T> {
  readonly #groups: readonly GroupState<T>[];
  readonly #shares: readonly number[];
  /** The offset, from 0 to 1, of the multiples of the golden ratio. */
  readonly #start: number;

  /** @throws InputError if a group has no member, or a share or weight is not above 0 */
  constructor(groups: readonly DatasetGroup<T>[], seed: number) {
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

  /** Returns the examples of training step `step` (from 0), group by group; a group's share decides their number. */
  batch(step: number, batchSize: number): { name: string; example: T }[] {
    return this.#sizes(batchSize).flatMap((size, g) =>
      Array.from({ length: size }, (_, i) => this.#example(this.#groups[g], step * size + i)),
    );
  }

  /** Rounds the shares of a batch to whole examples; the largest remainders are rounded up. */
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

  #example(group: GroupState<T>, place: number): { name: string; example: T } {
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
