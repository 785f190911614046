/** Tokens to be predicted: the ids of target blocks, and what each row of the backbone is to predict. */
import { type BlockSettings, type ModelConfiguration, sourceOf } from '../architecture/configuration.ts';
import { type ObservationBatch, padIds, type TrainingBatch } from '../architecture/inputs.ts';
import { lastRowsBefore, rowsOf, trainingBlocks } from '../architecture/sequence.ts';

export interface Target {
  readonly block: BlockSettings;
  /** The ids of each example without the end of sequence; null for an example without this target. */
  readonly ids: readonly (ArrayLike<number> | null)[];
}

/**
 * The last real row before a target predicts its first token, each token the next, and the last the end of sequence. A truncated
 * target has no end of sequence: its last row predicts the first token that was cut off.
 */
export function targetTokens(
  configuration: ModelConfiguration,
  endOfSequence: number,
  observation: ObservationBatch,
  targets: readonly Target[],
): Pick<TrainingBatch, 'ids' | 'lossTarget' | 'lossMask'> {
  const blocks = trainingBlocks(configuration);
  const { of } = rowsOf(blocks, targets[0].block.name);
  const lossTarget = new Int32Array(observation.batch * of);
  const lossMask = new Uint8Array(observation.batch * of);
  const padded = targets.map(({ block, ids }) => {
    const { start } = rowsOf(blocks, block.name);
    const last = lastRowsBefore(configuration, observation, blocks, block);
    ids.forEach((own, sample) => {
      const predicted = own ? [...Array.from(own), endOfSequence].slice(0, block.length + 1) : [];
      predicted.forEach((id, i) => {
        const row = sample * of + (i === 0 ? last[sample] : start + i - 1);
        lossTarget[row] = id;
        lossMask[row] = 1;
      });
    });
    const sequences = ids.map((own) => Array.from(own ?? []).slice(0, block.length));
    return [sourceOf(block), padIds(sequences, block.length)];
  });
  return { ids: { ...observation.ids, ...Object.fromEntries(padded) }, lossTarget, lossMask };
}
