import { InputError } from '../../engine/files/errors.ts';
import { randomStream, streams } from '../../engine/random.ts';
import type { Dataset } from './dataset.ts';
import { type EpisodePart, wholeEpisodes } from './parts.ts';

/** The parts to train on and the parts held out to measure with. No control step is in both. */
export interface Split {
  readonly train: readonly EpisodePart[];
  readonly heldOut: readonly EpisodePart[];
  /** One line that names the parts held out. */
  readonly description: string;
}

/**
 * Holds out whole episodes, drawn by the seed: a tenth of them, rounded, at least one and never all. If the data set
 * has a single episode, the last fifth of its steps is held out.
 *
 * @throws InputError if the data set is too small to divide
 */
export function splitDataset(dataset: Dataset, { seed = 0 } = {}): Split {
  const { episodes, name } = dataset;
  if (episodes.length === 0) throw new InputError(`data set "${name}" has no episodes`);
  if (episodes.length === 1) return splitEpisode(dataset);
  const count = Math.max(1, Math.round(episodes.length * 0.1));
  const order = randomStream(seed, 0, streams.split).permutation(episodes.length);
  const chosen = new Set(order.subarray(0, count));
  const parts = wholeEpisodes(episodes);
  const heldOut = parts.filter((_, i) => chosen.has(i));
  const ids = heldOut.map(({ episode }) => episode.id);
  const listed = ids.length > 5 ? `${ids.slice(0, 5).join(', ')} ...` : ids.join(', ');
  return {
    train: parts.filter((_, i) => !chosen.has(i)),
    heldOut,
    description: `${count} of ${episodes.length} episodes held out (seed ${seed}): ${listed}`,
  };
}

function splitEpisode({ name, episodes: [episode] }: Dataset): Split {
  const held = Math.max(1, Math.round(episode.length / 5));
  const border = episode.length - held;
  if (border < 1) throw new InputError(`data set "${name}" has one episode of one step: nothing can be held out`);
  return {
    train: [{ episode, from: 0, to: border }],
    heldOut: [{ episode, from: border, to: episode.length }],
    description: `one episode only: its last ${held} of ${episode.length} steps held out`,
  };
}
