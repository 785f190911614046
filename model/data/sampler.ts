import { type Random, randomStream, streams } from '../../engine/random.ts';
import { countSteps, type EpisodePart } from './parts.ts';

/** One training or evaluation example: a control step of an episode and the wording to give. */
export interface Sample {
  readonly part: EpisodePart;
  readonly step: number;
  /** null where the episode has no instruction. */
  readonly instruction: string | null;
}

/** Finds the n-th control step of a list of parts. */
class Steps {
  readonly #ends: number[] = [];
  readonly count: number;

  constructor(readonly parts: readonly EpisodePart[]) {
    let end = 0;
    for (const { from, to } of parts) {
      end += to - from;
      this.#ends.push(end);
    }
    this.count = countSteps(parts);
  }

  at(index: number): { part: EpisodePart; step: number } {
    let [low, high] = [0, this.#ends.length - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#ends[middle] > index) high = middle;
      else low = middle + 1;
    }
    const part = this.parts[low];
    return { part, step: part.to - (this.#ends[low] - index) };
  }
}

/**
 * Training examples without a memory: which example comes when is a function of the seed and its place alone, so a run
 * that is resumed goes on as if it had never stopped. Each epoch visits every control step of every part once, in an
 * order of its own; the wording is drawn anew each time.
 */
export class TrainingSampler {
  readonly #steps: Steps;
  readonly #seed: number;
  #epoch = -1;
  #order: Uint32Array = new Uint32Array(0);
  #wording: Random;

  constructor(parts: readonly EpisodePart[], seed: number) {
    this.#steps = new Steps(parts);
    if (this.#steps.count === 0) throw new RangeError('a sampler needs at least one control step');
    this.#seed = seed;
    this.#wording = randomStream(seed, 0, streams.wording);
  }

  /** Examples of one epoch. */
  get size(): number {
    return this.#steps.count;
  }

  /** Example number `place`, counted from 0 over all epochs. */
  at(place: number): Sample {
    const epoch = Math.floor(place / this.size);
    if (epoch !== this.#epoch) {
      this.#order = randomStream(this.#seed, epoch, streams.shuffle).permutation(this.size);
      this.#wording = randomStream(this.#seed, epoch, streams.wording);
      this.#epoch = epoch;
    }
    const inEpoch = place - epoch * this.size;
    const { part, step } = this.#steps.at(this.#order[inEpoch]);
    const { instructions } = part.episode;
    const instruction =
      instructions.length > 0 ? instructions[this.#wording.integer(inEpoch, instructions.length)] : null;
    return { part, step, instruction };
  }

  /** The examples of training step `step` (from 0) at a fixed batch size. */
  batch(step: number, batchSize: number): Sample[] {
    return Array.from({ length: batchSize }, (_, i) => this.at(step * batchSize + i));
  }
}

/**
 * Examples to measure with: at most `count` control steps, evenly spread over the parts, in order, each with the first
 * wording. The same list every time.
 */
export function evaluationSamples(parts: readonly EpisodePart[], count = Number.POSITIVE_INFINITY): Sample[] {
  const steps = new Steps(parts);
  const taken = Math.min(count, steps.count);
  return Array.from({ length: taken }, (_, i) => {
    const { part, step } = steps.at(Math.floor(((i + 0.5) * steps.count) / taken));
    return { part, step, instruction: part.episode.instructions[0] ?? null };
  });
}
