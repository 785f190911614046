/**
 * The kernels for matrix products that a device can run, and which one it takes: the shipped default, or the choice of a tuning
 * file. The variants are one file, matmul.wgsl, with other tiles, but for the software adapter's and the experimental ones with
 * subgroup matrices (openDevice's option `experimental`), which only a tuning file chooses.
 */
import { type DataType, type Device, type Kernel, loadKernel, type Parameters } from '../engine/index.ts';
import { softwareLanes } from './variant.ts';

export const matmulKernel = await loadKernel(new URL('./matmul.wgsl', import.meta.url));
const softwareKernel = await loadKernel(new URL('./matmul.software.wgsl', import.meta.url));
const matrixKernel = await loadKernel(new URL('./matmul.matrix.wgsl', import.meta.url));

/** large: many tiles of 64 x 64. short: at most 16 rows. narrow: at most 16 columns. small: what is left. */
export const matmulSizes = ['large', 'small', 'short', 'narrow'] as const;
export type MatmulSize = (typeof matmulSizes)[number];

/** The facts that decide the variant of a product, the same at every call of one place in a model. */
export interface MatmulKey {
  readonly a: DataType;
  readonly b: DataType;
  /** Stored as [depth, rows], as [columns, depth]. */
  readonly transposeA: boolean;
  readonly transposeB: boolean;
  /** 2: the dual product of a gated MLP, of its gate and its up. */
  readonly sides: 1 | 2;
  readonly size: MatmulSize;
}

export interface MatmulChoice extends MatmulKey {
  readonly variant: string;
}

/** A kernel file with its tile, and how deep products are shared between workgroups. */
export interface MatmulVariant {
  readonly name: string;
  suits(device: Device, key: MatmulKey): boolean;
  readonly kernel: Kernel;
  readonly parameters: Parameters;
  /** The tile of the output that a workgroup makes. */
  readonly tileRows: number;
  readonly tileColumns: number;
  /** Terms at a time. */
  readonly step: number;
  /** Workgroups worth having: a product with fewer tiles splits its depth into pieces of at least `splitDepth` terms. */
  readonly workgroups: number;
  readonly splitDepth: number;
  /** For large GPUs: more workgroups, of longer pieces, because the partial sums of a split cost as much as about 250 terms. */
  readonly full?: { readonly workgroups: number; readonly splitDepth: number };
}

function baseVariant(tileRows: number, tileColumns: number, threadRows: number, threadColumns: number): MatmulVariant {
  const groups = threadColumns / 4;
  // Where a thread has 8 x 8 sums, a product has few threads: it needs more workgroups.
  const largest = threadRows * threadColumns === 64;
  return {
    name: `base-${tileRows}x${tileColumns}-${threadRows}x${threadColumns}`,
    suits: (_, { sides }) => groups % sides === 0,
    kernel: matmulKernel,
    parameters: { TILE_ROWS: tileRows, TILE_COLUMNS: tileColumns, THREAD_ROWS: threadRows, THREAD_GROUPS: groups },
    tileRows,
    tileColumns,
    step: 16,
    workgroups: largest ? 256 : 128,
    splitDepth: 128,
    ...(largest && { full: { workgroups: 1024, splitDepth: 2048 } }),
  };
}

/** A tile of 4 `blocks` rows and 4 `lanes` columns. */
function softwareVariant(lanes: 4 | 8, name: string, blocks: number): MatmulVariant {
  return {
    name,
    suits: (device) => softwareLanes(device) === lanes,
    kernel: softwareKernel,
    parameters: { LANES: lanes, subgroupSize: lanes, ROWS: 4 * blocks },
    tileRows: 4 * blocks,
    tileColumns: 4 * lanes,
    step: 4,
    workgroups: 8,
    splitDepth: 1024,
  };
}

/** Multiplies matrices of 16 x 16 f16 in subgroups of 32 lanes. It takes f16 operands, so forward products alone: gradients are f32. */
function matrixVariant(tile: number, step: number): MatmulVariant {
  return {
    name: `matrix-${tile}x${tile}`,
    suits: ({ features, subgroupMatrices, subgroupSizes: [least, most] }, { a, b }) =>
      a === 'f16' &&
      b === 'f16' &&
      ['shader-f16', 'subgroups', 'subgroup-size-control'].every((name) => features.has(name)) &&
      least <= 32 &&
      most >= 32 &&
      subgroupMatrices.some(
        ({ componentType, resultComponentType, M, N, K }) =>
          componentType === 'f16' && resultComponentType === 'f32' && [M, N, K].every((size) => size === 16),
      ),
    kernel: matrixKernel,
    parameters: { TILE_ROWS: tile, TILE_COLUMNS: tile, STEP: step },
    tileRows: tile,
    tileColumns: tile,
    step,
    workgroups: 128,
    splitDepth: 128,
  };
}

const variants: readonly MatmulVariant[] = [
  ...([8, 4] as const).flatMap((lanes) => [
    softwareVariant(lanes, 'software', lanes),
    softwareVariant(lanes, 'software-short', lanes / 2),
  ]),
  baseVariant(64, 64, 8, 4),
  baseVariant(64, 64, 4, 8),
  baseVariant(64, 64, 8, 8),
  baseVariant(128, 64, 8, 8),
  baseVariant(32, 32, 4, 4),
  baseVariant(32, 64, 4, 8),
  baseVariant(16, 64, 4, 4),
  baseVariant(16, 64, 4, 8),
  baseVariant(64, 16, 4, 4),
  matrixVariant(64, 32),
  matrixVariant(128, 16),
];

type ShippedTiles = Readonly<Record<MatmulSize, readonly [one: string, dual: string]>>;

/**
 * A thread with 32 sums needs 64 registers: GPUs with subgroups of 64 (AMD's GCN) or of 8 to 32 (Intel's), and all others that are not
 * known to have more, have those for several subgroups at a time. A dual product needs two groups of columns in a thread.
 */
const tilesForFewRegisters: ShippedTiles = {
  large: ['base-64x64-8x4', 'base-64x64-4x8'],
  small: ['base-32x32-4x4', 'base-64x64-4x8'],
  short: ['base-16x64-4x4', 'base-16x64-4x8'],
  narrow: ['base-64x16-4x4', 'base-64x64-4x8'],
};

/**
 * GPUs with subgroups of 32 (AMD's RDNA, NVIDIA's) have registers for several subgroups with 64 sums a thread, which read half as
 * many bytes of workgroup memory for a multiplication as 16 sums do.
 */
const tilesForManyRegisters: ShippedTiles = {
  large: ['base-64x64-8x8', 'base-64x64-8x8'],
  small: ['base-32x64-4x8', 'base-32x64-4x8'],
  short: ['base-16x64-4x4', 'base-16x64-4x8'],
  narrow: ['base-64x16-4x4', 'base-32x64-4x8'],
};

/** On a software adapter all sizes take one kernel: another takes half a second to compile, which few rows win back in a thousand runs. */
function shippedVariant(device: Device, { sides, size }: MatmulKey): string {
  if ([4, 8].includes(softwareLanes(device) ?? 0)) return 'software';
  const tiles = device.subgroupSizes[0] === 32 ? tilesForManyRegisters : tilesForFewRegisters;
  return tiles[size][sides - 1];
}

/** The class of an output [rows, columns], `batches` of them. */
export function matmulSize(rows: number, columns: number, batches: number): MatmulSize {
  if (rows <= 16) return 'short';
  if (columns <= 16) return 'narrow';
  return batches * Math.ceil(rows / 64) * Math.ceil(columns / 64) >= 64 ? 'large' : 'small';
}

/** The splits of its depth that a product of so many tiles gets. */
export function splitsOf({ workgroups, splitDepth, full }: MatmulVariant, tiles: number, depth: number): number {
  const most = (count: number, terms: number) => Math.min(Math.ceil(count / tiles), Math.floor(depth / terms));
  return Math.max(1, most(workgroups, splitDepth), full ? most(full.workgroups, full.splitDepth) : 1);
}

const chosen = new WeakMap<Device, readonly MatmulChoice[]>();

/** The names of the variants that run on a device; the first is the one in use unless another was chosen. */
export function matmulVariants(device: Device, key: MatmulKey): string[] {
  const shipped = shippedVariant(device, key);
  const others = variants.filter(({ name, suits }) => name !== shipped && suits(device, key));
  return [shipped, ...others.map(({ name }) => name)];
}

/**
 * Takes other variants, from a tuning file before the first step or for a comparison; an empty list means the shipped ones again.
 *
 * @throws Error naming the first choice that this device cannot run
 */
export function useMatmulVariants(device: Device, choices: readonly MatmulChoice[]): void {
  for (const choice of choices) {
    const names = matmulVariants(device, choice);
    if (!names.includes(choice.variant))
      throw new Error(
        `useMatmulVariants: ${choice.size} products of ${choice.a} and ${choice.b}: no variant '${choice.variant}' on this device; it has ${names.join(', ')}`,
      );
  }
  chosen.set(device, choices);
}

/** The choices that `useMatmulVariants` was last given. */
export function matmulChoices(device: Device): readonly MatmulChoice[] {
  return chosen.get(device) ?? [];
}

export function matmulVariant(device: Device, key: MatmulKey): string {
  const fields = ['a', 'b', 'transposeA', 'transposeB', 'sides', 'size'] as const;
  const choice = chosen.get(device)?.find((own) => fields.every((field) => own[field] === key[field]));
  return choice?.variant ?? shippedVariant(device, key);
}

export function matmulLaunch(device: Device, key: MatmulKey): MatmulVariant {
  const name = matmulVariant(device, key);
  return variants.find((variant) => variant.name === name && variant.suits(device, key))!;
}
