/** Open-loop error: the distance of predicted chunks from the demonstrated ones, on held-out observations. */
import { lastSteps } from '../architecture/configuration.ts';
import { actingObjective, isReal } from '../architecture/objectives/index.ts';
import type { Sample } from '../data/index.ts';
import { type DecodeCounts, Decodes } from '../policy/decodes.ts';
import type { Policy } from '../policy/policy.ts';
import { type BatchMaker, chunkOf, type MadeBatch } from './batches.ts';

export interface OpenLoopError {
  readonly observations: number;
  /**
   * Root mean square error, over real steps of normalised actions, of one sample, the mean (null if one was drawn), and the best constant
   * chunk.
   */
  readonly oneSample: number;
  readonly meanOfSeveral: number | null;
  readonly bestConstant: number;
  /** Action tokens that were decoded; null for a policy that acts by none. */
  readonly decodes: DecodeCounts | null;
  /** Normalised chunks by observation: one sample, and the mean of several, if several were drawn. */
  readonly chunks: readonly { readonly predicted: Float32Array; readonly mean: Float32Array | null }[];
}

const OPEN_LOOP_SAMPLES = 8;
interface OpenLoopOptions {
  readonly most?: number;
  readonly onProgress?: (done: number, total: number) => void;
  readonly signal?: AbortSignal;
}

export const OPEN_LOOP_MEASURE = 'root mean square error, normalised actions';

export interface OpenLoop {
  readonly error: OpenLoopError;
  readonly batches: readonly MadeBatch[];
}

/**
 * Samples `most` chunks (one of a policy that draws no noise) for each control step, in batches of `size`, and compares them with the
 * demonstrated ones.
 * Throws the reason of `signal` once it is aborted.
 */
export async function openLoopOf(
  policy: Policy,
  maker: BatchMaker,
  controlSteps: readonly Sample[],
  size: number,
  meanChunk: Float32Array,
  { most = OPEN_LOOP_SAMPLES, onProgress, signal }: OpenLoopOptions = {},
): Promise<OpenLoop> {
  const batches: MadeBatch[] = [];
  for (let start = 0; start < controlSteps.length; start += size)
    batches.push(await maker.make(controlSteps.slice(start, start + size), start));
  // Without noise all samples are the same.
  const samples = actingObjective(policy.model.objectives)?.draw ? most : 1;
  const sums = { oneSample: 0, meanOfSeveral: 0, bestConstant: 0, elements: 0 };
  const decodes = new Decodes();
  const onDecoded = (complete: readonly boolean[]) => decodes.add(complete);
  const chunks: OpenLoopError['chunks'][number][] = [];
  for (const [index, batch] of batches.entries()) {
    const steps = lastSteps(policy.model.configuration, batch.batch);
    const means = steps.map(() => new Float64Array(meanChunk.length));
    let first: Float32Array[] = [];
    for (let sample = 0; sample < samples; sample++) {
      signal?.throwIfAborted();
      const sampled = await policy.actNormalised(batch.observations, { seed: index, sample, onDecoded });
      if (sample === 0) first = sampled;
      sampled.forEach((chunk, i) => {
        chunk.forEach((value, k) => {
          means[i][k] += value / samples;
        });
      });
      onProgress?.(index * samples + sample + 1, batches.length * samples);
    }
    first.forEach((predicted, i) => {
      chunkOf(batch, steps[i]).forEach((value, k) => {
        if (!isReal(batch, steps[i] * predicted.length + k)) return;
        sums.oneSample += (predicted[k] - value) ** 2;
        sums.meanOfSeveral += (means[i][k] - value) ** 2;
        sums.bestConstant += (meanChunk[k] - value) ** 2;
        sums.elements += 1;
      });
      chunks.push({ predicted, mean: samples > 1 ? Float32Array.from(means[i]) : null });
    });
  }
  const root = (sum: number) => Math.sqrt(sum / Math.max(1, sums.elements));
  const error = {
    observations: chunks.length,
    oneSample: root(sums.oneSample),
    meanOfSeveral: samples > 1 ? root(sums.meanOfSeveral) : null,
    bestConstant: root(sums.bestConstant),
    decodes: decodes.counts,
    chunks,
  };
  return { error, batches };
}
