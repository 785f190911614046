import { InputError } from '../../engine/files/errors.ts';
import type { Dataset } from './dataset.ts';
import type { EpisodePart } from './parts.ts';

/** The actions of `horizon` control steps in raw units, and which of them were demonstrated. */
export interface Chunk {
  /** [horizon, actionDimension] */
  readonly data: Float32Array;
  /** [horizon]: 1 where the step lies in the part, 0 where its last action is repeated past the end. */
  readonly valid: Uint8Array;
}

/**
 * The actions from control step `step` on. Past the end of the part the last action is repeated and marked as not
 * valid: a part of an episode never shows actions of the part that was kept apart from it.
 */
export function chunk({ episode, from, to }: EpisodePart, step: number, horizon: number): Chunk {
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

/**
 * The horizon to train with, in control steps: the one asked for, or one second.
 *
 * @throws InputError where it is not a whole number, or longer than the longest episode
 */
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
