import type { Episode } from './dataset.ts';

/** The control steps from ... to - 1 of an episode. */
export interface EpisodePart {
  readonly episode: Episode;
  readonly from: number;
  readonly to: number;
}

/** Each episode as one whole part. */
export function wholeEpisodes(episodes: readonly Episode[]): EpisodePart[] {
  return episodes.map((episode) => ({ episode, from: 0, to: episode.length }));
}

/** Control steps in all. */
export function countSteps(parts: readonly EpisodePart[]): number {
  return parts.reduce((sum, { from, to }) => sum + to - from, 0);
}

/** What the robot measured before control step `step` of a loaded episode; null where it has no states. */
export function stateAt({ states, length }: Episode, step: number): Float32Array | null {
  const dimension = (states?.length ?? 0) / length;
  return states?.subarray(step * dimension, (step + 1) * dimension) ?? null;
}

/** The episode with its numbers: itself, or read from disk where the data set leaves them there. */
export async function loadEpisode(episode: Episode): Promise<Episode> {
  return episode.load ? episode.load() : episode;
}
