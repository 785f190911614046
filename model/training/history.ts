/** The measurements of a run so far, stored in the checkpoint and plotted in the report. Plain JSON. */
import * as v from 'valibot';
import { count, share } from '../../engine/files/json-schema.ts';

/** By the name of an objective. */
const byObjective = v.record(v.string(), v.number());

/** Shares of the episodes, and the mean share of the stages that were reached. */
const closedLoopRatesSchema = v.object({ success: share, rightObject: share, stageScore: share, episodes: count(1) });
export type ClosedLoopRates = Readonly<v.InferOutput<typeof closedLoopRatesSchema>>;

/** Rows of measurements, which follow one another. */
const rowsOf = <T extends { step: number }>(row: v.GenericSchema<unknown, T>) =>
  v.pipe(
    v.array(row),
    v.check(
      (rows) => rows.every(({ step }, i) => i === 0 || rows[i - 1].step <= step),
      'rows in the order of their steps',
    ),
  );
export const heldOutRow = v.object({ step: count(), losses: byObjective });

export const historySchema = v.object({
  training: rowsOf(v.object({ ...heldOutRow.entries, seconds: v.pipe(v.number(), v.minValue(0)) })),
  /** Training steps that changed nothing, because a loss or a gradient was not finite; they are not in `training`. */
  skipped: v.optional(v.array(count(1))),
  /** Losses on held-out robot data, and the losses of answers to held-out questions. */
  heldOut: rowsOf(heldOutRow),
  /** The L2 norm of the gradient of one objective on one group of parameters. */
  gradients: rowsOf(
    v.object({ step: count(), loss: v.string(), group: v.string(), norm: v.pipe(v.number(), v.minValue(0)) }),
  ),
  /** Acting between training steps: open loop on held-out observations and, in a world, a closed loop. */
  acting: v.optional(
    rowsOf(
      v.object({
        step: count(),
        /** Root mean square error of normalised actions: of one sample for each observation, and of the best constant chunk. */
        openLoop: v.object({ oneSample: v.number(), bestConstant: v.number() }),
        closedLoop: v.optional(closedLoopRatesSchema),
      }),
    ),
  ),
  /** Held-out losses of the predictors that ignore the observation. */
  baselines: byObjective,
});
export type RunHistory = v.InferOutput<typeof historySchema>;
export type ActingRow = NonNullable<RunHistory['acting']>[number];

/** The losses of one training step or measurement, by the names of the objectives that the system has. */
export type Losses = Readonly<Record<string, number>>;

export function emptyHistory(): RunHistory {
  return { training: [], heldOut: [], gradients: [], baselines: {} };
}

/** A line about the skipped steps, if there are any. */
export function skippedLines({ skipped = [] }: { readonly skipped?: readonly number[] }): string[] {
  if (skipped.length === 0) return [];
  const [first, last] = [skipped[0], skipped[skipped.length - 1]];
  const where = first === last ? `step ${first}` : `${skipped.length} of steps ${first} to ${last}`;
  return [`training steps skipped because a loss or a gradient was not finite: ${where}`];
}

/** Each loss divided by that of its baseline, for the objectives that have one. */
export function ratiosToBaselines(losses: Losses, baselines: Losses): Losses {
  const known = Object.entries(losses).filter(([name]) => baselines[name] !== undefined);
  return Object.fromEntries(known.map(([name, loss]) => [name, loss / baselines[name]]));
}
