import { InputError } from '../../engine/files/errors.ts';
import type { Dataset } from './dataset.ts';
import type { EpisodePart } from './parts.ts';
import { relativeActions } from './slots.ts';

/** The actions of `horizon` control steps in raw units, and a mask of those that were demonstrated. */
export interface ActionChunk {
  /** [horizon, actionDimension] */
  readonly data: Float32Array;
  /** [horizon]: 1 for a step inside the part, 0 for a repetition of its last action past the end. */
  readonly valid: Uint8Array;
}

/**
 * Takes the actions from control step `step` on. Past the end of the part the last action is repeated and marked as not
 * valid, so that a training part never shows actions of the held-out part of its episode.
 */
export function chunk({ episode, from, to }: EpisodePart, step: number, horizon: number): ActionChunk {
  if (!Number.isInteger(step) || step < from || step >= to) {
    throw new RangeError(`episode "${episode.id}" has no step ${step} in its steps ${from} to ${to - 1}`);
  }
  const dimension = episode.actions.length / episode.length;
  const data = new Float32Array(horizon * dimension);
  const valid = new Uint8Array(horizon);
  for (let i = 0; i < horizon; i++) {
    const source = Math.min(step + i, to - 1);
    data.set(episode.actions.subarray(source * dimension, (source + 1) * dimension), i * dimension);
    valid[i] = step + i < to ? 1 : 0;
  }
  return { data, valid };
}

/** Chooses the horizon in control steps, by default one second. @throws InputError if every episode is shorter */
export function chooseHorizon(dataset: Dataset, horizon = Math.max(1, Math.round(dataset.rate))): number {
  if (!Number.isInteger(horizon) || horizon < 1) {
    throw new InputError(`horizon ${horizon}: it is a whole number of control steps, at least 1`);
  }
  const longest = dataset.episodes.reduce((length, episode) => Math.max(length, episode.length), 0);
  if (horizon > longest) {
    throw new InputError(
      `horizon ${horizon} is longer than the longest episode of data set "${dataset.name}", which has ${longest} steps: choose at most ${longest}`,
    );
  }
  return horizon;
}

/**
 * Makes the relative action chunks of every step of a part, for `measureStatistics`, without the repetitions past its
 * end. The statistics of relative actions are those of the chunks that are trained on, and grow with the horizon.
 *
 * @throws InputError if the episode has no state
 */
export function relativeChunks(horizon: number, relative: readonly boolean[]) {
  return function* (part: EpisodePart): Generator<Float32Array> {
    const { episode, from, to } = part;
    const { states } = episode;
    if (!states) throw new InputError(`episode "${episode.id}" has no state: its actions cannot be made relative`);
    const dimension = states.length / episode.length;
    for (let step = from; step < to; step++) {
      const { data } = chunk(part, step, Math.min(horizon, to - step));
      yield relativeActions(data, states.subarray(step * dimension, (step + 1) * dimension), relative);
    }
  };
}
