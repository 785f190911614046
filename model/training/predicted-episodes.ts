import { InputError } from '../../engine/files/errors.ts';
import type { Dataset, Episode } from '../data/dataset.ts';
import { type EpisodePart, instructionsAt, loadEpisode, stateAt } from '../data/index.ts';
import type { Policy } from '../policy/policy.ts';
import { observationAt } from './batches.ts';

/** Observations answered at a time. */
const BATCH = 16;

export interface PredictionOptions {
  /** Chooses the noise. */
  readonly seed?: number;
  /** Called after every episode with the episodes done and to do. */
  readonly onProgress?: (done: number, total: number) => void;
}

/**
 * Parts of a data set's episodes with the policy's actions in place of the demonstrated ones: one chunk after the other,
 * each from what was seen at its first step (open loop: what was seen does not depend on what was predicted). States,
 * images and instructions are those of the data set; its cameras are those that every episode has.
 *
 * @throws InputError where the episodes are of robots of different dimensions
 */
export async function predictedEpisodes(
  policy: Policy,
  dataset: Dataset,
  parts: readonly EpisodePart[],
  { seed, onProgress }: PredictionOptions = {},
): Promise<Dataset> {
  const { horizon } = policy.model.configuration;
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
      const observations = await Promise.all(samples.map((sample) => observationAt(sample, cameras)));
      chunks.push(...(await policy.act(observations, { seed, sample: number * 65536 + first })));
    }
    dimension ||= chunks[0].length / horizon;
    if (chunks[0].length !== horizon * dimension)
      throw new InputError(
        `episode "${episode.id}" is of a robot of other dimensions than those before: predict each apart`,
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
