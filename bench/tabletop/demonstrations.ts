import type { Dataset } from '../../model/data/dataset.ts';
import { cached } from './cache.ts';
import type { Watched } from './episode-recorder.ts';
import { recordedDataset } from './recorded-dataset.ts';
import { type SceneSettings, simplePlacing } from './scene.ts';
import { inWorkers } from './workers.ts';

interface DemonstrationOptions extends Watched {
  readonly episodes: number;
  /** The seed that chooses the scenes: a whole number from 0; 0 by default. */
  readonly seed?: number;
  /** Kinds of scenes, which take turns; simple placing by default. */
  readonly scenes?: readonly SceneSettings[];
  /** The folder that keeps finished demonstrations; without it they are made again each time. */
  readonly cacheFolder?: string;
}

/**
 * Demonstrations of the scripted demonstrator in training scenes, with all their pictures in memory (about 0.3 MB an episode): the first
 * successful attempts. Worker threads make them, as many as there are cores. Node only.
 */
export async function demonstrations(options: DemonstrationOptions): Promise<Dataset> {
  const { episodes, seed = 0, scenes = [simplePlacing], cacheFolder } = options;
  const make = () => inWorkers('attempt', { seed, scenes }, episodes, options);
  if (cacheFolder === undefined) return recordedDataset(await make());
  return recordedDataset(await cached(cacheFolder, 'demonstrations', { episodes, seed, scenes }, make));
}
