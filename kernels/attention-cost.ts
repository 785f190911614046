import { bytesPerElement, type DataType, type Device } from '../engine/index.ts';
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
import type { AttentionTable } from './attention-table.ts';
import type { Tile } from './attention-tiles.ts';
import { type AttentionEntry, type AttentionSizes, attentionEntries, attentionLaunch } from './attention-variants.ts';

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
 * FLOPs and bytes of the kernels of a call, as benchmarks of attention state them: FLOPs of the products alone, and as if no workgroups
 * shared a list.
 */
export function attentionCost(problem: AttentionProblem): AttentionCost {
  const { table, batch, heads, kvHeads, headDimension, dtype = 'f32', validity = null, expression } = problem;
  const { wants = { query: true, key: true, value: true } } = problem;
  const { queryRows, lossBlocks } = rowsOf(problem);
  const plan = fillPlan(planForm(table, batch, queryRows), {
    ...{ validity, lossBlocks, wants },
    expression: expression && { source: {}, samples: expression.samples, allowedPairs: expression.allowedPairs },
  });
  const queryTokens = queryRows.reduce((sum, { rows }) => sum + rows, 0);
  const sizes = { batch, queryTokens, keyTokens: table.layout.keyTokens, heads, kvHeads, headDimension };
  const of = (entry: AttentionEntry) => ({
    ...attentionEntryCost(entry, sizes, dtype, plan),
    flops: heads * productFlops(entry, headDimension, plan.work),
  });
  const rows = batch * queryTokens * heads;
  const backward = [{ flops: 0, bytes: rows * ((bytesPerElement[dtype] + 4) * headDimension + 12) }]; // delta
  if (wants.query) backward.push(of('backwardQuery'));
  if (wants.key || wants.value) backward.push(of('backwardKeyValue'));
  return { forward: of('forward'), backward: backward.reduce(sumOf), work: plan.work };
}

/**
 * The FLOPs of the products, for one head. A pair of tokens takes 2 products of 2 D FLOPs forward and 3 for dq (S, dP, dq).
 * For dk and dv it takes S, dP and dk if gradient reaches K, S and dv if it reaches V: 4 products, 3 or 2.
 */
function productFlops(entry: AttentionEntry, headDimension: number, work: PlanWork): number {
  const { forward, dQuery, dKeyValue, dKey, dValue } = work;
  const products = { forward: 2 * forward, backwardQuery: 3 * dQuery, backwardKeyValue: dKeyValue + 2 * dKey + dValue };
  return 2 * headDimension * products[entry];
}

/**
 * The FLOPs of everything else, for one head. Forward: a factor, a maximum, a difference, an exponential and a sum. Backward:
 * a factor, a difference and an exponential for P, and a difference and two factors for dS.
 */
function softmaxFlops(entry: AttentionEntry, { forward, dQuery, dKeyValue, dKey }: PlanWork): number {
  return { forward: 5 * forward, backwardQuery: 6 * dQuery, backwardKeyValue: 3 * dKeyValue + 3 * dKey }[entry];
}

/**
 * FLOPs and bytes of one kernel: of live tile pairs, masked scores included; each row of an operand that a list reaches is read once,
 * results are written once, in each of `slices` parts as f32 where workgroups share lists.
 */
export function attentionEntryCost(
  entry: AttentionEntry,
  { batch, queryTokens, keyTokens, heads, kvHeads, headDimension }: AttentionSizes,
  dtype: DataType,
  plan: Plan,
  slices = 0,
): Cost {
  const { queries, keys, bytes: planBytes } = reachOf(plan)[entry];
  const stored = bytesPerElement[dtype];
  const [row, kvRow] = [heads * headDimension, kvHeads * headDimension];
  // A backward kernel also reads dOutput, in f32, and (L, delta).
  const queryBytes = entry === 'forward' ? stored * row : (stored + 4) * row + 8 * heads;
  const result = {
    forward: batch * queryTokens * ((slices > 0 ? 4 : stored) * row + 4 * heads),
    backwardQuery: batch * queryTokens * 4 * row,
    backwardKeyValue: batch * keyTokens * 8 * kvRow,
  }[entry];
  return {
    flops: heads * (productFlops(entry, headDimension, plan.work) + softmaxFlops(entry, plan.work)),
    bytes: planBytes + queries * queryBytes + keys * 2 * stored * kvRow + Math.max(slices, 1) * result,
  };
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

function sumOf(a: Cost, b: Cost): Cost {
  return { flops: a.flops + b.flops, bytes: a.bytes + b.bytes };
}

/** Workgroups of each kernel, with the variants that the device has in use. */
export function attentionWorkgroups(device: Device, problem: AttentionProblem): Record<AttentionEntry, number> {
  const { table, batch, heads, kvHeads, headDimension, dtype = 'f32' } = problem;
  const { queryRows } = rowsOf(problem);
  const form = planForm(table, batch, queryRows);
  const queryTokens = queryRows.reduce((sum, { rows }) => sum + rows, 0);
  const sizes = { batch, queryTokens, keyTokens: table.layout.keyTokens, heads, kvHeads, headDimension };
  const count = (entry: AttentionEntry) =>
    attentionLaunch(device, { entry, dtype, headDimension }, sizes, form).workgroups.reduce((a, b) => a * b);
  return Object.fromEntries(attentionEntries.map((entry) => [entry, count(entry)])) as Record<AttentionEntry, number>;
}
