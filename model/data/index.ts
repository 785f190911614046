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

export { channelOrders } from './channels.ts';
export * from './chunks.ts';
export type * from './dataset.ts';
export * from './dataset-mixture.ts';
export { decodeImage, encodePng, ImageCache } from './image-files.ts';
export { imageTypeOf, isDepthImage } from './image-header.ts';
export * from './images.ts';
export * from './lerobot/writer.ts';
export * from './norm-stats.ts';
export * from './open-dataset.ts';
export { readParaphrases, withForms, withParaphrases } from './paraphrases.ts';
export {
  countSteps,
  type EpisodePart,
  episodeNamed,
  instructionsAt,
  loadEpisode,
  stateAt,
  wholeEpisodes,
} from './parts.ts';
export * from './robots.ts';
export * from './sampler.ts';
export * from './slots.ts';
export * from './split.ts';
export * from './statistics.ts';
export { fieldMapSchema, NoAction } from './store/mapping.ts';
