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

export interface Checks {
  readonly checks: readonly Check[];
  /** Checks that are left out. */
  readonly omitted: number;
}

/**
 * `every` takes all; otherwise a software adapter, which compiles each kernel made for GPUs for seconds, takes one of each family of
 * these.
 */
export function checksOf(device: Device, every: boolean): Checks {
  const all = allChecks(device);
  if (every || !device.software) return { checks: all, omitted: 0 };
  const seen = new Set<string>();
  const checks = all.filter(({ problem, variant, storage, chosen }) => {
    if (!chosen || variant.startsWith('software')) return true;
    const family = `${opOf(problem)} ${variant.split('-')[0]}`;
    const wanted = variant.startsWith('f16') ? 'f16' : 'f32';
    if (seen.has(family) || storage !== wanted) return false;
    seen.add(family);
    return true;
  });
  return { checks, omitted: all.length - checks.length };
}

function allChecks(device: Device): Check[] {
  return [
    ...everyProblem().map((problem): Check => ({ problem, variant: 'shipped', storage: 'f32' })),
    ...(['f16', 'bf16'] as const).flatMap((storage) =>
      inStorage().map((problem): Check => ({ problem, variant: 'shipped', storage })),
    ),
    ...productChecks(device),
    ...attentionChecks(device),
  ];
}

/** Every key of a product; a choice for all of them reaches forward and backward. */
const productKeys: readonly MatmulKey[] = storages.flatMap((a) =>
  storages.flatMap((b) =>
    [false, true].flatMap((transposeA) =>
      [false, true].flatMap((transposeB) =>
        ([1, 2] as const).flatMap((sides) =>
          matmulSizes.map((size) => ({ a, b, transposeA, transposeB, sides, size })),
        ),
      ),
    ),
  ),
);

function productChecks(device: Device): Check[] {
  const offered = productKeys.map((key) => ({ key, names: matmulVariants(device, key) }));
  return [...new Set(offered.flatMap(({ names }) => names))].flatMap((variant) => {
    const matmul = offered.flatMap(({ key, names }) => (names.includes(variant) ? [{ ...key, variant }] : []));
    const sides = new Set(matmul.map((choice) => choice.sides));
    return productProblems.flatMap(({ problem, sides: needed, storages }) =>
      sides.has(needed)
        ? storages.map((storage): Check => ({ problem, variant, storage, chosen: { attention: [], matmul } }))
        : [],
    );
  });
}

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

function attentionChecks(device: Device): Check[] {
  return headDimensions.flatMap((headDimension) => {
    const problem = attentionOf(headDimension);
    return storages.flatMap((dtype) => {
      const offered = attentionEntries.map((entry) => {
        const key = { entry, dtype, headDimension };
        return { key, names: attentionVariants(device, key) };
      });
      return [...new Set(offered.flatMap(({ names }) => names))].map((variant): Check => {
        const kernels = offered.flatMap(({ key, names }) => (names.includes(variant) ? [{ ...key, variant }] : []));
        const some = kernels.length < offered.length ? ` (${kernels.map(({ entry }) => entry).join(', ')})` : '';
        return { problem, variant: `${variant}${some}`, storage: dtype, chosen: { attention: kernels, matmul: [] } };
      });
    });
  });
}
