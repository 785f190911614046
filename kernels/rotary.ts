import { emptyTensor, formatShape, loadKernel, record, type Tensor, zeroTensor } from '../engine/index.ts';
import { groupsOf } from './groups.ts';
import { expectDtype, expectLike, expectShape, recordOne, sharedDevice } from './operand.ts';
import { forEachItem } from './streaming.ts';

const kernel = await loadKernel(new URL('./rotary.wgsl', import.meta.url));
const oneAngle = { CosSin: 'single', cosine: 'single', sine: 'single' };
const pairs = { place: 'pairs', apart: 'pairs' };
const pairsInFours = { ...pairs, pairsOf: 'pairs', groupsOf: 'pairs' };

export interface RotaryOptions {
  /** 'halves' rotates the pairs (x[i], x[i + D/2]), as Gemma does (default), 'pairs' (x[2i], x[2i + 1]), as Llama does. */
  layout?: 'halves' | 'pairs';
}

/**
 * Rotates pair i < D/2 of every head by angle i of its token (Su et al. 2021, arXiv 2104.09864).
 *
 * x [B, T, heads, D] in f32, f16 or bf16, table [B, T, D/2, 2] f32 from rotaryTable, without gradient -> like x. D is even.
 */
export function rotary(x: Tensor, table: Tensor, options: RotaryOptions = {}): Tensor {
  const run = runner('rotary', x, table, options);
  const { device } = x;
  const y = emptyTensor(device, x.shape, x.dtype, 'rotary');
  run('forward', { x, y });
  recordOne('rotary', [x], y, (dy) => {
    const dx = emptyTensor(device, x.shape, 'f32', 'rotary backward');
    run('backward', { dy, dx });
    return [dx];
  });
  return y;
}

/**
 * The heads of a joint projection: first those of queries and of keys, which are rotated as by `rotary`, then as many values as keys.
 *
 * x [B, T, heads + 2 kvHeads, D] -> query [B, T, heads, D], key and value [B, T, kvHeads, D], in the storage of x.
 */
export function rotaryHeads(
  x: Tensor,
  table: Tensor,
  { heads, kvHeads, ...options }: RotaryOptions & { heads: number; kvHeads: number },
): { query: Tensor; key: Tensor; value: Tensor } {
  const op = 'rotaryHeads';
  const run = runner(op, x, table, options, { queries: heads, keys: kvHeads });
  expectShape(op, 'x', x, [null, null, heads + 2 * kvHeads, null]);
  const { device } = x;
  const [batch, length, , dimension] = x.shape;
  const part = (count: number) => emptyTensor(device, [batch, length, count, dimension], x.dtype, op);
  const [query, key, value] = [part(heads), part(kvHeads), part(kvHeads)];
  run('split', { x, query, key, value });
  record(op, [x], [query, key, value], (gradients) => {
    const name = `${op} backward`;
    const [dQuery, dKey, dValue] = gradients.map(
      (gradient, i) => gradient ?? zeroTensor(device, [query, key, value][i].shape, 'f32', name),
    );
    const dx = emptyTensor(device, x.shape, 'f32', name);
    run('join', { dQuery, dKey, dValue, dx });
    return [dx];
  });
  return { query, key, value };
}

/** Checks the operands, and dispatches an entry point on them. */
function runner(
  op: string,
  x: Tensor,
  table: Tensor,
  { layout = 'halves' }: RotaryOptions,
  joint = { queries: 0, keys: 0 },
): (entry: string, bindings: Record<string, Tensor>) => void {
  expectDtype(op, 'x', x, 'f32', 'f16', 'bf16');
  expectShape(op, 'x', x, [null, null, null, null]);
  const [batch, length, heads, dimension] = x.shape;
  if (dimension % 2 !== 0)
    throw new Error(`${op}: x has shape ${formatShape(x.shape)}; its last axis, the head dimension, must be even`);
  expectLike(op, 'table', table, 'f32', [batch, length, dimension / 2, 2]);
  if (table.wantsGradient) throw new Error(`${op}: table wants a gradient, which does not pass here; give data`);
  const device = sharedDevice(op, x, table);
  const { size, parameters } = groupsOf(op, 'x', x, dimension / 2);
  const tokens = batch * length;
  const half = dimension / 2 / size;
  const inPairs = size === 1 ? pairs : pairsInFours;
  return (entry, bindings) =>
    forEachItem(device, kernel, entry, tokens * half, {
      parameters: { ...parameters, ...(size === 1 && oneAngle), ...(layout === 'pairs' && inPairs) },
      bindings: { cosSin: table, ...bindings },
      uniform: { tokens, heads, half, ...joint },
      flops: (3 * x.size * (joint.keys > 0 ? heads - joint.keys : heads)) / heads,
    });
}

/**
 * cos and sin of position / base^(2i / D) for i < D/2, computed in float64: the numbers of rotary's table [B, T, D/2, 2] for
 * `positions` [B * T] and the even head dimension D.
 */
export function rotaryTable(
  positions: ArrayLike<number>,
  headDimension: number,
  { base = 10000 }: { base?: number } = {},
): Float32Array<ArrayBuffer> {
  if (!Number.isInteger(headDimension) || headDimension < 2 || headDimension % 2 !== 0)
    throw new RangeError(`rotaryTable: head dimension ${headDimension}; expected an even number from 2`);
  const table = new Float32Array(positions.length * headDimension);
  for (let pair = 0; pair < headDimension; pair += 2) {
    const frequency = base ** (-pair / headDimension);
    for (let token = 0; token < positions.length; token++) {
      const angle = positions[token] * frequency;
      table[token * headDimension + pair] = Math.cos(angle);
      table[token * headDimension + pair + 1] = Math.sin(angle);
    }
  }
  return table;
}
