/** The summary of a training run, for `insula train --json` and `summary.json`. */
import type { Evaluation } from '../bench/tabletop/evaluation.ts';
import type { KeptAnswers } from '../model/inspect/answers.ts';
import type { SwappedLosses } from '../model/inspect/swapped.ts';
import type { DecodeCounts } from '../model/policy/decodes.ts';
import { type Losses, ratiosToBaselines } from '../model/training/history.ts';
import { OPEN_LOOP_MEASURE, type OpenLoopError } from '../model/training/open-loop.ts';
import type { RunResult } from '../model/training/run.ts';
import type { RunSettings } from '../model/training/run-settings.ts';
import { describeScenes } from './scenes.ts';

export interface TrainSummary {
  settings: RunSettings;
  finished: boolean;
  step: number;
  /** The step at which this part of the run began; 0 for a new run. Times are those of this part. */
  resumedAt: number;
  checkpoint: string;
  report: string | null;
  adapter: string;
  /** Held-out losses by the name of the objective. */
  heldOut: Losses | null;
  /** Held-out loss divided by that of the baseline, which ignores the observation. */
  ratios: Losses;
  /** Numbers of training steps that changed nothing, because a loss or a gradient was not finite. */
  skipped: readonly number[];
  openLoop: OpenLoopSummary | null;
  /** Held-out losses with pictures or words of other examples, relative to those with their own. */
  swapped: SwappedLosses | null;
  /** Questions that the vision-language model answers from which the policy began; null if it began from none. */
  kept: KeptAnswers | null;
  /** Held-out questions of co-training, and how many of them were answered exactly. */
  answers: { questions: number; correct: number } | null;
  closedLoop: ClosedLoopSummary | null;
  seconds: Record<string, number>;
}

export interface OpenLoopSummary {
  measure: string;
  observations: number;
  oneSampleToConstant: number;
  /** null for a policy that draws no noise. */
  meanOfEightToConstant: number | null;
  /** null for a policy that acts by no tokens. */
  decodes: DecodeCounts | null;
}

export const openLoopSummary = (error: OpenLoopError): OpenLoopSummary => ({
  measure: OPEN_LOOP_MEASURE,
  observations: error.observations,
  oneSampleToConstant: error.oneSample / error.bestConstant,
  meanOfEightToConstant: error.meanOfSeveral === null ? null : error.meanOfSeveral / error.bestConstant,
  decodes: error.decodes,
});

export interface ClosedLoopSummary extends Omit<Evaluation, 'episodes'> {
  /** Tasks and variation. */
  scenes: string;
  measure: string;
  episodes: number;
}

export const closedLoopSummary = ({ episodes, ...rates }: Evaluation): ClosedLoopSummary => ({
  ...describeScenes(episodes.map(({ settings }) => settings)),
  ...rates,
  episodes: episodes.length,
});

export function summarise(
  { settings, finished, step, resumedAt, history, openLoop, answers }: RunResult,
  closedLoop: Evaluation | null,
  checkpoint: string,
  adapter: string,
  seconds: Record<string, number>,
  { swapped, kept }: Pick<TrainSummary, 'swapped' | 'kept'>,
): TrainSummary {
  const heldOut = history.heldOut.at(-1)?.losses ?? null;
  return {
    settings: settings.run,
    finished,
    step,
    resumedAt,
    checkpoint,
    report: null,
    adapter,
    heldOut,
    ratios: ratiosToBaselines(heldOut ?? {}, history.baselines),
    skipped: history.skipped ?? [],
    openLoop: openLoop && openLoopSummary(openLoop.error),
    ...{ swapped, kept },
    answers: answers && {
      questions: answers.length,
      correct: answers.filter(({ answer, predicted }) => answer === predicted).length,
    },
    closedLoop: closedLoop && closedLoopSummary(closedLoop),
    seconds,
  };
}
