import {
  type DataType,
  type Device,
  type Dispatch,
  emptyTensor,
  formatShape,
  loadKernel,
  record,
  type Shape,
  Tensor,
  tensor,
} from '../engine/index.ts';
import { compilePlan, type Plan, TILE } from './attention-plan.ts';
import type { AttentionTable } from './attention-table.ts';
import { expectDtype, expectShape, sharedDevice, storage } from './operand.ts';
import { softwareLanes } from './variant.ts';

const kernel = await loadKernel(new URL('./attention.wgsl', import.meta.url));
const softwareKernel = await loadKernel(new URL('./attention.software.wgsl', import.meta.url));
const SOFTWARE_LANES = [4, 8, 16];
const CHUNK = 32;
const THREADS = 64;
const LARGEST_HEAD = 256;
const REMEMBERED_PLANS = 64;

export interface AttentionOptions {
  /** Who sees whom; its layout covers the keys. */
  table: AttentionTable;
  /** Factor of q . k; default 1 / sqrt(D). */
  scale?: number;
  /** [batch, tokens], 1 = real token, 0 = padding, as numbers or as a u32 tensor made from numbers; default all real. */
  validity?: ArrayLike<number> | Tensor;
  /** Names of the layout blocks that are the rows of `query`; default all. */
  queries?: readonly string[];
  /** Names of the query blocks whose output carries a loss; backward skips the others. Default all. */
  lossBlocks?: readonly string[];
}

/**
 * Attention over a table of blocks (attention.wgsl holds the mathematics).
 *
 * query [B, Tq, heads, D]: the rows of the blocks named in `queries`, in layout order; key, value [B, T, kvHeads, D], where kvHeads
 * divides heads; D a multiple of 4 up to 256. Result [B, Tq, heads, D]; rows that see nothing are zero.
 */
export function attention(query: Tensor, key: Tensor, value: Tensor, options: AttentionOptions): Tensor {
  return attentionWithLogSumExp(query, key, value, options).output;
}

/** Attention, and log of the sum over seen keys of exp(score) as [B, heads, Tq]; 1e30 for rows that see nothing. */
export function attentionWithLogSumExp(
  query: Tensor,
  key: Tensor,
  value: Tensor,
  options: AttentionOptions,
): { output: Tensor; logSumExp: Tensor } {
  const sizes = checkOperands(query, key, value, options);
  const { device } = query;
  const { batch, queryTokens, heads, headDimension } = sizes;
  const plan = planFor(device, options, sizes, {
    query: query.wantsGradient,
    key: key.wantsGradient,
    value: value.wantsGradient,
  });
  const scale = options.scale ?? 1 / Math.sqrt(headDimension);
  const { grids, ...form } = formFor(device, query.dtype, sizes, scale, plan.compiled);
  const run = (entry: keyof typeof grids, bindings: Record<string, Tensor>) =>
    device.dispatch({ ...form, entry, bindings, workgroups: grids[entry] });

  const output = emptyTensor(device, query.shape, query.dtype, 'attention');
  const logSumExp = emptyTensor(device, [batch, heads, queryTokens], 'f32', 'attention');
  const operands = { plan: plan.uploaded, query, key, value };
  run('forward', { ...operands, output, logSumExp });

  record('attention', [query, key, value], [output], ([dOutput], [wantsQuery, wantsKey, wantsValue]) => {
    if (!dOutput) return [null, null, null];
    const gradient = (like: Tensor) => emptyTensor(device, like.shape, 'f32', 'attention backward');
    const statistics = emptyTensor(device, [batch, heads, queryTokens, 2], 'f32', 'attention backward');
    const results = { forwardOutput: output, forwardLogSumExp: logSumExp };
    run('backwardDelta', { ...results, dOutput, rowStatistics: statistics });
    const dQuery = wantsQuery ? gradient(query) : null;
    if (dQuery) run('backwardQuery', { ...operands, dOutput, statistics, dQuery });
    if (!wantsKey && !wantsValue) return [dQuery, null, null];
    const [dKey, dValue] = [gradient(key), gradient(value)];
    run('backwardKeyValue', { ...operands, dOutput, statistics, dKey, dValue });
    return [dQuery, dKey, dValue];
  });
  return { output, logSumExp };
}

type Grid = readonly [number, number, number];

interface Form extends Pick<Dispatch, 'kernel' | 'parameters' | 'uniform'> {
  readonly grids: Readonly<Record<'forward' | 'backwardDelta' | 'backwardQuery' | 'backwardKeyValue', Grid>>;
}

/** The kernel file that suits a device and a storage type, specialised: chosen by what the device can do, never by a shape. */
function formFor(device: Device, dtype: DataType, sizes: Sizes, scale: number, plan: Plan): Form {
  const { batch, queryTokens, keyTokens, heads, kvHeads, headDimension } = sizes;
  const { queryTiles, keyTiles, keyTilesAt, forwardAt, dQueryAt, dKeyValueAt } = plan;
  const placesInPlan = { queryTiles, keyTiles, keyTilesAt, forwardAt, dQueryAt, dKeyValueAt };
  const shape = { queryTokens, keyTokens, heads, kvHeads, scale, ...placesInPlan };
  const deltaGrid = (threads: number): Grid => [Math.ceil(queryTokens / threads), heads, batch];
  const lanes = softwareLanes(device);
  // Packed storage cannot hold the sums that the software kernel keeps in its output.
  if (lanes !== null && SOFTWARE_LANES.includes(lanes) && dtype === 'f32') {
    const batches = TILE / (2 * lanes);
    const queryGrid: Grid = [((queryTiles * heads) / kvHeads) * batches, kvHeads, batch];
    return {
      kernel: softwareKernel,
      parameters: { LANES: lanes },
      uniform: { ...shape, words: headDimension / 2 },
      grids: {
        forward: queryGrid,
        backwardDelta: deltaGrid(lanes),
        backwardQuery: queryGrid,
        backwardKeyValue: [keyTiles * batches, kvHeads, batch],
      },
    };
  }
  const groups = headDimension / 4;
  const chunks = Math.ceil(headDimension / CHUNK);
  return {
    kernel,
    parameters: { CHUNKS: chunks, ...storage(dtype) },
    uniform: { ...shape, groups, chunkGroups: Math.min(groups, CHUNK / 4), chunks },
    grids: {
      forward: [queryTiles, heads, batch],
      backwardDelta: deltaGrid(THREADS),
      backwardQuery: [queryTiles, heads, batch],
      backwardKeyValue: [keyTiles, kvHeads, batch],
    },
  };
}

/**
 * FLOPs of live work: 2 products of a pair of rows forward, 3 for dq, 4 for dk and dv (attention.wgsl), each 2 D FLOPs a pair and
 * head. An edge that stops only K, or only V, counts all 4. Bytes count every operand once in each kernel.
 */
export function attentionCost(
  plan: Plan,
  heads: number,
  headDimension: number,
  elements: { query: number; key: number },
): Record<'forward' | 'backward', { flops: number; bytes: number }> {
  const product = 2 * headDimension * heads;
  const { query, key } = elements;
  return {
    forward: { flops: 2 * product * plan.work.forward, bytes: 4 * (2 * query + 2 * key) },
    backward: {
      flops: product * (3 * plan.work.dQuery + 4 * plan.work.dKeyValue),
      bytes: 4 * (2 * query + (2 * query + 2 * key) + query + (2 * query + 2 * key) + 2 * key),
    },
  };
}

interface Sizes {
  batch: number;
  queryTokens: number;
  keyTokens: number;
  heads: number;
  kvHeads: number;
  headDimension: number;
  queryBlocks: number[];
  lossBlocks: number[];
}

function checkOperands(query: Tensor, key: Tensor, value: Tensor, options: AttentionOptions): Sizes {
  const { layout } = options.table;
  expectShape('attention', 'query', query, [null, null, null, null]);
  expectShape('attention', 'key', key, [query.shape[0], layout.length, null, query.shape[3]]);
  expectShape('attention', 'value', value, key.shape);
  expectDtype('attention', 'query', query, 'f32', 'f16', 'bf16');
  expectDtype('attention', 'key', key, query.dtype);
  expectDtype('attention', 'value', value, query.dtype);
  sharedDevice('attention', query, key, value);
  const [batch, queryTokens, heads, headDimension] = query.shape;
  const kvHeads = key.shape[2];
  if (headDimension % 4 !== 0 || headDimension > LARGEST_HEAD || headDimension === 0)
    throw new Error(`attention: head dimension ${headDimension}; it is a multiple of 4 up to ${LARGEST_HEAD}`);
  if (kvHeads === 0 || heads % kvHeads !== 0)
    throw new Error(`attention: ${heads} query heads and ${kvHeads} key heads; the second must divide the first`);
  const indices = (what: string, names: readonly string[]) =>
    names
      .map((name) => {
        const index = layout.blocks.findIndex((block) => block.name === name);
        if (index < 0) throw new Error(`attention: ${what} names '${name}', which the layout does not have`);
        return index;
      })
      .sort((a, b) => a - b);
  const all = layout.blocks.map((block) => block.name);
  const queryBlocks = indices('queries', options.queries ?? all);
  const lossBlocks = indices('lossBlocks', options.lossBlocks ?? all);
  const rows = queryBlocks.reduce((sum, block) => sum + layout.blocks[block].length, 0);
  if (rows !== queryTokens)
    throw new Error(`attention: query has shape ${formatShape(query.shape)}; its blocks hold ${rows} rows`);
  return { batch, queryTokens, keyTokens: layout.length, heads, kvHeads, headDimension, queryBlocks, lossBlocks };
}

interface UploadedPlan {
  compiled: Plan;
  uploaded: Tensor;
}

const compiledPlans = new Map<string, Plan>();
const uploads = new WeakMap<object, Map<string, Tensor>>();

/** The plan of these operands: compiled once for each signature, uploaded once in each step. */
function planFor(
  device: Device,
  options: AttentionOptions,
  sizes: Sizes,
  wants: { query: boolean; key: boolean; value: boolean },
): UploadedPlan {
  const { table } = options;
  const { batch, queryBlocks, lossBlocks } = sizes;
  const validity = validityNumbers(options.validity, [batch, table.layout.length]);
  const bits = validity ? Array.from(validity, (valid) => (valid ? '1' : '0')).join('') : '';
  const signature = JSON.stringify([table.layout.blocks, table.cells, batch, queryBlocks, lossBlocks, wants, bits]);
  let compiled = compiledPlans.get(signature);
  if (!compiled) {
    compiled = compilePlan({ table, batch, validity, queryBlocks, lossBlocks, wants });
    if (compiledPlans.size >= REMEMBERED_PLANS) compiledPlans.delete(compiledPlans.keys().next().value!);
    compiledPlans.set(signature, compiled);
  }
  const step = device.currentStep('attention');
  const known = uploads.get(step) ?? new Map<string, Tensor>();
  uploads.set(step, known);
  let uploaded = known.get(signature);
  if (!uploaded) {
    uploaded = tensor(device, compiled.words, [compiled.words.length], { dtype: 'u32' });
    known.set(signature, uploaded);
  }
  return { compiled, uploaded };
}

function validityNumbers(validity: ArrayLike<number> | Tensor | undefined, shape: Shape): ArrayLike<number> | null {
  if (validity === undefined) return null;
  if (validity instanceof Tensor) {
    expectShape('attention', 'validity', validity, shape);
    if (!validity.hostData)
      throw new Error(
        'attention: validity is a tensor made on the device; give numbers, or a u32 tensor made from numbers',
      );
    return validity.hostData;
  }
  if (validity.length !== shape[0] * shape[1])
    throw new Error(`attention: validity has ${validity.length} numbers; expected ${formatShape(shape)}`);
  return validity;
}
