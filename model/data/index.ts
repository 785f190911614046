export { type Chunk, chooseHorizon, chunk } from './chunks.ts';
export type { Dataset, Episode, Image } from './dataset.ts';
export { decodeImage, ImageCache } from './image-files.ts';
export { normaliseImage, resizeWithPadding } from './images.ts';
export { openIndexedDataset } from './indexed-dataset.ts';
export { type LeRobotWriteOptions, leRobotFiles, writeLeRobot } from './lerobot/writer.ts';
export { type DatasetOptions, openDataset } from './open-dataset.ts';
export { countSteps, type EpisodePart, loadEpisode, wholeEpisodes } from './parts.ts';
export { evaluationSamples, type Sample, TrainingSampler } from './sampler.ts';
export { type Split, splitDataset } from './split.ts';
export {
  type ColumnStatistics,
  columnStatistics,
  type DatasetStatistics,
  datasetStatistics,
  measureStatistics,
  Normaliser,
  normalisers,
  statisticsFromJson,
} from './statistics.ts';
