import type { Folder } from '../../engine/bytes.ts';
import type { Dataset } from './dataset.ts';
import { openIndexedDataset } from './indexed-dataset.ts';

export { type Chunk, chooseHorizon, chunk } from './chunks.ts';
export type { Dataset, Episode, Image } from './dataset.ts';
export { decodeImage, ImageCache } from './image-files.ts';
export { normaliseImage, resizeWithPadding } from './images.ts';
export { openIndexedDataset } from './indexed-dataset.ts';
export { countSteps, type EpisodePart, wholeEpisodes } from './parts.ts';
export { evaluationSamples, type Sample, TrainingSampler } from './sampler.ts';
export { type Split, splitDataset } from './split.ts';
export {
  type ColumnStatistics,
  columnStatistics,
  type DatasetStatistics,
  datasetStatistics,
  Normaliser,
  normalisers,
  quantile,
  statisticsFromJson,
} from './statistics.ts';

/**
 * Opens the data set `name` of a data folder.
 *
 * @param folder a path (node), or any folder
 * @throws InputError with one line that says what is missing or damaged, and where
 */
export function openDataset(folder: string | Folder, name: string): Promise<Dataset> {
  return openIndexedDataset(folder, name);
}
