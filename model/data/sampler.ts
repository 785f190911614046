import { type Random, randomStream, streams } from '../../engine/random.ts';
import type { Episode, Image } from './dataset.ts';
import { firstWhere } from './first-where.ts';
import { countSteps, type EpisodePart, instructionsAt, loadEpisode } from './parts.ts';

/** A control step of an episode, and one paraphrase of its instruction. */
export interface Sample {
  readonly part: EpisodePart;
  readonly step: number;
  /** null if the episode has no instruction. */
  readonly instruction: string | null;
  /** Language to predict before the actions; none by default. */
  readonly subtask?: string;
}

/** A question about an image. */
export interface VisionLanguage {
  readonly image: () => Promise<Image>;
  readonly prompt: string;
  readonly answer: string;
}

/** A training example: robot data, with or without a subtask to predict before the actions, or a question with its answer. */
export type Example = Sample | VisionLanguage;

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
    const number = firstWhere(this.#ends.length - 1, (i) => this.#ends[i] > index);
    const part = this.parts[number];
    return { part, step: part.to - (this.#ends[number] - index) };
  }
}

/** The step of a window's random stream is its epoch plus WINDOW_STRIDE times its number. */
const WINDOW_STRIDE = 65536;

/**
 * Draws training examples without state: an example is a function of the seed and its position alone, so a resumed run
 * continues as if it had never stopped. Each epoch visits every control step of every part once, in an order of its
 * own, and draws a paraphrase of the instruction anew each time.
 *
 * `window` control steps are shuffled together, all by default. With fewer, an epoch goes through its parts in a random
 * order, as many at a time as hold this many steps, so that data on disk are read in few places at a time.
 */
export class TrainingSampler {
  /** The number of examples in one epoch. */
  readonly size: number;
  readonly #window: number;
  #epoch = -1;
  /** Parts that are shuffled together, and the position of their first example in the epoch. */
  #windows: { readonly start: number; readonly steps: Steps }[] = [];
  #current = -1;
  #order: Uint32Array = new Uint32Array(0);
  #paraphrase: Random;

  constructor(
    private readonly parts: readonly EpisodePart[],
    private readonly seed: number,
    { window = Number.POSITIVE_INFINITY } = {},
  ) {
    this.size = countSteps(parts);
    if (this.size === 0) throw new RangeError('a sampler needs at least one control step');
    // WINDOW_STRIDE limits the number of windows of an epoch.
    this.#window = Math.max(1, window, Math.ceil((2 * this.size) / WINDOW_STRIDE));
    this.#paraphrase = randomStream(seed, 0, streams.paraphrase);
  }

  /** Returns example number `place`, counted from 0 over all epochs. */
  at(place: number): Sample {
    const epoch = Math.floor(place / this.size);
    if (epoch !== this.#epoch) this.#begin(epoch);
    const inEpoch = place - epoch * this.size;
    const number = firstWhere(this.#windows.length, (i) => this.#windows[i].start > inEpoch) - 1;
    const { start, steps } = this.#windows[number];
    if (number !== this.#current) {
      const random = randomStream(this.seed, epoch + number * WINDOW_STRIDE, streams.shuffle);
      this.#order = random.permutation(steps.count);
      this.#current = number;
    }
    const { part, step } = steps.at(this.#order[inEpoch - start]);
    const instructions = instructionsAt(part.episode, step);
    const instruction =
      instructions.length > 0 ? instructions[this.#paraphrase.integer(inEpoch, instructions.length)] : null;
    return { part, step, instruction };
  }

  #begin(epoch: number): void {
    this.#epoch = epoch;
    this.#current = -1;
    this.#paraphrase = randomStream(this.seed, epoch, streams.paraphrase);
    if (this.size <= this.#window) {
      this.#windows = [{ start: 0, steps: new Steps(this.parts) }];
      return;
    }
    // No window has the last number of an epoch.
    const random = randomStream(this.seed, epoch + (WINDOW_STRIDE - 1) * WINDOW_STRIDE, streams.shuffle);
    const order = random.permutation(this.parts.length);
    this.#windows = [];
    let [start, next, held] = [0, [] as EpisodePart[], 0];
    for (const [i, number] of order.entries()) {
      const part = this.parts[number];
      next.push(part);
      held += part.to - part.from;
      if (held < this.#window && i < order.length - 1) continue;
      if (held > 0) this.#windows.push({ start, steps: new Steps(next) });
      [start, next, held] = [start + held, [], 0];
    }
  }

  /** Returns the examples of training step `step` (from 0) at a fixed batch size. */
  batch(step: number, batchSize: number): Sample[] {
    return Array.from({ length: batchSize }, (_, i) => this.at(step * batchSize + i));
  }
}

/** Loads the episodes of examples, each once, if the data set leaves their numbers on disk. */
export async function loadExamples<T extends Example>(examples: readonly T[]): Promise<T[]> {
  const loaded = new Map<Episode, Promise<Episode>>();
  return Promise.all(
    examples.map(async (example) => {
      if (!('part' in example) || !example.part.episode.load) return example;
      const { part } = example;
      const own = loaded.get(part.episode) ?? loadEpisode(part.episode);
      loaded.set(part.episode, own);
      return { ...example, part: { ...part, episode: await own } };
    }),
  );
}

/** Yields samples in their order with their episodes loaded; only the latest episode is held in memory. */
export async function* eachLoaded(samples: readonly Sample[]): AsyncGenerator<Sample> {
  let [listed, loaded]: Episode[] = [];
  for (const sample of samples) {
    const { part } = sample;
    if (part.episode !== listed) [listed, loaded] = [part.episode, await loadEpisode(part.episode)];
    yield { ...sample, part: { ...part, episode: loaded } };
  }
}

/** Lists at most `count` steps to measure with, evenly spread and in order, each with its first paraphrase. */
export function evaluationSamples(parts: readonly EpisodePart[], count = Number.POSITIVE_INFINITY): Sample[] {
  const steps = new Steps(parts);
  const taken = Math.min(count, steps.count);
  return Array.from({ length: taken }, (_, i) => {
    const { part, step } = steps.at(Math.floor(((i + 0.5) * steps.count) / taken));
    return { part, step, instruction: instructionsAt(part.episode, step)[0] ?? null };
  });
}
