/** The measures that claims compare, computed from the raw numbers of a finished run. */
import type { TrainedRun } from './saved.ts';
import { meanOf } from './statistics.ts';

type Episode = TrainedRun['episodes'][number];

export interface Measure {
  /** In words, with the fields of a run's JSON that it is computed from. */
  readonly meaning: string;
  /** Rates are counted, so that they also have intervals over scenes. */
  readonly count?: (episode: Episode) => boolean;
  /** null if the run was not measured so. */
  of?(run: TrainedRun): number | null | undefined;
  /** Shares are shown in percent, errors in those of the best constant. Times are compared by their ratio. */
  readonly unit: 'share' | 'error' | 'time';
  /** An error of one sampled chunk, or of a mean, which leaves no room for a difference where both arms act blindly. */
  readonly blind?: 'sample' | 'mean';
}

const relativeError = (own: { oneSample: number; bestConstant: number } | null) =>
  own && own.oneSample / own.bestConstant;

const relativeMean = (own: { oneSample: number; meanOfSeveral: number | null; bestConstant: number } | null) =>
  own && (own.meanOfSeveral ?? own.oneSample) / own.bestConstant;

/** The mean of the error over the training steps between the first measurement and the last, by the trapezoidal rule. */
export function meanOverSteps({ acting }: TrainedRun): number | null {
  if (!acting || acting.length < 2) return null;
  const areas = acting.slice(1).map((row, i) => {
    const [before, after] = [relativeError(acting[i])!, relativeError(row)!];
    return ((before + after) / 2) * (row.step - acting[i].step);
  });
  return areas.reduce((sum, own) => sum + own, 0) / (acting[acting.length - 1].step - acting[0].step);
}

const ERROR = 'root mean square error of chunks on held-out observations, in that of the best constant chunk';
export const CHANGED = ['masked', 'table', 'background', 'light', 'distractors'] as const;
const probeAt =
  (layer: number) =>
  ({ probes }: TrainedRun) =>
    probes &&
    meanOf(probes.trained.filter(({ question }) => question !== 'named').map(({ layers }) => layers.at(layer)!));

export const measures = {
  success: {
    unit: 'share',
    meaning: 'episodes that succeed (episodes.success; others.NAME for other scenes)',
    count: ({ success }) => success,
  },
  'right object': {
    unit: 'share',
    meaning: 'episodes that succeed, or first lift the named object (episodes.rightObject)',
    count: (own) => own.rightObject,
  },
  'success, changed pictures': {
    unit: 'share',
    meaning: `episodes that succeed in scenes of ${CHANGED.join(', ')} (others.NAME.success, all together)`,
    count: (own) => own.success,
  },
  stages: {
    unit: 'share',
    meaning: 'mean share of the stages reached (episodes.stageScore)',
    of: ({ episodes }) => meanOf(episodes.map((own) => own.stageScore)),
  },
  'action error': {
    ...{ unit: 'error', blind: 'sample' },
    meaning: `${ERROR}; of one sample (openLoop.oneSample / openLoop.bestConstant)`,
    of: ({ openLoop }) => relativeError(openLoop),
  },
  'mean error': {
    ...{ unit: 'error', blind: 'mean' },
    meaning: `${ERROR}; of a flow, of the mean of eight samples (openLoop.meanOfSeveral, else oneSample, / openLoop.bestConstant)`,
    of: ({ openLoop }) => relativeMean(openLoop),
  },
  'first error': {
    ...{ unit: 'error', blind: 'mean' },
    meaning: `${ERROR}, at the first observation of episodes; of a flow, of the mean of eight samples (the same of firstChunks)`,
    of: ({ firstChunks }) => relativeMean(firstChunks),
  },
  'error over steps': {
    ...{ unit: 'error', blind: 'sample' },
    meaning: `${ERROR}; of one sample, mean over training steps from the first measurement on (acting.oneSample / acting.bestConstant, by the trapezoidal rule)`,
    of: meanOverSteps,
  },
  'flow loss': {
    unit: 'error',
    meaning:
      'flow loss on held-out data, in that of the best constant velocity (the last of heldOut.losses.flow / baselines.flow)',
    of: ({ heldOut, baselines }) =>
      baselines.flow === undefined ? null : heldOut[heldOut.length - 1].losses.flow / baselines.flow,
  },
  'pointing kept': {
    unit: 'share',
    meaning:
      "objects that the start's model with the trained weights places within 4 of 64 pixels, of all; 89.9 % before training (questions.trained.near)",
    of: ({ questions }) => questions.trained?.near,
  },
  malformed: {
    unit: 'share',
    meaning: 'decodes that end before their chunk is complete (decodes.malformed / decodes.chunks)',
    of: ({ decodes }) => decodes && decodes.malformed / decodes.chunks,
  },
  'probe of the tower': {
    unit: 'share',
    meaning:
      'mean accuracy of linear probes of colour and shape, before the first layer (the mean of probes.trained.layers[0] over the questions but "named")',
    of: probeAt(0),
  },
  'probe of the last layer': {
    unit: 'share',
    meaning: 'the same behind the last layer (the last of layers)',
    of: probeAt(-1),
  },
  time: { meaning: 'median milliseconds of a run (rows.times); the difference relative to the second', unit: 'time' },
} as const satisfies Record<string, Measure>;
export type MeasureName = keyof typeof measures;
