import { type AttentionTable, attentionTable, type Block, type Edge, sequence } from '../../kernels/index.ts';

/** Sizes of one expert. All experts of a mixture have the same depth, heads and head dimension. */
export interface TransformerSizes {
  readonly width: number;
  /** Width of the gated MLP. */
  readonly hidden: number;
}

export interface VisionSizes {
  readonly width: number;
  readonly depth: number;
  readonly heads: number;
  readonly hidden: number;
  /** Side of a square patch, in pixels. */
  readonly patch: number;
  readonly imageHeight: number;
  readonly imageWidth: number;
  readonly cameras: number;
}

/** A block of the token sequence: the input it is made from, and the expert it runs through. */
export interface BlockSettings {
  readonly name: string;
  readonly length: number;
  readonly weights: 'backbone' | 'expert';
  readonly input: 'images' | 'ids' | 'state' | 'actions';
  /** The positions of this block start after the real tokens of these blocks. */
  readonly after: readonly string[];
}

/** Everything that determines a model's parameters and its forward pass. It is plain data, stored in the checkpoint. */
export interface ModelConfiguration {
  readonly backbone: TransformerSizes & { readonly vocabulary: number };
  /** The action expert. `time`: the flow time conditions its RMSNorms (adaptive), or is concatenated to the noisy actions. */
  readonly expert: (TransformerSizes & { readonly time: 'adaptive' | 'concatenate' }) | null;
  readonly depth: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDimension: number;
  readonly vision: VisionSizes | null;
  /** Actions in a chunk. */
  readonly horizon: number;
  readonly actionDimension: number;
  readonly stateDimension: number;
  readonly blocks: readonly BlockSettings[];
  readonly edges: readonly { readonly query: string; readonly key: string; readonly edge: Edge }[];
  readonly losses: { readonly token: boolean; readonly flow: boolean; readonly alpha: number };
}

export function tokensPerImage(vision: VisionSizes): number {
  return Math.floor(vision.imageHeight / vision.patch) * Math.floor(vision.imageWidth / vision.patch);
}

/** The attention table over the named blocks, in sequence order; edges to other blocks are left out. */
export function tableOf(configuration: ModelConfiguration, names: readonly string[]): AttentionTable {
  const blocks = configuration.blocks.filter((block) => names.includes(block.name));
  const rows: Record<string, Record<string, Edge>> = {};
  for (const { query, key, edge } of configuration.edges) {
    if (!names.includes(query) || !names.includes(key)) continue;
    rows[query] ??= {};
    rows[query][key] = edge;
  }
  return attentionTable(sequence(blocks.map((block) => [block.name, block.length] as const)), rows);
}

/** The padding mask of each block: [batch, length], 1 for real tokens. A block that is missing has no padding. */
export type ValidityByBlock = Readonly<Record<string, ArrayLike<number>>>;

/** The padding mask of the joint sequence [batch, tokens], blocks in order. */
export function jointValidity(blocks: readonly Block[], batch: number, validity: ValidityByBlock): Uint8Array {
  const tokens = blocks.reduce((sum, block) => sum + block.length, 0);
  const joint = new Uint8Array(batch * tokens).fill(1);
  for (const { name, start, length } of blocks) {
    const own = validity[name];
    if (!own) continue;
    for (let sample = 0; sample < batch; sample++)
      for (let i = 0; i < length; i++) joint[sample * tokens + start + i] = own[sample * length + i] ? 1 : 0;
  }
  return joint;
}

/**
 * Positions [batch, tokens] of the named blocks: a block starts after the real tokens of the blocks it comes `after`,
 * and padding does not advance the position.
 */
export function jointPositions(
  configuration: ModelConfiguration,
  names: readonly string[],
  batch: number,
  validity: ValidityByBlock,
): Int32Array {
  const chosen = configuration.blocks.filter((block) => names.includes(block.name));
  const real = (block: BlockSettings, sample: number, i: number) => {
    const own = validity[block.name];
    return own ? (own[sample * block.length + i] ? 1 : 0) : 1;
  };
  const positions: number[] = [];
  for (let sample = 0; sample < batch; sample++)
    for (const block of chosen) {
      let position = 0;
      for (const before of configuration.blocks)
        if (block.after.includes(before.name))
          for (let i = 0; i < before.length; i++) position += real(before, sample, i);
      for (let i = 0; i < block.length; i++) {
        positions.push(position);
        position += real(block, sample, i);
      }
    }
  return Int32Array.from(positions);
}
