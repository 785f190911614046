/** Baselines that a model must beat: predictors that ignore the observation. */
import type { Sample } from '../data/index.ts';
import { chunk, eachLoaded, stateAt } from '../data/index.ts';
import type { Encoding } from '../policy/encoding.ts';
import { isDemonstrated, type MadeBatch } from './batches.ts';

export interface Baselines {
  /** Mean normalised training chunk: the constant chunk of least mean squared error. */
  readonly meanChunk: Float32Array;
  /** Log-probability of each id by its frequency in the training chunks, with add-one smoothing; null without action tokens. */
  readonly unigram: Float64Array | null;
}

/** Fits the baselines to the training samples. */
export async function fitBaselines(
  samples: readonly Sample[],
  encoding: Encoding,
  horizon: number,
): Promise<Baselines> {
  let meanChunk: Float64Array | null = null;
  let counted: Float64Array | null = null;
  const counts = encoding.actions ? new Float64Array(encoding.vocabularySize) : null;
  for await (const { part, step } of eachLoaded(samples)) {
    const { data, valid } = chunk(part, step, horizon);
    const { robot } = part.episode;
    const values = encoding.normaliseActions(data, { robot, state: stateAt(part.episode, step) });
    const real = encoding.realDimensions(robot);
    meanChunk ??= new Float64Array(values.length);
    counted ??= new Float64Array(values.length);
    const dimension = values.length / horizon;
    for (let i = 0; i < values.length; i++) {
      const weight = valid[Math.floor(i / dimension)] * (real?.[i % dimension] ?? 1);
      meanChunk[i] += weight * values[i];
      counted[i] += weight;
    }
    if (!counts) continue;
    for (const id of encoding.actionTokens(values, horizon, robot)) counts[id] += 1;
    counts[encoding.endOfSequence] += 1;
  }
  if (!meanChunk || !counted) throw new RangeError('baselines need at least one training sample');
  const weights = counted;
  return {
    meanChunk: Float32Array.from(meanChunk, (sum, i) => sum / Math.max(1, weights[i])),
    unigram: counts && logProbabilities(counts, encoding),
  };
}

/** Add-one smoothing over the ids that robot data can have: action tokens and the end of sequence. */
function logProbabilities(counts: Float64Array, encoding: Encoding): Float64Array {
  const possible = (id: number) => encoding.isAction(id) || id === encoding.endOfSequence;
  const total = counts.reduce((sum, count, id) => sum + (possible(id) ? count + 1 : 0), 0);
  return counts.map((count, id) => (possible(id) ? Math.log((count + 1) / total) : Number.NEGATIVE_INFINITY));
}

/** Sums over a batch: the unigram loss over examples, and the squared error of the best constant velocity over `elements`. */
export function baselineSums(
  { meanChunk, unigram }: Baselines,
  batch: MadeBatch,
): { unigram: number; constantVelocity: number; elements: number } {
  const nll = unigram ? batch.targets.map((ids) => ids.reduce((sum, id) => sum - unigram[id], 0) / ids.length) : [];
  const size = meanChunk.length;
  let squares = 0;
  let elements = 0;
  batch.actions!.forEach((action, i) => {
    if (!isDemonstrated(batch, i)) return;
    // The best constant velocity is the mean of noise - action, and the mean of the noise is 0.
    squares += (batch.noise![i] - action + meanChunk[i % size]) ** 2;
    elements += 1;
  });
  return { unigram: nll.reduce((sum, value) => sum + value, 0), constantVelocity: squares, elements };
}
