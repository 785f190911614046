import { expect } from 'vitest';
import { backward, type Device, parameter, type Tensor, tensor } from '../../engine/index.ts';
import {
  type AttentionExpression,
  type AttentionTable,
  attentionTable,
  attentionWithLogSumExp,
  cast,
  causal,
  type Edge,
  edge,
  full,
  insulated,
  none,
  sequence,
} from '../../kernels/index.ts';
import type * as reference from '../../kernels/reference/index.ts';
import { expectClose, integers, normals } from './numbers.ts';

/** Operands of a call of attention, and the gradient of its output. */
export interface AttentionCase {
  table: AttentionTable;
  batch: number;
  heads: number;
  kvHeads: number;
  headDimension: number;
  scale?: number;
  validity: Uint8Array;
  queries?: string[];
  lossBlocks?: string[];
  expression?: AttentionExpression;
  /** Storage of the operands; f32 by default. */
  dtype?: 'f32' | 'f16' | 'bf16';
  query: Float32Array;
  key: Float32Array;
  value: Float32Array;
  dOutput: Float32Array;
}

/** Forward and backward on a device. */
export async function runAttention(device: Device, given: AttentionCase) {
  const {
    table,
    batch,
    heads,
    kvHeads,
    headDimension,
    scale,
    validity,
    queries,
    lossBlocks,
    expression,
    dtype = 'f32',
  } = given;
  const { keyTokens } = table.layout;
  const rows = given.query.length / (batch * heads * headDimension);
  const query = parameter(device, given.query, [batch, rows, heads, headDimension], { name: 'query' });
  const key = parameter(device, given.key, [batch, keyTokens, kvHeads, headDimension], { name: 'key' });
  const value = parameter(device, given.value, [batch, keyTokens, kvHeads, headDimension], { name: 'value' });
  const { output, logSumExp } = device.step(() => {
    const operands = [query, key, value].map((operand) => (dtype === 'f32' ? operand : cast(operand, dtype)));
    const result = attentionWithLogSumExp(operands[0], operands[1], operands[2], {
      ...{ table, scale, validity, queries, lossBlocks, expression },
    });
    backward(result.output, { gradient: tensor(device, given.dOutput, result.output.shape) });
    return result;
  });
  const read = async (source: Tensor) => {
    const numbers = await source.read();
    source.dispose();
    return numbers;
  };
  const result = {
    output: await read(output),
    logSumExp: await read(logSumExp),
    dQuery: await query.grad!.read(),
    dKey: await key.grad!.read(),
    dValue: await value.grad!.read(),
  };
  for (const leaf of [query, key, value]) leaf.dispose();
  return result;
}

/** A table of random edges over random blocks, some of one token, with random padding; `withoutKeys` indexes blocks. */
export function randomCase(
  seed: number,
  headDimension: number,
  group: number,
  withoutKeys: readonly number[] = [],
): AttentionCase {
  const draw = integers(200, 1 << 20, seed);
  let used = 0;
  const pick = (below: number) => draw[used++] % below;
  const blocks = Array.from(
    { length: 2 + pick(3) },
    (_, i) => [`b${i}`, pick(4) === 0 ? 1 : 1 + pick(60)] as [string, number],
  );
  const names = withoutKeys.map((index) => `b${index % blocks.length}`);
  const layout = sequence(blocks, { withoutKeys: names });
  const rows: Record<string, Record<string, Edge>> = {};
  for (const [q] of blocks) {
    rows[q] = {};
    for (const [k] of blocks) {
      const own = q === k ? [causal, edge({ mask: 'causal', window: 1 + pick(40) }), full] : [full, insulated];
      const stops = [edge({ mask: 'full', stopKey: true }), edge({ mask: 'full', stopValue: true }), none];
      const factors = { keyGradient: pick(8) / 7, valueGradient: pick(8) / 7 };
      const scaled = [edge({ mask: 'full', ...factors }), edge({ mask: q === k ? 'causal' : 'full', ...factors })];
      const kinds = [...own, ...stops, ...scaled];
      const cell = kinds[pick(kinds.length)];
      rows[q][k] = names.includes(k) ? none : cell;
    }
  }
  const [batch, kvHeads] = [2, 1 + pick(2)];
  const heads = kvHeads * group;
  const size = (count: number, tokens: number) => batch * tokens * count * headDimension;
  const { length, keyTokens } = layout;
  return {
    table: attentionTable(layout, rows),
    batch,
    heads,
    kvHeads,
    headDimension,
    validity: Uint8Array.from({ length: batch * layout.length }, (_, i) => (draw[i % 200] % 5 === 0 ? 0 : 1)),
    query: normals(size(heads, length), seed + 1),
    key: normals(size(kvHeads, keyTokens), seed + 2),
    value: normals(size(kvHeads, keyTokens), seed + 3),
    dOutput: normals(size(heads, length), seed + 4),
  };
}

export function compareAttention(
  actual: Awaited<ReturnType<typeof runAttention>>,
  expected: ReturnType<typeof reference.attention>,
  tolerance: number,
) {
  for (const name of ['output', 'dQuery', 'dKey', 'dValue'] as const)
    expectClose(actual[name], expected[name], tolerance, name);
  for (const [i, value] of actual.logSumExp.entries())
    if (!expected.live[i]) expect(value, 'logSumExp of a row that sees nothing').toBe(Math.fround(1e30));
  const live = (numbers: ArrayLike<number>) => Array.from(numbers).filter((_, i) => expected.live[i]);
  expectClose(live(actual.logSumExp), live(expected.logSumExp), tolerance, 'logSumExp');
}

/** Every operand of a case, kept to the places that bf16 and f16 both hold exactly. */
export function shortNumbers(given: AttentionCase): AttentionCase {
  const short = (numbers: Float32Array) =>
    new Float32Array(new Uint32Array(numbers.slice().buffer).map((bits) => bits & 0xffff0000).buffer);
  return { ...given, query: short(given.query), key: short(given.key), value: short(given.value) };
}
