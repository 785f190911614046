/** How many training examples a second a data set gives. */
import {
  chunk,
  type Dataset,
  loadExamples,
  resizeWithPadding,
  TrainingSampler,
  wholeEpisodes,
} from '../../model/data/index.ts';
import { timeSingle } from '../measure/single.ts';

/** Control steps shuffled among each other, so that few episodes are read at a time. */
const WINDOW = 8192;

/** Loads batches for `seconds`: actions and states, and with `size` every camera's image scaled to so many pixels on a side. */
export async function measureLoading(
  what: string,
  dataset: Dataset,
  { batch, seconds, size }: { batch: number; seconds: number; size?: number },
) {
  const sampler = new TrainingSampler(wholeEpisodes(dataset.episodes), 0, { window: WINDOW });
  const horizon = Math.max(1, Math.round(dataset.rate));
  let next = 0;
  const load = async () => {
    for (const { part, step: at } of await loadExamples(sampler.batch(next++, batch))) {
      chunk(part, at, horizon);
      if (size === undefined) continue;
      for (const camera of dataset.cameras) {
        const image = await part.episode.image(camera, at);
        if (image) resizeWithPadding(image, size, size);
      }
    }
  };
  const statistics = (await timeSingle({ load }, { milliseconds: 1000 * seconds, iterations: 3 })).load;
  // Milliseconds of a batch, by tinybench: a training step beside it waits for the longest at most.
  return { what, samplesPerSecond: (batch * 1000) / statistics.mean, batch: statistics };
}
