import { InputError, quote } from '../../engine/files/errors.ts';
import type { Dataset, Episode } from './dataset.ts';

/** The control steps from `from` to `to` - 1 of an episode. */
export interface EpisodePart {
  readonly episode: Episode;
  readonly from: number;
  readonly to: number;
}

/** The number of episodes read from disk at a time. */
const LOADED_AHEAD = 8;

export function wholeEpisodes(episodes: readonly Episode[]): EpisodePart[] {
  return episodes.map((episode) => ({ episode, from: 0, to: episode.length }));
}

/** Finds an episode by its id or its number; the first by default. @throws InputError if there is no such episode */
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

export function countSteps(parts: readonly EpisodePart[]): number {
  return parts.reduce((sum, { from, to }) => sum + to - from, 0);
}

/** Trims the texts of a source and drops repetitions; a text that is empty or only white space is no instruction. */
export function instructionsAmong(texts: Iterable<string>): string[] {
  const words = new Set([...texts].map((text) => text.trim()));
  words.delete('');
  return [...words];
}

/** Returns the paraphrases of the instruction at control step `step`. */
export function instructionsAt(episode: Episode, step: number): readonly string[] {
  return episode.instructionsAt?.(step) ?? episode.instructions;
}

/** Returns the measured state before control step `step` of a loaded episode; null if it has no states. */
export function stateAt({ states, length }: Episode, step: number): Float32Array | null {
  const dimension = (states?.length ?? 0) / length;
  return states?.subarray(step * dimension, (step + 1) * dimension) ?? null;
}

/** Makes an episode whose numbers are left on disk from the fields that are known without them. */
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
 * Changes some properties of an episode, and the same ones once it is loaded. All others are looked up in `episode` on
 * access, because the numbers of an episode on disk must not be read before it is loaded.
 */
export function changedEpisode(episode: Episode, change: (episode: Episode) => Partial<Episode>): Episode {
  const { load } = episode;
  const changes = {
    ...change(episode),
    ...(load && { load: async () => changedEpisode(await load(), change) }),
  };
  return Object.create(episode, Object.getOwnPropertyDescriptors(changes));
}

/** Returns the episode with its numbers, which are read from disk if the data set leaves them there. */
export async function loadEpisode(episode: Episode): Promise<Episode> {
  return episode.load ? episode.load() : episode;
}

/** Yields parts in their order with their episodes loaded; the next few are read from disk while one is used. */
export async function* loadedInOrder(parts: readonly EpisodePart[]): AsyncGenerator<EpisodePart> {
  const loading: Promise<EpisodePart>[] = [];
  for (let i = 0; i < parts.length + LOADED_AHEAD; i++) {
    if (i < parts.length) {
      const own = loadEpisode(parts[i].episode).then((episode) => ({ ...parts[i], episode }));
      own.catch(() => {}); // the error is thrown again by the await below
      loading.push(own);
    }
    if (i >= LOADED_AHEAD) yield await loading.shift()!;
  }
}
