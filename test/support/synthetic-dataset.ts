import type { Dataset, Episode } from '../../model/data/dataset.ts';
import type { RunListener } from '../../model/training/prepare-run.ts';
import { type Preset, presetNamed } from '../../model/training/presets.ts';
import { normals } from './numbers.ts';

interface SyntheticSettings {
  episodes?: number;
  images?: boolean;
  language?: boolean;
  states?: boolean;
}

/** Episodes of smooth random motion with small random pictures, the same on every run. */
export function syntheticDataset({
  episodes = 4,
  images = true,
  language = true,
  states = true,
}: SyntheticSettings = {}): Dataset {
  const [length, actionDimension, stateDimension] = [12, 3, 2];
  const make = (index: number): Episode => {
    const steps = normals(length * actionDimension, 100 + index, 0.2);
    const actions = steps.map((_, i) =>
      steps.slice(0, i + 1).reduce((sum, value, k) => ((i - k) % actionDimension === 0 ? sum + value : sum), 0),
    );
    return {
      id: `synthetic-${index}`,
      length,
      actions,
      states: states ? normals(length * stateDimension, 200 + index) : null,
      instructions: language ? ['put the red cube in the blue bin', 'move the red cube to the blue bin'] : [],
      cameras: images ? ['front'] : [],
      async image(camera, step) {
        if (!images || camera !== 'front') return null;
        const pixels = Uint8Array.from(normals(16 * 16 * 3, 1000 * index + step), (value) =>
          Math.max(0, Math.min(255, 128 + 50 * value)),
        );
        return { width: 16, height: 16, pixels };
      },
    };
  };
  return {
    name: 'synthetic',
    rate: 4,
    actionDimension,
    stateDimension: states ? stateDimension : 0,
    cameras: images ? ['front'] : [],
    episodes: Array.from({ length: episodes }, (_, index) => make(index)),
  };
}

/** The data set with its numbers left on disk, so to say: they are there in loaded episodes alone. */
export function unloaded(dataset: Dataset): Dataset {
  const notLoaded = (): never => {
    throw new RangeError('the episode is not loaded');
  };
  const listed = (episode: Episode): Episode =>
    Object.defineProperties(
      { ...episode, load: async () => episode },
      {
        actions: { get: notLoaded },
        states: { get: notLoaded },
      },
    );
  return { ...dataset, episodes: dataset.episodes.map(listed) };
}

/** A model that trains a step in milliseconds. */
export const minutePreset: Preset = {
  ...presetNamed('nano'),
  name: 'tiny',
  description: 'for tests',
  fastVocabulary: 64,
  stateBins: 16,
  demonstrations: 1,
  steps: 6,
  batch: 2,
  learningRate: 1e-3,
  evaluateEvery: 100,
  saveEvery: 100,
  pretraining: { steps: 6, batch: 2, learningRate: 1e-3, warmUpSteps: 2, evaluateEvery: 3, saveEvery: 100 },
  heldOutSteps: 2,
  finalHeldOutSteps: 2,
};

/** A listener that only does what is given. */
export function quietListener(given: Partial<RunListener> = {}): RunListener {
  return { note() {}, compiled() {}, step() {}, heldOut() {}, acted() {}, saved() {}, openLoop() {}, ...given };
}
