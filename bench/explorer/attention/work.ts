/** What attention of a table costs, and which gradients it gives: counted by the library's plans, and measured on the adapter. */
import {
  backward,
  type Device,
  elementCount,
  parameter,
  randomStream,
  type Shape,
  streams,
  tensor,
  zeroGradients,
} from '../../../engine/index.ts';
import {
  type AttentionExpression,
  type AttentionProblem,
  type AttentionTable,
  attention,
  attentionCost,
  attentionEntryCost,
  attentionTable,
  full,
  type LivePair,
  livePairs,
  maskMatrix,
  type PlanList,
  planLists,
  planOf,
} from '../../../kernels/index.ts';
import { tableSees } from '../../../kernels/reference/attention.ts';
import { taskOf } from '../../measure/operation-task.ts';
import { inRounds } from '../../measure/rounds.ts';
import { Work } from '../../measure/work.ts';
import { chosenBlocks, type State } from './state.ts';

export type Problem = Pick<AttentionProblem, 'table' | 'heads' | 'kvHeads' | 'headDimension'> &
  ReturnType<typeof chosenBlocks> & { readonly batch: 1; readonly expression?: AttentionExpression };

export function problemOf(state: State, table: AttentionTable, expression: AttentionExpression | null): Problem {
  const { heads, kvHeads, headDimension, blocks } = state;
  const chosen = chosenBlocks(blocks);
  return { table, ...chosen, batch: 1, heads, kvHeads, headDimension, ...(expression && { expression }) };
}

/** The same table with the whole gradient through every edge. */
function withoutStops({ table: { layout, cells }, ...problem }: Problem): Problem {
  const open = cells.map((row) => row.map((edge) => ({ ...edge, keyGradient: 1, valueGradient: 1 })));
  return { ...problem, table: { layout, cells: open } };
}

/** Dense attention of the same blocks: all queries see all keys, and all rows carry a loss. */
function dense({ table: { layout }, queries, expression: _, ...problem }: Problem): Problem {
  const keys = layout.blocks.filter((block) => block.keys);
  const row = Object.fromEntries(keys.map(({ name }) => [name, full]));
  const rows = Object.fromEntries(queries.map((name) => [name, row]));
  return { ...problem, queries, lossBlocks: queries, table: attentionTable(layout, rows) };
}

export interface Counts {
  readonly live: Readonly<Record<PlanList, readonly LivePair[]>>;
  /** What a table of numbers shows, by the name of its row. */
  readonly numbers: Readonly<Record<string, number>>;
}

const entries = { forward: 'forward', dQuery: 'backwardQuery', dKeyValue: 'backwardKeyValue' } as const;
const words = { forward: 'forward', dQuery: 'dQ', dKeyValue: 'dK/dV' };

export function counts(problem: Problem): Counts {
  const plan = planOf(problem);
  const { layout } = problem.table;
  const asked = layout.blocks.filter(({ name }) => problem.queries.includes(name));
  const queryTokens = asked.reduce((sum, { length }) => sum + length, 0);
  const sizes = { ...problem, queryTokens, keyTokens: layout.keyTokens };
  const [forward, dQuery, dKeyValue] = planLists.map((list) => livePairs(plan, list));
  const live = { forward, dQuery, dKeyValue };
  const flops = (list: PlanList) => {
    const launch = { entry: entries[list], splits: 1, slices: false, uniform: { wantsQuery: 1, wantsKeyValue: 1 } };
    return attentionEntryCost(launch, sizes, 'f32', plan).flops;
  };
  const rows = (what: string, of: (list: PlanList) => number) =>
    planLists.map((list) => [`${words[list]}, ${what}`, of(list)]);
  const numbers = Object.fromEntries([
    ...rows('pairs of tiles', (list) => live[list].length),
    ...rows('pairs of tokens', (list) => plan.work[list]),
    ...rows('FLOPs', flops),
    ['backward in one, FLOPs', attentionCost(problem, plan).backward.flops],
  ]);
  return { live, numbers };
}

/** Something of a table, of the same table without stops, and of dense attention. */
export type Compared<T> = Readonly<Record<'own' | 'withoutStops' | 'dense', T>>;
const rivals: Compared<(problem: Problem) => Problem> = { own: (problem) => problem, withoutStops, dense };

export const comparedCounts = (problem: Problem): Compared<Counts> => ({
  own: counts(problem),
  withoutStops: counts(withoutStops(problem)),
  dense: counts(dense(problem)),
});

/** [query token, key token]: 1 where the query sees the key. `numbers` are those of `expressionMask`. */
export function visiblePairs({ table, queries }: Problem, numbers: Float32Array | null): Uint8Array {
  const { blocks, length } = table.layout;
  const sees = tableSees(table);
  const seen = new Uint8Array(length * length);
  for (const { name, start, length: rows } of blocks)
    for (let q = start; queries.includes(name) && q < start + rows; q++)
      for (let k = 0; k < length; k++)
        seen[q * length + k] = Number(sees(q, k) && (numbers?.[q * length + k] ?? 0) === 0);
  return seen;
}

/** The mask of an expression as `maskMatrix` makes it, on the host; null without a mask. */
export async function expressionMask(device: Device, expression: AttentionExpression): Promise<Float32Array | null> {
  if (expression.source.mask === undefined) return null;
  using numbers = maskMatrix(device, expression, expression.layout.length);
  return await numbers.read();
}

/** Norm of a gradient, and whether all of its bits are zero. */
export interface Reaching {
  readonly norm: number;
  readonly zero: boolean;
}

/** By query block and then key block: the gradient that the loss of one gives to K and to V of the other. */
export type ReachingByBlock = Readonly<Record<string, Readonly<Record<string, { key: Reaching; value: Reaching }>>>>;

/** Random operands of unit variance, whose gradients are kept or only computed; that of the output is zero in rows without a loss. */
function operands(device: Device, problem: Problem, kept: boolean) {
  const { table, queries, lossBlocks, heads, kvHeads, headDimension } = problem;
  const asked = table.layout.blocks.filter(({ name }) => queries.includes(name));
  const rows = asked.reduce((sum, { length }) => sum + length, 0);
  const ofQuery = [1, rows, heads, headDimension];
  const ofKey = [1, table.layout.keyTokens, kvHeads, headDimension];
  const random = (shape: Shape, stream: number) =>
    randomStream(1, stream, streams.noise).fillNormal(new Float32Array(elementCount(shape)));
  const leaf = (shape: Shape, stream: number) => {
    const made = (kept ? parameter : tensor)(device, random(shape, stream), shape);
    made.wantsGradient = true;
    return made;
  };
  const gradient = random(ofQuery, 3);
  let at = 0;
  for (const { name, length } of asked) {
    const end = at + length * heads * headDimension;
    if (!lossBlocks.includes(name)) gradient.fill(0, at, end);
    at = end;
  }
  const [query, key, value] = [leaf(ofQuery, 0), leaf(ofKey, 1), leaf(ofKey, 2)];
  const dOutput = tensor(device, gradient, ofQuery);
  const dispose = () => {
    for (const own of [query, key, value, dOutput]) own.dispose();
  };
  return { query, key, value, dOutput, [Symbol.dispose]: dispose };
}

export async function reachingGradients(
  device: Device,
  problem: Problem,
  signal?: AbortSignal,
): Promise<ReachingByBlock> {
  using own = operands(device, problem, true);
  const { query, key, value, dOutput } = own;
  const result: Record<string, ReachingByBlock[string]> = {};
  for (const name of problem.lossBlocks) {
    signal?.throwIfAborted();
    await device.step(() => {
      zeroGradients([query, key, value]);
      backward(attention(query, key, value, { ...problem, lossBlocks: [name] }), { gradient: dOutput });
    });
    const [dKey, dValue] = [await key.grad!.read(), await value.grad!.read()];
    result[name] = byBlock(problem, dKey, dValue);
  }
  return result;
}

function byBlock({ table, kvHeads, headDimension }: Problem, dKey: Float32Array, dValue: Float32Array) {
  let row = 0;
  return Object.fromEntries(
    table.layout.blocks.flatMap(({ name, length, keys }) => {
      if (!keys) return [];
      const [from, to] = [row, row + length].map((at) => at * kvHeads * headDimension);
      row += length;
      return [[name, { key: reaching(dKey.slice(from, to)), value: reaching(dValue.slice(from, to)) }]];
    }),
  );
}

const reaching = (gradient: Float32Array): Reaching => ({
  norm: Math.sqrt(gradient.reduce((sum, own) => sum + own * own, 0)),
  zero: new Uint32Array(gradient.buffer).every((bits) => bits === 0),
});

/** Rounds enough for an interval of a ratio. */
export const ROUNDS = 9;

/** Milliseconds in each of the rounds, in which everything is measured once. */
export async function measuredTimes(
  device: Device,
  problem: Problem,
  signal: AbortSignal,
): Promise<Compared<Record<'forward' | 'backward', readonly number[]>>> {
  using own = operands(device, problem, false);
  const { query, key, value, dOutput } = own;
  const works = Object.entries(rivals).flatMap(([rival, make]) => {
    const of = make(problem);
    const directions = rival === 'withoutStops' ? (['backward'] as const) : (['forward', 'backward'] as const);
    return directions.map((direction) => {
      const task = taskOf(device, direction, () => attention(query, key, value, of), dOutput);
      return new Work(device, `${rival} ${direction}`, task);
    });
  });
  const { times } = await inRounds(works, { seconds: Number.POSITIVE_INFINITY, rounds: ROUNDS, signal });
  signal.throwIfAborted();
  const of = (name: string) => times[works.findIndex((work) => work.name === name)];
  const forward = of('own forward');
  return {
    own: { forward, backward: of('own backward') },
    withoutStops: { forward, backward: of('withoutStops backward') },
    dense: { forward: of('dense forward'), backward: of('dense backward') },
  };
}
