import { InputError, quote } from '../../engine/files/errors.ts';
import type { Dataset, Episode } from './dataset.ts';

/** @throws InputError if a value of [rows, dimension] is not finite; the message names file, step and dimension */
export function checkFinite(values: Float32Array, dimension: number, file: string, what: string): void {
  let bad = 0;
  while (bad < values.length && Math.abs(values[bad]) < Number.POSITIVE_INFINITY) bad += 1;
  if (bad === values.length) return;
  const place = `step ${Math.floor(bad / dimension)}, dimension ${bad % dimension}`;
  throw new InputError(`${file}: ${what}, ${place} is ${values[bad]}: repair or leave out the episode`);
}

/** An episode as a reader found it, and the file that holds it. */
export interface FoundEpisode {
  readonly file: string;
  readonly actionDimension: number;
  /** 0 if the episode has no states. */
  readonly stateDimension: number;
  readonly episode: Episode;
}

/** Makes a data set of episodes. @throws InputError if there are none, or their dimensions differ */
export function assembleDataset(
  found: readonly FoundEpisode[],
  { name, kind, rate, place }: { name: string; kind: string; rate: number; place: string },
): Dataset {
  if (found.length === 0) throw new InputError(`${place}: no episode in it`);
  const [first] = found;
  for (const { file, episode, actionDimension, stateDimension } of found) {
    for (const [what, own, before] of [
      ['action', actionDimension, first.actionDimension],
      ['state', stateDimension, first.stateDimension],
    ] as const) {
      if (own === before) continue;
      const unlike = `has ${what} dimension ${own}, the first episode ${before}`;
      throw new InputError(`${file}: episode ${quote(episode.id)}: ${unlike}: a data set has one`);
    }
  }
  const cameras = [...new Set(found.flatMap(({ episode }) => episode.cameras))].sort();
  const steps = found.reduce((sum, { episode }) => sum + episode.length, 0);
  const seen = cameras.length > 0 ? `cameras ${cameras.join(', ')}` : 'no cameras';
  return {
    name,
    description: `${kind}: ${found.length} episodes, ${steps} steps at ${rate} Hz, ${seen}`,
    rate,
    actionDimension: first.actionDimension,
    stateDimension: first.stateDimension,
    cameras,
    episodes: found.map(({ episode }) => episode),
  };
}
