/** The measurements of a run so far, stored in the checkpoint and plotted in the report. Plain JSON. */
import * as v from 'valibot';
import { count } from '../../engine/files/json-schema.ts';

const loss = v.optional(v.number());

export const historySchema = v.object({
  training: v.array(
    v.object({ step: count(), tokenLoss: loss, flowLoss: loss, seconds: v.pipe(v.number(), v.minValue(0)) }),
  ),
  /** Held-out losses: tokenLoss and flowLoss on robot data, answerLoss on vision-language examples. */
  heldOut: v.array(v.object({ step: count(), tokenLoss: loss, flowLoss: loss, answerLoss: loss })),
  gradients: v.array(
    v.object({
      step: count(),
      loss: v.picklist(['token', 'flow']),
      group: v.string(),
      norm: v.pipe(v.number(), v.minValue(0)),
    }),
  ),
  baselines: v.object({ unigram: loss, constantVelocity: loss }),
});
export type RunHistory = v.InferOutput<typeof historySchema>;

export function emptyHistory(): RunHistory {
  return { training: [], heldOut: [], gradients: [], baselines: {} };
}
