import { InputError, quote } from '../../engine/index.ts';
import {
  type Dataset,
  type DatasetStatistics,
  type EpisodePart,
  episodeNamed,
  loadEpisode,
  measureStatistics,
  Normaliser,
  splitDataset,
  wholeEpisodes,
} from '../../model/data/index.ts';
import type { ActionChunk } from '../../tokenizers/index.ts';

/** Data sets with fewer episodes are split by chunk, because one episode of a few is too unlike the others to represent them. */
const FEW_EPISODES = 10;
/** Then every fifth chunk of each episode is held out, and ten training chunks begin within the length of one. */
const HELD_OUT_EVERY = 5;
const OVERLAP = 10;

/**
 * Normalised chunks for fitting and for measuring, with no control step in both. At most `most` chunks, evenly chosen, are for
 * fitting, so that memory does not grow with the data set; `total` counts all that could be. `description` says in one line what is
 * held out.
 */
export async function splitChunks(
  dataset: Dataset,
  { horizon, seed = 0, most = 20_000 }: { horizon: number; seed?: number; most?: number },
) {
  const { episodes } = dataset;
  const few = episodes.length < FEW_EPISODES;
  const isHeldOut = (start: number) => Math.floor(start / horizon) % HELD_OUT_EVERY === HELD_OUT_EVERY - 1;
  const apart = (start: number) => !isHeldOut(start) && !isHeldOut(start + horizon - 1);
  const step = stepBetween(dataset, horizon);
  const split = few
    ? {
        train: wholeEpisodes(episodes),
        heldOut: wholeEpisodes(episodes),
        description: `few episodes (${episodes.length}): every ${HELD_OUT_EVERY}th chunk of each is held out; chunks to fit on begin ${step} steps apart`,
      }
    : splitDataset(dataset, { seed });
  const starts = (step: number, chosen: (start: number) => boolean) => (length: number) =>
    range(0, length - horizon, step).filter((start) => !few || chosen(start));
  const statistics = await measureStatistics(split.train);
  const normaliser = new Normaliser(statistics.actions, statistics);
  const { chunks: train, total } = await cut(split.train, horizon, normaliser, starts(step, apart), most);
  const { chunks: heldOut } = await cut(split.heldOut, horizon, normaliser, starts(horizon, isHeldOut), most);
  return { train, heldOut, normaliser, total, description: split.description };
}

/** The steps from the beginning of a chunk to fit on to that of the next. */
const stepBetween = ({ episodes }: Dataset, horizon: number) =>
  episodes.length < FEW_EPISODES ? Math.max(1, Math.floor(horizon / OVERLAP)) : horizon;

/** The normalised chunks of a data set, at most `most` of all `total`, evenly chosen, and the statistics of the normalisation. */
export async function wholeDataset(
  dataset: Dataset,
  horizon: number,
  most = 20_000,
): Promise<{ chunks: ActionChunk[]; total: number; statistics: DatasetStatistics }> {
  const parts = wholeEpisodes(dataset.episodes);
  const { actions, ...others } = await measureStatistics(parts);
  const statistics = { ...others, actions, states: null };
  const normaliser = new Normaliser(actions, statistics);
  const step = stepBetween(dataset, horizon);
  const starts = (length: number) => range(0, length - horizon, step);
  return { ...(await cut(parts, horizon, normaliser, starts, most)), statistics };
}

/** The chunk at `step` of an episode, named by id or number, in raw units; without a step all its chunks, one after the other. */
export async function chunksOfEpisode(
  dataset: Dataset,
  { episode: wanted, step }: { episode?: string; step?: number },
  horizon: number,
): Promise<{ episode: string; step: number; chunk: ActionChunk }[]> {
  const found = episodeNamed(dataset, wanted);
  const { id, actions, length } = await loadEpisode(found);
  const dimension = actions.length / length;
  if (length < horizon || (step !== undefined && step > length - horizon))
    throw new InputError(
      `episode ${quote(id)} has ${length} steps: no chunk of ${horizon} begins at step ${step ?? 0}; the last begins at ${length - horizon}`,
    );
  return (step === undefined ? range(0, length - horizon, horizon) : [step]).map((start) => ({
    episode: id,
    step: start,
    chunk: { horizon, dimension, data: actions.slice(start * dimension, (start + horizon) * dimension) },
  }));
}

/** The numbers from, from + step, ... up to `last`. */
function range(from: number, last: number, step: number): number[] {
  return Array.from({ length: Math.max(0, Math.floor((last - from) / step) + 1) }, (_, i) => from + i * step);
}

/** The chunks of the parts that begin at `starts` of a part's length: all of them, or `most`, evenly chosen. */
async function cut(
  parts: readonly EpisodePart[],
  horizon: number,
  normaliser: Normaliser,
  starts: (length: number) => number[],
  most: number,
): Promise<{ chunks: ActionChunk[]; total: number }> {
  const total = parts.reduce((sum, { from, to }) => sum + starts(to - from).length, 0);
  const chunks: ActionChunk[] = [];
  let seen = 0;
  for (const { episode, from, to } of parts) {
    const own = starts(to - from).filter(() => {
      const before = Math.floor((seen * most) / total);
      seen++;
      return total <= most || Math.floor((seen * most) / total) > before;
    });
    if (own.length === 0) continue;
    const { actions, length } = await loadEpisode(episode);
    const dimension = actions.length / length;
    for (const start of own) {
      const data = actions.subarray((from + start) * dimension, (from + start + horizon) * dimension);
      chunks.push({ horizon, dimension, data: normaliser.normalise(data) });
    }
  }
  return { chunks, total };
}
