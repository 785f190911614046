/** Normalised chunks of actions that tokenizers are fitted to and measured on, and the chunks of one episode. */
import { InputError, quote } from '../../engine/files/errors.ts';
import type { ActionChunk } from '../../tokenizers/index.ts';
import type { Dataset } from '../data/dataset.ts';
import { type EpisodePart, episodeNamed, loadEpisode, loadedInOrder, wholeEpisodes } from '../data/parts.ts';
import { splitDataset } from '../data/split.ts';
import { measureStatistics, Normaliser, rowsOf } from '../data/statistics.ts';

/** Data sets with fewer episodes are split by chunk, because one episode of a few is too unlike the others to represent them. */
const FEW_EPISODES = 10;
/** Then every fifth chunk of each episode is held out, and ten training chunks begin within the length of one. */
const HELD_OUT_EVERY = 5;
const OVERLAP = 10;
/** The most chunks that are held in memory. */
const MOST = 20_000;

/** The parts of `horizon` control steps that begin `step` steps apart, and lie whole in the given ones. */
const partsOfLength = (parts: readonly EpisodePart[], horizon: number, step: number): EpisodePart[] =>
  parts.flatMap(({ episode, from, to }) => {
    const count = Math.max(0, Math.floor((to - from - horizon) / step) + 1);
    const starts = Array.from({ length: count }, (_, i) => from + i * step);
    return starts.map((start) => ({ episode, from: start, to: start + horizon }));
  });

/** The steps from the beginning of a chunk to fit on to that of the next. */
const stepBetween = ({ episodes }: Dataset, horizon: number) =>
  episodes.length < FEW_EPISODES ? Math.max(1, Math.floor(horizon / OVERLAP)) : horizon;

/** The actions of each part, normalised: of all parts, or of `most`, evenly chosen. */
async function chunksOf(parts: readonly EpisodePart[], normaliser: Normaliser, most: number): Promise<ActionChunk[]> {
  const count = Math.min(most, parts.length);
  const chosen = Array.from({ length: count }, (_, i) => parts[Math.floor((i * parts.length) / count)]);
  const chunks: ActionChunk[] = [];
  for await (const { episode, from, to } of loadedInOrder(chosen)) {
    const dimension = episode.actions.length / episode.length;
    chunks.push({
      ...{ horizon: to - from, dimension },
      data: normaliser.normalise(rowsOf(episode.actions, episode, from, to)),
    });
  }
  return chunks;
}

/**
 * Chunks for fitting and for measuring, with no control step in both; `total` counts all that could be fitted to. `description` says in
 * one line what is held out.
 */
export async function splitChunks(
  dataset: Dataset,
  { horizon, seed = 0, most = MOST }: { horizon: number; seed?: number; most?: number },
) {
  const { episodes } = dataset;
  const step = stepBetween(dataset, horizon);
  const few = episodes.length < FEW_EPISODES;
  const all = wholeEpisodes(episodes);
  const split = few
    ? {
        ...{ train: all, heldOut: all },
        description: `few episodes (${episodes.length}): every ${HELD_OUT_EVERY}th chunk of each is held out; chunks to fit on begin ${step} steps apart`,
      }
    : splitDataset(dataset, { seed });
  const isHeldOut = (step: number) => Math.floor(step / horizon) % HELD_OUT_EVERY === HELD_OUT_EVERY - 1;
  const apart = ({ from, to }: EpisodePart) => !few || !(isHeldOut(from) || isHeldOut(to - 1));
  const statistics = await measureStatistics(split.train);
  const normaliser = new Normaliser(statistics.actions, statistics);
  const train = partsOfLength(split.train, horizon, step).filter(apart);
  const heldOut = partsOfLength(split.heldOut, horizon, horizon).filter(({ from }) => !few || isHeldOut(from));
  return {
    ...{ normaliser, total: train.length, description: split.description },
    train: await chunksOf(train, normaliser, most),
    heldOut: await chunksOf(heldOut, normaliser, most),
  };
}

/** Chunks of all episodes, and the statistics that normalise them; `total` counts all that could be. */
export async function wholeDataset(dataset: Dataset, horizon: number, most = MOST) {
  const parts = wholeEpisodes(dataset.episodes);
  const statistics = { ...(await measureStatistics(parts)), states: null };
  const all = partsOfLength(parts, horizon, stepBetween(dataset, horizon));
  const chunks = await chunksOf(all, new Normaliser(statistics.actions, statistics), most);
  return { chunks, total: all.length, statistics };
}

/** The chunk at `step` of an episode, named by id or number, in raw units; without a step all its chunks, one after the other. */
export async function chunksOfEpisode(
  dataset: Dataset,
  { episode: wanted, step }: { episode?: string; step?: number },
  horizon: number,
): Promise<{ episode: string; step: number; chunk: ActionChunk }[]> {
  const episode = await loadEpisode(episodeNamed(dataset, wanted));
  const { id, actions, length } = episode;
  const dimension = actions.length / length;
  if (length < horizon || (step !== undefined && step > length - horizon))
    throw new InputError(
      `episode ${quote(id)} has ${length} steps: no chunk of ${horizon} begins at step ${step ?? 0}; the last begins at ${length - horizon}`,
    );
  const starts = step === undefined ? partsOfLength(wholeEpisodes([episode]), horizon, horizon) : [{ from: step }];
  return starts.map(({ from }) => ({
    ...{ episode: id, step: from },
    chunk: { horizon, dimension, data: rowsOf(actions, episode, from, from + horizon).slice() },
  }));
}
