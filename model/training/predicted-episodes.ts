import { InputError } from '../../engine/files/errors.ts';
import type { Dataset, Episode } from '../data/dataset.ts';
import { type EpisodePart, instructionsAt, loadEpisode, stateAt } from '../data/index.ts';
import type { Policy } from '../policy/policy.ts';
import { observationsAt } from './batches.ts';

/** Observations in one call of the policy. */
const BATCH = 16;

interface PredictionOptions {
  /** Chooses the noise. */
  readonly seed?: number;
  /** Called after every episode with the number done and the number in all. */
  readonly onProgress?: (done: number, total: number) => void;
}

/**
 * Parts of a data set's episodes with the policy's actions instead of the demonstrated ones. The policy predicts one
 * chunk after the other, each from the recorded observations up to its first control step (open loop). States, images and
 * instructions are the data set's; the cameras are those that every episode has.
 *
 * @throws InputError if the robots of the episodes have different action dimensions
 */
export async function predictedEpisodes(
  policy: Policy,
  dataset: Dataset,
  parts: readonly EpisodePart[],
  { seed, onProgress }: PredictionOptions = {},
): Promise<Dataset> {
  const { configuration } = policy.model;
  const { horizon } = configuration;
  const episodes: Episode[] = [];
  let dimension = 0;
  for (const [number, { episode: listed, from, to }] of parts.entries()) {
    const episode = await loadEpisode(listed);
    const part = { episode, from, to };
    const starts = Array.from({ length: Math.ceil((to - from) / horizon) }, (_, i) => from + i * horizon);
    const chunks: Float32Array[] = [];
    for (let first = 0; first < starts.length; first += BATCH) {
      const samples = starts
        .slice(first, first + BATCH)
        .map((step) => ({ part, step, instruction: instructionsAt(episode, step)[0] ?? null }));
      const { cameras } = policy.encoding.settings;
      const observations = await Promise.all(samples.map((sample) => observationsAt(sample, cameras, configuration)));
      chunks.push(...(await policy.actInWindows(observations.flat(), { seed, sample: number * 65536 + first })));
    }
    dimension ||= chunks[0].length / horizon;
    if (chunks[0].length !== horizon * dimension)
      throw new InputError(
        `episode "${episode.id}": its robot has ${chunks[0].length / horizon} action dimensions, the episodes before have ${dimension}: predict each robot by itself`,
      );
    const actions = new Float32Array(starts.length * horizon * dimension);
    chunks.forEach((chunk, i) => {
      actions.set(chunk, i * chunk.length);
    });
    const width = stateAt(episode, from)?.length ?? 0;
    episodes.push({
      id: episode.id,
      robot: episode.robot,
      length: to - from,
      actions: actions.slice(0, (to - from) * dimension),
      states: episode.states?.slice(from * width, to * width) ?? null,
      instructions: episode.instructions,
      ...(episode.instructionsAt && { instructionsAt: (step) => episode.instructionsAt!(from + step) }),
      cameras: episode.cameras,
      image: (camera: string, step: number) => listed.image(camera, from + step),
    });
    onProgress?.(number + 1, parts.length);
  }
  const { name, rate, actionNames, cameras } = dataset;
  return {
    name: `${name}, predicted`,
    rate,
    actionNames: actionNames?.length === dimension ? actionNames : undefined,
    actionDimension: dimension,
    stateDimension: (episodes[0]?.states?.length ?? 0) / (episodes[0]?.length ?? 1),
    cameras: cameras.filter((camera) => episodes.every((episode) => episode.cameras.includes(camera))),
    episodes,
  };
}
