/** How many training examples a second a data set gives. */
import {
  chunk,
  type Dataset,
  type Episode,
  loadExamples,
  resizeWithPadding,
  TrainingSampler,
  wholeEpisodes,
} from '../../model/data/index.ts';
import { type Statistics, timeSingle } from '../measure/single.ts';
import type { BesideTraining } from './beside-training.ts';

/** Control steps shuffled among each other, so that few episodes are read at a time. */
const WINDOW = 8192;
/** The set that is written where none is named. */
const MADE = { episodes: 60, length: 300, dimension: 14, size: 64, rate: 50 };

export interface LoadingRate {
  what: string;
  samplesPerSecond: number;
  /** Milliseconds of a batch, by tinybench: a training step beside it waits for the longest at most. */
  batch: Statistics;
  beside?: BesideTraining;
}

/** Loads batches for `seconds`: actions and states, and with `size` every camera's image scaled to so many pixels on a side. */
export async function measureLoading(
  what: string,
  dataset: Dataset,
  { batch, seconds, size }: { batch: number; seconds: number; size?: number },
): Promise<LoadingRate> {
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
  return { what, samplesPerSecond: (batch * 1000) / statistics.mean, batch: statistics };
}

/** Smooth motions, and pictures as hard to compress as a camera's. */
export function madeDataset(): Dataset {
  const { episodes, length, dimension, size, rate } = MADE;
  const episode = (number: number): Episode => {
    const actions = Float32Array.from({ length: length * dimension }, (_, i) => Math.sin(number + i * 0.013));
    const image = async (_: string, step: number) => {
      const grain = (i: number) => Math.imul(i + step * 7919 + number, 0x9e3779b1) >>> 29;
      const pixels = Uint8Array.from({ length: size * size * 3 }, (_, i) => ((i * 7 + step * 3) >> 3) ^ grain(i));
      return { width: size, height: size, pixels };
    };
    return { id: `${number}`, length, actions, states: actions, instructions: ['move'], cameras: ['top'], image };
  };
  const all = Array.from({ length: episodes }, (_, number) => episode(number));
  const sizes = { actionDimension: dimension, stateDimension: dimension };
  return { name: 'made', rate, ...sizes, cameras: ['top'], episodes: all };
}
