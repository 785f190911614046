/** Predictors that ignore the observation, fitted to the training data: the baselines that a model must beat. */
import type { ModelConfiguration } from '../architecture/configuration.ts';
import type { Reference } from '../architecture/objectives/index.ts';
import type { Episode, Image } from '../data/dataset.ts';
import type { Sample } from '../data/index.ts';
import { chunk, eachLoaded, stateAt } from '../data/index.ts';
import type { Encoding } from '../policy/encoding.ts';
import { saidAt } from './batches.ts';

/** Fitted to the training samples; the log-probabilities of ids have add-one smoothing. */
export async function fitBaselines(
  samples: readonly Sample[],
  encoding: Encoding,
  { horizon, vision }: Pick<ModelConfiguration, 'horizon' | 'vision'>,
): Promise<Reference> {
  let meanChunk: Float64Array | null = null;
  let counted: Float64Array | null = null;
  const camera = encoding.subtask?.settings.places ? encoding.settings.cameras[0] : undefined;
  const pictures = new WeakMap<Episode, Promise<Image | null>>();
  /** The first picture of an episode, of the size of all. */
  const pictureOf = (episode: Episode) => {
    if (camera !== undefined && !pictures.has(episode)) pictures.set(episode, episode.image(camera, 0));
    return pictures.get(episode);
  };
  const counts = encoding.actions || encoding.subtask ? new Float64Array(encoding.idCount) : null;
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
    const { subtask } = encoding;
    const said = subtask ? subtask.encode(saidAt(part.episode, step, await pictureOf(part.episode), { vision })) : [];
    const actions = encoding.actions ? encoding.actionTokens(values, horizon, robot) : [];
    for (const id of [...said, ...actions]) counts[id] += 1;
    if (subtask && encoding.actions) counts[subtask.introduction[0]] += 1;
    counts[encoding.endOfSequence] += 1;
  }
  if (!meanChunk || !counted) throw new RangeError('baselines need at least one training sample');
  const weights = counted;
  return {
    meanChunk: Float32Array.from(meanChunk, (sum, i) => sum / Math.max(1, weights[i])),
    unigram: counts && logProbabilities(counts, encoding),
  };
}

/** Add-one smoothing over the ids that robot data can have: action tokens, what is said before them, and the end of sequence. */
function logProbabilities(counts: Float64Array, encoding: Encoding): Float64Array {
  const { before, behind } = encoding.around;
  const said = new Set([...(encoding.subtask?.possible ?? []), ...before, ...behind]);
  const possible = (id: number) => encoding.isAction(id) || id === encoding.endOfSequence || said.has(id);
  const total = counts.reduce((sum, count, id) => sum + (possible(id) ? count + 1 : 0), 0);
  return counts.map((count, id) => (possible(id) ? Math.log((count + 1) / total) : Number.NEGATIVE_INFINITY));
}
