import { type Random, randomStream, streams } from '../../engine/random.ts';
import type { Episode } from './dataset.ts';
import { countSteps, type EpisodePart, instructionsAt, loadEpisode } from './parts.ts';

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

export interface SamplerOptions {
  /**
   * Control steps that are shuffled among each other. An epoch then goes through its parts in an order of its own, as
   * many at a time as hold this many steps, so that data on disk are read in few places at a time. All by default.
   */
  readonly window?: number;
}

/** Parts shuffled together, and the place of their first example in the epoch. */
interface Window {
  readonly start: number;
  readonly steps: Steps;
}

/** Windows of an epoch are numbered behind it in the step of the random stream. */
const WINDOW_STRIDE = 65536;

/**
 * Training examples without a memory: which example comes when is a function of the seed and its place alone, so a run
 * that is resumed goes on as if it had never stopped. Each epoch visits every control step of every part once, in an
 * order of its own; the wording is drawn anew each time.
 */
export class TrainingSampler {
  /** Examples of one epoch. */
  readonly size: number;
  readonly #window: number;
  #epoch = -1;
  #windows: Window[] = [];
  #current = -1;
  #order: Uint32Array = new Uint32Array(0);
  #wording: Random;

  constructor(
    private readonly parts: readonly EpisodePart[],
    private readonly seed: number,
    { window = Number.POSITIVE_INFINITY }: SamplerOptions = {},
  ) {
    this.size = countSteps(parts);
    if (this.size === 0) throw new RangeError('a sampler needs at least one control step');
    // At most as many windows as an epoch has numbers for.
    this.#window = Math.max(1, window, Math.ceil((2 * this.size) / WINDOW_STRIDE));
    this.#wording = randomStream(seed, 0, streams.wording);
  }

  /** Example number `place`, counted from 0 over all epochs. */
  at(place: number): Sample {
    const epoch = Math.floor(place / this.size);
    if (epoch !== this.#epoch) this.#begin(epoch);
    const inEpoch = place - epoch * this.size;
    const number = lastAtMost(this.#windows, inEpoch);
    const { start, steps } = this.#windows[number];
    if (number !== this.#current) {
      const random = randomStream(this.seed, epoch + number * WINDOW_STRIDE, streams.shuffle);
      this.#order = random.permutation(steps.count);
      this.#current = number;
    }
    const { part, step } = steps.at(this.#order[inEpoch - start]);
    const instructions = instructionsAt(part.episode, step);
    const instruction =
      instructions.length > 0 ? instructions[this.#wording.integer(inEpoch, instructions.length)] : null;
    return { part, step, instruction };
  }

  #begin(epoch: number): void {
    this.#epoch = epoch;
    this.#current = -1;
    this.#wording = randomStream(this.seed, epoch, streams.wording);
    if (this.size <= this.#window) {
      this.#windows = [{ start: 0, steps: new Steps(this.parts) }];
      return;
    }
    // The last number of an epoch is no window's.
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

  /** The examples of training step `step` (from 0) at a fixed batch size. */
  batch(step: number, batchSize: number): Sample[] {
    return Array.from({ length: batchSize }, (_, i) => this.at(step * batchSize + i));
  }
}

/** The last window that starts at or before `place`. */
function lastAtMost(windows: readonly Window[], place: number): number {
  let [low, high] = [0, windows.length - 1];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (windows[middle].start <= place) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** Samples whose episodes hold their numbers, read from disk where the data set leaves them there, each episode once. */
export async function loadSamples(samples: readonly Sample[]): Promise<Sample[]> {
  const loaded = new Map<Episode, Promise<Episode>>();
  return Promise.all(
    samples.map(async (sample) => {
      const { episode } = sample.part;
      if (!episode.load) return sample;
      const own = loaded.get(episode) ?? loadEpisode(episode);
      loaded.set(episode, own);
      return { ...sample, part: { ...sample.part, episode: await own } };
    }),
  );
}

/** Samples in their order, of which only the episode of the last is held in memory. */
export async function* eachLoaded(samples: readonly Sample[]): AsyncGenerator<Sample> {
  let [listed, loaded]: Episode[] = [];
  for (const sample of samples) {
    const { part } = sample;
    if (part.episode !== listed) [listed, loaded] = [part.episode, await loadEpisode(part.episode)];
    yield { ...sample, part: { ...part, episode: loaded } };
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
    return { part, step, instruction: instructionsAt(part.episode, step)[0] ?? null };
  });
}
