import { bytesPerElement, type DataType } from '../engine/index.ts';
import { type AttentionOptions, rowsOf } from './attention-call.ts';
import { fillPlan } from './attention-fill.ts';
import {
  type Plan,
  type PlanExpression,
  type PlanRequest,
  type PlanWork,
  planForm,
  TILE_OF_PAIR,
} from './attention-plan.ts';
import type { Tile } from './attention-tiles.ts';
import type { AttentionEntry, AttentionSizes, Launch } from './attention-variants.ts';

/** A call of attention, as far as its cost goes. */
export interface AttentionProblem
  extends Pick<AttentionSizes, 'batch' | 'heads' | 'kvHeads' | 'headDimension'>,
    Pick<AttentionOptions, 'table' | 'queries' | 'lossBlocks'> {
  readonly dtype?: DataType;
  readonly validity?: ArrayLike<number>;
  readonly expression?: PlanExpression;
  /** Which operands want a gradient; default all. */
  readonly wants?: PlanRequest['wants'];
}

export type Cost = Readonly<Record<'flops' | 'bytes', number>>;

export interface AttentionCost {
  readonly forward: Cost;
  readonly backward: Cost;
  /** Pairs of tokens in live tile pairs, one head, whole batch. */
  readonly work: PlanWork;
}

const ALL = { query: true, key: true, value: true };

/** The plan of a call. */
export function planOf(problem: AttentionProblem): Plan {
  const { table, batch, validity = null, expression, wants = ALL } = problem;
  const { queryRows, lossBlocks } = rowsOf(problem);
  return fillPlan(planForm(table, batch, queryRows), {
    ...{ validity, lossBlocks, wants },
    expression: expression && { source: {}, samples: expression.samples, allowedPairs: expression.allowedPairs },
  });
}

/**
 * FLOPs and bytes that a call needs, as benchmarks of attention state them: FLOPs of the products alone, backward's with S and dP made
 * once for all gradients, whatever the variant, and as if no workgroups shared a list.
 */
export function attentionCost(problem: AttentionProblem, plan = planOf(problem)): AttentionCost {
  const { table, batch, heads, kvHeads, headDimension, dtype = 'f32', wants = ALL } = problem;
  const { queryRows } = rowsOf(problem);
  const queryTokens = queryRows.reduce((sum, { rows }) => sum + rows, 0);
  const sizes = { batch, queryTokens, keyTokens: table.layout.keyTokens, heads, kvHeads, headDimension };
  const uniform = { wantsQuery: Number(wants.query), wantsKeyValue: Number(wants.key || wants.value) };
  const of = (entry: Launch['entry']) => {
    const launch = { entry, uniform, splits: 1, slices: false };
    const { bytes } = attentionEntryCost(launch, sizes, dtype, plan);
    return { flops: heads * productFlops(launch, headDimension, plan.work), bytes };
  };
  const backward = of('backward');
  const delta = attentionDeltaCost(sizes, dtype, plan);
  return {
    forward: of('forward'),
    backward: { ...backward, bytes: delta.bytes + backward.bytes },
    work: plan.work,
  };
}

type LaunchCost = Pick<Launch, 'entry' | 'uniform' | 'splits' | 'slices'>;

/**
 * The pairs of tokens of each product of `backward`, for the gradients that it makes. What reaches a key or a value is part of what a
 * query's gradient takes, so that S and dP take the longer list.
 */
function workTogether({ wantsQuery, wantsKeyValue }: LaunchCost['uniform'], work: PlanWork) {
  const dQuery = wantsQuery * work.dQuery;
  const [dKeyValue, dKey, dValue] = [work.dKeyValue, work.dKey, work.dValue].map((pairs) => wantsKeyValue * pairs);
  return { dQuery, dKey, dValue, scores: Math.max(dQuery, dKeyValue), dWeights: Math.max(dQuery, dKey) };
}

/**
 * The FLOPs of the products, for one head. A pair of tokens takes 2 products of 2 D FLOPs forward and 3 for dq (S, dP, dq).
 * For dk and dv it takes S, dP and dk if gradient reaches K, S and dv if it reaches V: 4 products, 3 or 2; and all together 5.
 */
function productFlops({ entry, uniform }: LaunchCost, headDimension: number, work: PlanWork): number {
  const { forward, dQuery, dKeyValue, dKey, dValue } = work;
  const all = workTogether(uniform, work);
  const products = {
    forward: 2 * forward,
    backward: all.scores + all.dWeights + all.dQuery + all.dKey + all.dValue,
    backwardQuery: 3 * dQuery,
    backwardKeyValue: dKeyValue + 2 * dKey + dValue,
  };
  return 2 * headDimension * products[entry];
}

/**
 * The FLOPs of everything else, for one head. Forward: a factor, a maximum, a difference, an exponential and a sum. Backward:
 * a factor, a difference and an exponential for P, and a difference and two factors for dS; together also the factors of gradients.
 */
function softmaxFlops({ entry, uniform }: LaunchCost, work: PlanWork): number {
  const { forward, dQuery, dKeyValue, dKey } = work;
  const all = workTogether(uniform, work);
  return {
    forward: 5 * forward,
    backward: 3 * all.scores + 3 * all.dWeights + all.dKey + all.dValue,
    backwardQuery: 6 * dQuery,
    backwardKeyValue: 3 * dKeyValue + 3 * dKey,
  }[entry];
}

/**
 * FLOPs and bytes of one kernel: of live tile pairs, masked scores included; each row of an operand that a list reaches is read once,
 * results are written once, in each of `splits` parts as f32 where workgroups share lists.
 */
export function attentionEntryCost(
  launch: LaunchCost,
  { batch, queryTokens, keyTokens, heads, kvHeads, headDimension }: AttentionSizes,
  dtype: DataType,
  plan: Plan,
): Cost {
  const { entry, splits, slices, uniform } = launch;
  const { queries, keys, bytes: planBytes } = reachOf(plan)[entry === 'backward' ? 'backwardQuery' : entry];
  const stored = bytesPerElement[dtype];
  const [row, kvRow] = [heads * headDimension, kvHeads * headDimension];
  // A backward kernel also reads dOutput, in f32, and (L, delta).
  const queryBytes = entry === 'forward' ? stored * row : (stored + 4) * row + 8 * heads;
  const dQuery = batch * queryTokens * 4 * row;
  const dKeyValue = splits * batch * keyTokens * 8 * kvRow;
  const result = {
    forward: splits * batch * queryTokens * ((slices ? 4 : stored) * row + 4 * heads),
    backward: uniform.wantsQuery * dQuery + uniform.wantsKeyValue * dKeyValue,
    backwardQuery: splits * dQuery,
    backwardKeyValue: dKeyValue,
  }[entry];
  return {
    flops: heads * (productFlops(launch, headDimension, plan.work) + softmaxFlops(launch, plan.work)),
    bytes: planBytes + queries * queryBytes + keys * 2 * stored * kvRow + result,
  };
}

/** FLOPs and bytes of the statistics that backward kernels read: of the query rows that a gradient takes. */
export function attentionDeltaCost({ heads, headDimension }: AttentionSizes, dtype: DataType, plan: Plan): Cost {
  const rows = reachOf(plan).backwardQuery.queries * heads;
  return { flops: 2 * rows * headDimension, bytes: rows * ((bytesPerElement[dtype] + 4) * headDimension + 12) };
}

/** The reach of a list of the plan: rows of queries and of keys over the batch, and the words of the plan that say so. */
type Reach = Readonly<Record<'queries' | 'keys' | 'bytes', number>>;

const reaches = new WeakMap<Plan, Readonly<Record<AttentionEntry, Reach>>>();

function reachOf(plan: Plan): Readonly<Record<AttentionEntry, Reach>> {
  const { queryTiles, keyTiles, places } = plan.form;
  const known = reaches.get(plan) ?? {
    forward: reachOfList(plan, places.forwardAt, queryTiles, keyTiles, 'queries', 'keys'),
    backwardQuery: reachOfList(plan, places.dQueryAt, queryTiles, keyTiles, 'queries', 'keys'),
    backwardKeyValue: reachOfList(plan, places.dKeyValueAt, keyTiles, queryTiles, 'keys', 'queries'),
  };
  reaches.set(plan, known);
  return known;
}

function reachOfList(
  { form: { batch }, words }: Plan,
  at: number,
  tiles: readonly Tile[],
  otherTiles: readonly Tile[],
  own: 'queries' | 'keys',
  other: 'queries' | 'keys',
): Reach {
  const reach = { queries: 0, keys: 0, bytes: 0 };
  for (let sample = 0; sample < batch; sample++) {
    const reached = new Uint8Array(otherTiles.length);
    tiles.forEach(({ rows }, tile) => {
      const list = at + 2 * (sample * tiles.length + tile);
      const [start, pairs] = [words[list], words[list + 1]];
      if (pairs > 0) reach[own] += rows;
      reach.bytes += 8 * pairs;
      for (let pair = 0; pair < pairs; pair++) reached[words[start + 2 * pair] & TILE_OF_PAIR] = 1;
    });
    // A tile is four words, and begins a list of two.
    reach.bytes += 24 * tiles.length;
    otherTiles.forEach(({ rows }, tile) => {
      reach[other] += reached[tile] * rows;
      reach.bytes += reached[tile] * 16;
    });
  }
  return reach;
}
