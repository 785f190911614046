/** What claims compare, computed from the raw numbers of a finished run. */
import type { TrainedRun } from './saved.ts';

type Episode = TrainedRun['episodes'][number];

export interface Measure {
  readonly meaning: string;
  /** Rates are counted, so that they also have intervals over scenes. */
  readonly count?: (episode: Episode) => boolean;
  /** null if the run was not measured so. */
  of?(run: TrainedRun): number | null | undefined;
  /** Shares are shown in percent. Times are compared by their ratio. */
  readonly unit: 'share' | 'error' | 'time';
}

const relativeError = (own: { oneSample: number; bestConstant: number } | null) =>
  own && own.oneSample / own.bestConstant;

/** The mean of the error between the first measurement and the last, by the trapezoidal rule over `axis`, up to `end`. */
export function meanOver({ acting }: TrainedRun, axis: 'step' | 'seconds', end = Infinity): number | null {
  if (!acting || acting.length < 2) return null;
  let [area, length] = [0, 0];
  for (const [i, row] of acting.slice(1).entries()) {
    const [from, to] = [acting[i][axis], Math.min(row[axis], end)];
    if (to <= from) break;
    const [before, after] = [relativeError(acting[i])!, relativeError(row)!];
    const last = before + ((after - before) * (to - from)) / (row[axis] - from);
    area += ((before + last) / 2) * (to - from);
    length += to - from;
  }
  return length > 0 ? area / length : null;
}

const ERROR = 'root mean square error of a chunk on held-out observations, in that of the best constant chunk';
export const CHANGED = ['masked', 'table', 'background', 'light', 'distractors'] as const;
const meanOf = (values: readonly number[]) => values.reduce((sum, own) => sum + own, 0) / values.length;
const probeAt =
  (layer: number) =>
  ({ probes }: TrainedRun) =>
    probes &&
    meanOf(probes.trained.filter(({ question }) => question !== 'named').map(({ layers }) => layers.at(layer)!));

export const measures = {
  success: { unit: 'share', meaning: 'episodes that succeed', count: ({ success }) => success },
  'right object': {
    unit: 'share',
    meaning: 'episodes that succeed, or first lift the named object',
    count: (own) => own.rightObject,
  },
  'success, changed pictures': {
    unit: 'share',
    meaning: `episodes that succeed in scenes of ${CHANGED.join(', ')}`,
    count: (own) => own.success,
  },
  stages: {
    unit: 'share',
    meaning: 'mean share of the stages reached',
    of: ({ episodes }) => meanOf(episodes.map((own) => own.stageScore)),
  },
  'action error': { unit: 'error', meaning: ERROR, of: ({ openLoop }) => relativeError(openLoop) },
  'mean error': {
    unit: 'error',
    meaning: `${ERROR}; of a flow, of the mean of eight samples`,
    of: ({ openLoop }) => openLoop && (openLoop.meanOfSeveral ?? openLoop.oneSample) / openLoop.bestConstant,
  },
  'first error': {
    unit: 'error',
    meaning: `${ERROR}, at the first observation of episodes`,
    of: ({ firstChunks }) => relativeError(firstChunks),
  },
  'error over steps': {
    unit: 'error',
    meaning: `${ERROR}; mean over training steps`,
    of: (run) => meanOver(run, 'step'),
  },
  'error over seconds': {
    unit: 'error',
    meaning: `${ERROR}; mean over the seconds of training that both have, by a clock that other work on the machine slows`,
    of: (run) => meanOver(run, 'seconds'),
  },
  'flow loss': {
    unit: 'error',
    meaning: 'flow loss on held-out data, in that of the best constant velocity',
    of: ({ heldOut, baselines }) =>
      baselines.flow === undefined ? null : heldOut[heldOut.length - 1].losses.flow / baselines.flow,
  },
  'pointing kept': {
    unit: 'share',
    meaning: "objects that the start's model with the trained weights still places nearly right",
    of: ({ questions }) => questions.trained?.near,
  },
  malformed: {
    unit: 'share',
    meaning: 'decodes that end before their chunk is complete',
    of: ({ decodes }) => decodes && decodes.malformed / decodes.chunks,
  },
  'probe of the tower': {
    unit: 'share',
    meaning: 'mean accuracy of linear probes of colour and shape, before the first layer',
    of: probeAt(0),
  },
  'probe of the last layer': { unit: 'share', meaning: 'the same behind the last layer', of: probeAt(-1) },
  time: { meaning: 'median milliseconds; the difference relative to the second', unit: 'time' },
} as const satisfies Record<string, Measure>;
export type MeasureName = keyof typeof measures;
