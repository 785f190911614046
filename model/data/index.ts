/**
 * Robot data: data sets of several formats, opened as episodes, and what training makes of them.
 *
 * ```ts
 * import { writeFile } from 'node:fs/promises';
 * import { measureStatistics, openDataset, toNormStats, wholeEpisodes, writeLeRobot } from './model/data/index.ts';
 *
 * const dataset = await openDataset('FOLDER', 'bridge', { cameras: [] });
 * console.log(dataset.description, dataset.episodes[0].instructions);
 * await writeLeRobot('bridge-lerobot', dataset, { robot: 'widowx' });
 * const statistics = await measureStatistics(wholeEpisodes(dataset.episodes));
 * await writeFile('norm_stats.json', JSON.stringify(toNormStats(statistics))); // for openpi's assets, or --statistics
 * ```
 */

export { type Augmentation, augment, augmentation, colourAugmentation } from './augmentation.ts';
export { type ActionChunk, chooseHorizon, chunk } from './chunks.ts';
export type { Dataset, Episode, Image, Slot, SlotMap } from './dataset.ts';
export {
  checkMixable,
  type DatasetGroup,
  DatasetMixture,
  type ExampleSource,
  MIXTURE_EXPONENT,
} from './dataset-mixture.ts';
export { shuffledEpochs } from './epochs.ts';
export { decodeImage, encodePng, ImageCache, imageTypeOf } from './image-files.ts';
export {
  type ImageQuestion,
  type ImageSplit,
  imageQuestions,
  type QuestionedImage,
  splitImages,
} from './image-questions.ts';
export { normaliseImage, resizeWithPadding, shareBeforePadding, shareWithPadding } from './images.ts';
export { openIndexedDataset } from './indexed-dataset.ts';
export { expectNoLeRobot, type LeRobotWriteOptions, leRobotFiles, writeLeRobot } from './lerobot/writer.ts';
export { type NamedImage, namedQuestions, openNamedImages } from './named-images.ts';
export { checkStatistics, fromNormStats, toNormStats, withoutPadding } from './norm-stats.ts';
export { type DatasetOptions, openDataFile, openDataset } from './open-dataset.ts';
export { readParaphrases, withParaphrases } from './paraphrases.ts';
export {
  countSteps,
  type EpisodePart,
  episodeNamed,
  instructionsAt,
  loadEpisode,
  stateAt,
  wholeEpisodes,
} from './parts.ts';
export { openQuestionFile } from './question-file.ts';
export { relativeChunks } from './relative-statistics.ts';
export { mixDatasets, type RobotData } from './robots.ts';
export {
  type Example,
  eachLoaded,
  evaluationSamples,
  loadExamples,
  type Sample,
  TrainingSampler,
  type VisionLanguage,
} from './sampler.ts';
export {
  absoluteActions,
  checkSlotMap,
  fromSlots,
  ownSlotMap,
  relativeActions,
  slotMapNamed,
  slotMaps,
  slotMask,
  toSlots,
} from './slots.ts';
export { type Split, splitDataset } from './split.ts';
export {
  type ColumnStatistics,
  columnStatistics,
  type DatasetStatistics,
  datasetStatistics,
  measureStatistics,
  NORMALISED_BOUND,
  Normaliser,
  normalisers,
  RANGE_FLOOR,
  statisticsFromJson,
  statisticsSchema,
} from './statistics.ts';
