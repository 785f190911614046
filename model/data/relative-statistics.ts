import { chunk } from './chunks.ts';
import type { Slot } from './dataset.ts';
import type { EpisodePart } from './parts.ts';
import { relativeActions } from './slots.ts';

/**
 * Makes the relative action chunks of every step of a part, for `measureStatistics`, without the repetitions past its
 * end. The statistics of relative actions are those of the chunks that are trained on, and grow with the horizon.
 *
 * @throws RangeError if the episode has no state
 */
export function relativeChunks(horizon: number, slots: readonly Slot[]) {
  return function* (part: EpisodePart): Generator<Float32Array> {
    const { episode, from, to } = part;
    const { states } = episode;
    if (!states) throw new RangeError(`episode "${episode.id}" has no state: its actions cannot be made relative`);
    const dimension = states.length / episode.length;
    for (let step = from; step < to; step++) {
      const { data } = chunk(part, step, Math.min(horizon, to - step));
      yield relativeActions(data, states.subarray(step * dimension, (step + 1) * dimension), slots);
    }
  };
}
