/** How many training examples a second a data set gives. */
import {
  chunk,
  type Dataset,
  loadExamples,
  resizeWithPadding,
  TrainingSampler,
  wholeEpisodes,
} from '../../model/data/index.ts';

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
  const start = performance.now();
  let [step, longest, now] = [0, 0, start];
  for (; now - start < seconds * 1000; step++) {
    const before = now;
    for (const { part, step: at } of await loadExamples(sampler.batch(step, batch))) {
      chunk(part, at, horizon);
      if (size === undefined) continue;
      for (const camera of dataset.cameras) {
        const image = await part.episode.image(camera, at);
        if (image) resizeWithPadding(image, size, size);
      }
    }
    now = performance.now();
    longest = Math.max(longest, now - before);
  }
  // The longest that a batch took, in milliseconds: what a training step beside it waits at most.
  return { what, samplesPerSecond: (step * batch * 1000) / (now - start), longestBatch: longest };
}
