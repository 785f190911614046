/** Tokens to be predicted: the ids of target blocks, and what each row of the backbone is to predict. */
import { type BlockSettings, type ModelConfiguration, sourceOf } from '../architecture/configuration.ts';
import { type ObservationBatch, padIds, type TrainingBatch } from '../architecture/inputs.ts';
import { lastRowsBefore, rowsOf, trainingBlocks } from '../architecture/sequence.ts';

/** The tokens of one example in a target block, without the end of sequence. */
export interface TargetIds {
  /** The ids that its rows hold. */
  readonly ids: readonly number[];
  /** The ids to be predicted; by default those of its rows. */
  readonly predicted?: readonly number[];
  /** So many of the first ids are always the same and have no loss, except as the end of the target before. */
  readonly fixed?: number;
}

export interface Target {
  readonly block: BlockSettings;
  /** null for an example without this target. */
  readonly examples: readonly (TargetIds | null)[];
}

/**
 * The last real row before a target predicts its first token, each token the next, and the last the end of sequence, or the first fixed
 * token of the target that follows. A truncated target has no end: its last row predicts the first token that was cut off.
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
  let ids = observation.ids;
  for (const [number, { block, examples }] of targets.entries()) {
    const { start } = rowsOf(blocks, block.name);
    const sequences = examples.map((own) => (own?.ids ?? []).slice(0, block.length));
    const last = lastRowsBefore(configuration, { ...observation, ids }, blocks, block);
    ids = { ...ids, [sourceOf(block)]: padIds(sequences, block.length) };
    examples.forEach((own, sample) => {
      if (!own) return;
      const { fixed = 0, predicted = own.ids } = own;
      [...predicted, endOfSequence].slice(0, block.length + 1).forEach((id, i) => {
        const row = sample * of + (i === 0 ? last[sample] : start + i - 1);
        const isEnd = i === 0 && lossMask[row] > 0;
        if (i < fixed && !isEnd) return;
        lossTarget[row] = id;
        if (!isEnd || fixed === 0) lossMask[row] = number + 1;
      });
    });
  }
  return { ids, lossTarget, lossMask };
}
