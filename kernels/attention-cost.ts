import { bytesPerElement, type DataType, type Device } from '../engine/index.ts';
import { type AttentionOptions, rowsOf } from './attention-call.ts';
import { fillPlan, type PlanExpression, type PlanRequest, type PlanWork, planForm } from './attention-plan.ts';
import type { AttentionTable } from './attention-table.ts';
import { type AttentionEntry, attentionEntries, attentionLaunch } from './attention-variants.ts';

/** A call of attention, as far as its cost goes. */
export interface AttentionProblem {
  readonly table: AttentionTable;
  readonly batch: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDimension: number;
  readonly dtype?: DataType;
  readonly validity?: ArrayLike<number>;
  readonly queries?: AttentionOptions['queries'];
  readonly lossBlocks?: readonly string[];
  readonly expression?: PlanExpression;
  /** Which operands want a gradient; default all. */
  readonly wants?: PlanRequest['wants'];
}

export interface Cost {
  readonly flops: number;
  readonly bytes: number;
}

export interface AttentionCost {
  readonly forward: Cost;
  readonly backward: Cost;
  /** Pairs of tokens in live tile pairs, one head, whole batch. */
  readonly work: PlanWork;
}

/**
 * FLOPs of live work, and bytes that move if each operand of a kernel is read or written once.
 *
 * A pair of tokens costs each head 2 products of 2 D FLOPs forward and 3 for dq (S, dP, dq). For dk and dv it costs S, dP and dk if
 * gradient reaches K, S and dv if it reaches V: 4 products, 3 or 2.
 */
export function attentionCost(problem: AttentionProblem): AttentionCost {
  const { table, batch, heads, kvHeads, headDimension, dtype = 'f32', validity = null, expression } = problem;
  const { wants = { query: true, key: true, value: true } } = problem;
  const { queryRows, lossBlocks } = rowsOf(problem);
  const { work } = fillPlan(planForm(table, batch, queryRows), {
    ...{ validity, lossBlocks, wants },
    expression: expression && { source: {}, samples: expression.samples, allowedPairs: expression.allowedPairs },
  });
  const product = 2 * headDimension * heads;
  const rows = queryRows.reduce((sum, { rows }) => sum + rows, 0);
  const query = batch * rows * heads * headDimension;
  const keyAndValue = 2 * batch * table.layout.length * kvHeads * headDimension;
  const stored = bytesPerElement[dtype];
  const statistics = 4 * batch * rows * heads;
  const delta = stored * query + 4 * query + 3 * statistics;
  const read = stored * (query + keyAndValue) + 4 * query + 2 * statistics;
  const dQuery = wants.query ? read + 4 * query : 0;
  const dKeyValue = wants.key || wants.value ? read + 4 * keyAndValue : 0;
  return {
    forward: { flops: 2 * product * work.forward, bytes: stored * (2 * query + keyAndValue) + statistics },
    backward: {
      flops: product * (3 * work.dQuery + work.dKeyValue + 2 * work.dKey + work.dValue),
      bytes: delta + dQuery + dKeyValue,
    },
    work,
  };
}

/** Workgroups of each kernel, with the variants that the device has in use. */
export function attentionWorkgroups(device: Device, problem: AttentionProblem): Record<AttentionEntry, number> {
  const { table, batch, heads, kvHeads, headDimension, dtype = 'f32' } = problem;
  const { queryRows } = rowsOf(problem);
  const form = planForm(table, batch, queryRows);
  const queryTokens = queryRows.reduce((sum, { rows }) => sum + rows, 0);
  const sizes = { batch, queryTokens, keyTokens: table.layout.length, heads, kvHeads, headDimension };
  const count = (entry: AttentionEntry) =>
    attentionLaunch(device, { entry, dtype, headDimension }, sizes, form).workgroups.reduce((a, b) => a * b);
  return Object.fromEntries(attentionEntries.map((entry) => [entry, count(entry)])) as Record<AttentionEntry, number>;
}
