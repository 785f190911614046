/**
 * The kernels of attention that a device can run, and which one it takes: the shipped default, or the choice of a tuning file.
 * All variants but the software adapter's are one file, attention.wgsl, with other parameters.
 */
import {
  bytesPerElement,
  type DataType,
  type Device,
  gridFor,
  type Kernel,
  loadKernel,
  type Parameters,
  roundUp,
} from '../engine/index.ts';
import type { PlanForm } from './attention-plan.ts';
import { TILE } from './attention-tiles.ts';
import { storage } from './operand.ts';
import { softwareLanes } from './variant.ts';

const kernel = await loadKernel(new URL('./attention.wgsl', import.meta.url));
const softwareKernel = await loadKernel(new URL('./attention.software.wgsl', import.meta.url));

export const attentionEntries = ['forward', 'backwardQuery', 'backwardKeyValue'] as const;
export type AttentionEntry = (typeof attentionEntries)[number];

/** The facts that decide the variant of an entry point, the same for every call of a model's. */
export interface VariantKey {
  readonly entry: AttentionEntry;
  readonly dtype: DataType;
  readonly headDimension: number;
}

export interface VariantChoice extends VariantKey {
  readonly variant: string;
}

export type AttentionSizes = Readonly<
  Record<'batch' | 'queryTokens' | 'keyTokens' | 'heads' | 'kvHeads' | 'headDimension', number>
>;

export interface Launch {
  readonly kernel: Kernel;
  /** `backward` makes all gradients at once, where a kernel file has that in place of both backward entry points. */
  readonly entry: AttentionEntry | 'backward';
  readonly parameters: Parameters;
  /** Fields of the kernel's uniform that the variant decides. */
  readonly uniform: Readonly<Record<string, number>>;
  readonly workgroups: readonly [number, number];
  /** Workgroups that share a list. */
  readonly splits: number;
  /** Results are slices in f32 that attention-rows.wgsl joins, even where there is one. */
  readonly slices: boolean;
}

interface Variant {
  readonly name: string;
  suits(device: Device): boolean;
  launch(device: Device, key: VariantKey, sizes: AttentionSizes, form: PlanForm): Launch;
}

// Workgroups worth having: with fewer, lists are shared. Four for each core of a large GPU of today would be 512; of a laptop's, 40 to 160.
const WORKGROUPS = 128;
const FULL_WORKGROUPS = 512;
const SOFTWARE_WORKGROUPS = 8;
// Each costs a slice of dk and dv, as long as all keys.
const SOFTWARE_BACKWARD_WORKGROUPS = 4;
const MOST_SPLITS = 16;
/** Workgroup memory of a team: two operands of TILE rows by 32 elements. */
const TEAM_BYTES = 2 * TILE * 32 * 4;

/** Named after the threads of its workgroups, which are teams of 64. */
function baseVariant(teams: 2 | 4): Variant {
  return {
    name: `base-${64 * teams}`,
    suits: ({ limits }) => limits.maxComputeWorkgroupStorageSize >= teams * TEAM_BYTES,
    launch(_, { entry, dtype, headDimension }, sizes, { queryTiles, keyTiles }) {
      const chunks = Math.ceil(headDimension / 32);
      const headsPerKv = sizes.heads / sizes.kvHeads;
      const byKey = entry === 'backwardKeyValue';
      const across = byKey ? sizes.kvHeads : sizes.heads;
      const tiles = byKey ? keyTiles.length : queryTiles.length;
      // Rounds of a workgroup in backward; forward, where each team takes another tile, has half as many.
      const items = (byKey ? queryTiles.length * headsPerKv : keyTiles.length) / (teams / 2);
      const workgroups = across * tiles * sizes.batch;
      // Where query heads share a kv head, dk and dv have fewer and longer lists than dq. Slices take the place of those heads until a
      // large GPU is full: they take at most twice the memory of dq, and at most 2 (FULL_WORKGROUPS + workgroups) tiles.
      const overHeads = byKey ? splitsFor(workgroups, items, FULL_WORKGROUPS, headsPerKv) : 1;
      const splits = Math.max(splitsFor(workgroups, items, WORKGROUPS), overHeads);
      const slices = splits > 1;
      return {
        kernel,
        entry,
        parameters: {
          TEAMS: teams,
          SUM_CHUNKS: Math.ceil(chunks / (byKey ? teams / 2 : teams)),
          ...storage(dtype),
          ...(slices && dtype !== 'f32' && entry === 'forward' && { OutputWord: 'slice', packOutput: 'slice' }),
        },
        uniform: { groups: headDimension / 4, chunks, rowThreads: 8 },
        workgroups: gridFor(workgroups * splits, 1),
        splits,
        slices,
      };
    },
  };
}

/** A workgroup is one subgroup, without workgroup memory. The kernel adds up in its result, in f32; where the result is packed, in slices. */
const software: Variant = {
  name: 'software',
  suits: (device) => [4, 8, 16].includes(softwareLanes(device) ?? 0),
  launch(device, { entry, dtype, headDimension }, sizes, { queryTiles, keyTiles }) {
    const { batch, heads, kvHeads } = sizes;
    const lanes = softwareLanes(device)!;
    const parts = queryTiles.length * (heads / kvHeads) * Math.max(1, TILE / (4 * lanes));
    const forward = entry === 'forward';
    const workgroups = forward ? parts * kvHeads * batch : kvHeads * batch;
    const splits = forward
      ? splitsFor(workgroups, keyTiles.length, SOFTWARE_WORKGROUPS)
      : Math.min(splitsFor(workgroups, parts, SOFTWARE_BACKWARD_WORKGROUPS), slicesInBinding(device, sizes));
    const { Word, unpack } = storage(dtype);
    return {
      kernel: softwareKernel,
      entry: forward ? entry : 'backward',
      parameters: { LANES: lanes, subgroupSize: lanes, ...(dtype !== 'f32' && { Word, unpack }) },
      uniform: { groups: headDimension / 4, dValueAt: dValueGroup(sizes), wantsQuery: 0, wantsKeyValue: 0 },
      workgroups: gridFor(workgroups * splits, 1),
      splits,
      slices: splits > 1 || (forward && bytesPerElement[dtype] < 4),
    };
  },
};

/** Groups of four elements from dk to dv, which is a view: it begins at a multiple of 256 bytes. */
function dValueGroup({ batch, keyTokens, kvHeads, headDimension }: AttentionSizes): number {
  return roundUp((batch * keyTokens * kvHeads * headDimension) / 4, 16);
}

/** How many slices of dk and dv together, as the software variant binds them, fit into one binding. */
function slicesInBinding(device: Device, sizes: AttentionSizes): number {
  return Math.floor(device.limits.maxStorageBufferBindingSize / (32 * dValueGroup(sizes)));
}

/** How many slices there are depends on shapes only, never on what a plan holds. A slice has two items at least. */
function splitsFor(workgroups: number, items: number, wanted: number, most = MOST_SPLITS): number {
  return Math.max(1, Math.min(Math.ceil(wanted / workgroups), Math.floor(items / 2), most));
}

const [base, wide] = [baseVariant(2), baseVariant(4)];
const variants = [software, base, wide];

function shippedVariant(device: Device, key: VariantKey): string {
  return software.suits(device) ? software.name : shippedBase(device, key);
}

/**
 * A thread of base-128 keeps D / 4 sums, or D / 2 of dk and dv, and in forward 16 more: four vectors of m and l. With more than 64 of all these, AMD's GCN
 * runs one subgroup at a time and RDNA 2 four or six; base-256 keeps half as many sums, where there is memory for it.
 */
function shippedBase(device: Device, key: VariantKey): string {
  const sums = {
    forward: key.headDimension / 4 + 16,
    backwardQuery: key.headDimension / 4,
    backwardKeyValue: key.headDimension / 2,
  };
  return (sums[key.entry] > 64 && wide.suits(device) ? wide : base).name;
}

const chosen = new WeakMap<Device, readonly VariantChoice[]>();

/** The names of the variants that run on a device; the first is the one in use unless another was chosen. */
export function attentionVariants(device: Device, key: VariantKey): string[] {
  const shipped = shippedVariant(device, key);
  const others = variants.filter((variant) => variant.name !== shipped && variant.suits(device));
  return [shipped, ...others.map(({ name }) => name)];
}

/**
 * Takes other variants, from a tuning file before the first step or for a comparison; an empty list means the shipped ones again.
 *
 * @throws Error naming the first choice that this device cannot run
 */
export function useAttentionVariants(device: Device, choices: readonly VariantChoice[]): void {
  for (const choice of choices) {
    const names = attentionVariants(device, choice);
    if (!names.includes(choice.variant))
      throw new Error(
        `useAttentionVariants: ${choice.entry} of ${choice.dtype}, head dimension ${choice.headDimension}: no variant '${choice.variant}' on this device; it has ${names.join(', ')}`,
      );
  }
  chosen.set(device, choices);
}

/** The choices that `useAttentionVariants` was last given. */
export function attentionChoices(device: Device): readonly VariantChoice[] {
  return chosen.get(device) ?? [];
}

/** The variant of these choices, by default of those in use: the shipped one where they name none. */
export function attentionVariant(device: Device, key: VariantKey, choices = attentionChoices(device)): string {
  const { entry, dtype, headDimension } = key;
  const choice = choices.find(
    (own) => own.entry === entry && own.dtype === dtype && own.headDimension === headDimension,
  );
  return choice?.variant ?? shippedVariant(device, key);
}

export function attentionLaunch(device: Device, key: VariantKey, sizes: AttentionSizes, form: PlanForm): Launch {
  const wanted = attentionVariant(device, key);
  // Where a binding has no room for dk and dv together, the base file makes them one by one.
  const tooLarge = key.entry !== 'forward' && slicesInBinding(device, sizes) < 1;
  const name = wanted === software.name && tooLarge ? shippedBase(device, key) : wanted;
  return variants.find((variant) => variant.name === name)!.launch(device, key, sizes, form);
}
