/** The checks of a device: every op in the kernels that it takes by itself, in every storage, and products and attention in every other variant. */
import type { Device } from '../../engine/index.ts';
import {
  attentionEntries,
  attentionTable,
  attentionVariants,
  causal,
  edge,
  type FloatType,
  full,
  insulated,
  type MatmulKey,
  matmulSizes,
  matmulVariants,
  sequence,
} from '../../kernels/index.ts';
import { attention, opOf, type Problem } from '../kernels/problem.ts';
import type { Check } from './check.ts';
import { everyProblem, inStorage, productProblems } from './ops.ts';

const storages: readonly FloatType[] = ['f32', 'f16', 'bf16'];
/** The smallest that models use, one that ends within a chunk of 32, and the largest. */
const headDimensions = [16, 72, 256];

/** Without `every`, a software adapter takes one of each family of kernels made for GPUs: each compiles for seconds. */
export function checksOf(device: Device, every: boolean): { checks: Check[]; omitted: Check[] } {
  const shipped = (storage: FloatType) => (problem: Problem) => ({ problem, variant: 'shipped', storage });
  const all: Check[] = [
    ...everyProblem().map(shipped('f32')),
    ...(['f16', 'bf16'] as const).flatMap((storage) => inStorage().map(shipped(storage))),
    ...productChecks(device),
    ...attentionChecks(device),
  ];
  if (every || !device.software) return { checks: all, omitted: [] };
  const seen = new Set<string>();
  const checks = all.filter(({ problem, variant, storage, chosen }) => {
    if (!chosen || variant.startsWith('software')) return true;
    const family = `${opOf(problem)} ${variant.split('-')[0]}`;
    const wanted = variant.startsWith('f16') ? 'f16' : 'f32';
    if (seen.has(family) || storage !== wanted) return false;
    seen.add(family);
    return true;
  });
  return { checks, omitted: all.filter((check) => !checks.includes(check)) };
}

/** Each variant that any of the keys offers, as the choice for those that do. */
function choices<Key extends object>(keys: readonly Key[], offered: (key: Key) => readonly string[]) {
  const rows = keys.map((key) => ({ key, names: offered(key) }));
  return [...new Set(rows.flatMap(({ names }) => names))].map((variant) => ({
    variant,
    chosen: rows.flatMap(({ key, names }) => (names.includes(variant) ? [{ ...key, variant }] : [])),
  }));
}

/** Every key of a product; a choice for all of them reaches forward and backward. */
function productKeys(): MatmulKey[] {
  let keys: Partial<MatmulKey>[] = [{}];
  const fields = { a: storages, b: storages, transposeA: [false, true], transposeB: [false, true], sides: [1, 2] };
  for (const [field, values] of Object.entries({ ...fields, size: matmulSizes }))
    keys = keys.flatMap((key) => values.map((value) => ({ ...key, [field]: value })));
  return keys as MatmulKey[];
}

const productChecks = (device: Device): Check[] =>
  choices(productKeys(), (key) => matmulVariants(device, key)).flatMap(({ variant, chosen }) => {
    const halfOnly = chosen.every(({ a, b }) => a === 'f16' && b === 'f16');
    return productProblems.flatMap(({ problem, sides, storages }) =>
      chosen.some((choice) => choice.sides === sides)
        ? storages
            .filter((storage) => !halfOnly || storage === 'f16')
            .map((storage) => ({ problem, variant, storage, chosen: { attention: [], matmul: chosen } }))
        : [],
    );
  });

/** Blocks that cross tiles, padding, a window, a stop and factors between. */
function attentionOf(headDimension: number): Problem {
  const table = attentionTable(sequence({ prefix: 37, text: 9, action: 20 }), {
    prefix: { prefix: full },
    text: { prefix: edge({ mask: 'full', keyGradient: 0.5, valueGradient: 0.25 }), text: causal },
    action: { prefix: insulated, text: full, action: edge({ mask: 'causal', window: 7 }) },
  });
  const validity = Uint8Array.from({ length: 2 * 66 }, (_, i) => (i % 11 === 3 ? 0 : 1));
  return attention('padding, stops and a window', table, { batch: 2, heads: 4, kvHeads: 2, headDimension }, validity);
}

const attentionChecks = (device: Device): Check[] =>
  headDimensions.flatMap((headDimension) =>
    storages.flatMap((storage) => {
      const keys = attentionEntries.map((entry) => ({ entry, dtype: storage, headDimension }));
      return choices(keys, (key) => attentionVariants(device, key)).map(({ variant, chosen }) => {
        const some = chosen.length < keys.length ? ` (${chosen.map(({ entry }) => entry).join(', ')})` : '';
        const problem = attentionOf(headDimension);
        return { problem, variant: `${variant}${some}`, storage, chosen: { attention: chosen, matmul: [] } };
      });
    }),
  );
