import { InputError, quote } from '../../engine/files/errors.ts';
import type { Dataset, Episode } from './dataset.ts';

/** The control steps from ... to - 1 of an episode. */
export interface EpisodePart {
  readonly episode: Episode;
  readonly from: number;
  readonly to: number;
}

/** Episodes read from disk at a time. */
const LOADED_AHEAD = 8;

/** Each episode as one whole part. */
export function wholeEpisodes(episodes: readonly Episode[]): EpisodePart[] {
  return episodes.map((episode) => ({ episode, from: 0, to: episode.length }));
}

/** An episode by its id or its number; the first where none is wanted. @throws InputError where there is none of that name */
export function episodeNamed({ name, episodes }: Dataset, wanted: string | undefined): Episode {
  if (wanted === undefined) return episodes[0];
  const index = /^\d+$/.test(wanted) ? Number(wanted) : -1;
  const found = episodes.find((episode) => episode.id === wanted) ?? episodes[index];
  if (!found)
    throw new InputError(
      `--episode ${quote(wanted)}: "${name}" has ${episodes.length} episodes, 0 to ${episodes.length - 1}, the first called ${quote(episodes[0].id)}`,
    );
  return found;
}

/** Control steps in all. */
export function countSteps(parts: readonly EpisodePart[]): number {
  return parts.reduce((sum, { from, to }) => sum + to - from, 0);
}

/** The instructions among texts of a source, each once: a text that is empty or only white space is none. */
export function instructionsAmong(texts: Iterable<string>): string[] {
  const words = new Set([...texts].map((text) => text.trim()));
  words.delete('');
  return [...words];
}

/** Wordings of the instruction that are true at control step `step`. */
export function instructionsAt(episode: Episode, step: number): readonly string[] {
  return episode.instructionsAt?.(step) ?? episode.instructions;
}

/** What the robot measured before control step `step` of a loaded episode; null where it has no states. */
export function stateAt({ states, length }: Episode, step: number): Float32Array | null {
  const dimension = (states?.length ?? 0) / length;
  return states?.subarray(step * dimension, (step + 1) * dimension) ?? null;
}

/** An episode whose numbers are left on disk, of what is known without them. */
export function onDisk(known: Omit<Episode, 'actions' | 'states' | 'load'>, load: () => Promise<Episode>): Episode {
  const notLoaded = (): never => {
    throw new RangeError(`the numbers of episode "${known.id}" are on disk: load() the episode first`);
  };
  return {
    ...known,
    get actions() {
      return notLoaded();
    },
    get states() {
      return notLoaded();
    },
    load,
  };
}

/**
 * The episode with some of its properties changed, and the same once it is loaded. All others are looked up in `episode`
 * when they are asked for: the numbers of one on disk must not be before it is loaded.
 */
export function changedEpisode(episode: Episode, change: (episode: Episode) => Partial<Episode>): Episode {
  const { load } = episode;
  const changes = {
    ...change(episode),
    ...(load && { load: async () => changedEpisode(await load(), change) }),
  };
  return Object.create(episode, Object.getOwnPropertyDescriptors(changes));
}

/** The episode with its numbers: itself, or read from disk where the data set leaves them there. */
export async function loadEpisode(episode: Episode): Promise<Episode> {
  return episode.load ? episode.load() : episode;
}

/** Parts in their order, their episodes loaded: the next few from disk while one is used. */
export async function* loadedInOrder(parts: readonly EpisodePart[]): AsyncGenerator<EpisodePart> {
  const loading: Promise<EpisodePart>[] = [];
  for (let i = 0; i < parts.length + LOADED_AHEAD; i++) {
    if (i < parts.length) {
      const own = loadEpisode(parts[i].episode).then((episode) => ({ ...parts[i], episode }));
      own.catch(() => {}); // thrown again where it is awaited
      loading.push(own);
    }
    if (i >= LOADED_AHEAD) yield await loading.shift()!;
  }
}
