/** The actions for `insula tokenize`, and the options that choose them. */
import type { Dataset } from '../model/data/index.ts';
import { chooseDataset, type DataChoice, dataOptions } from './data.ts';
import { number, seedNumber, text } from './options.ts';
import type { Progress } from './progress.ts';

/** Episodes of the built-in world if no data set is named. */
const WORLD_EPISODES = 50;

export const actionOptions = {
  ...dataOptions,
  horizon: number('control steps in a chunk; one second by default', 1),
};
export const sceneOptions = {
  seed: seedNumber('chooses the scenes of the built-in world; 0 by default', { excludes: 'data' }),
};
export const tokenizerOption = text(
  'file of insula tokenize fit, or folder with tokenizer.json and processor_config.json',
);

/** The actions of a data set, without its images. */
export const openActions = (
  { data, dataset, rate, map, seed = 0 }: DataChoice & { readonly seed?: number },
  progress: Progress,
): Promise<Dataset> =>
  chooseDataset({ data, dataset, rate, map, cameras: data ? [] : null }, { episodes: WORLD_EPISODES, seed }, progress);
