/**
 * A mixture of transformers. An expert is one set of transformer weights; every token runs through the weights of its own expert, and
 * the experts meet only in attention. Each expert has a residual stream x, and each layer adds two branches to it:
 *
 *   attention  each expert projects its rows of x to q, k and v, which blockLinear writes into one joint sequence; attention runs over
 *              the joint sequence by the system's table, and each expert projects its rows of the result back
 *   MLP        each expert has its own gated MLP
 *
 * An expert may also read memory, rows outside of the joint sequence, by a branch before these two: cross-attention.ts.
 *
 * A branch begins with an RMSNorm. After a plain norm, the last product of the branch adds x. An adaptive norm takes scale, shift and
 * gate from a condition such as the flow time; then the branch is multiplied by the gate before x is added.
 *
 * The first expert is the backbone, which embeds and predicts tokens; others are an action expert and those that a system adds. A pass
 * may leave experts out: at inference the prefix runs alone and leaves keys and values in a cache, and the suffix attends to these.
 */
import { type ParameterSet, recompute, stopGradient, type Tensor, zeroTensor } from '../../engine/index.ts';
import {
  type AttentionTable,
  attention,
  type BlockLayout,
  blockLinear,
  blockSplitLinear,
  cast,
  concatenateTokens,
  type RowsOfBlock,
  reshape,
  rotary,
  rotaryHeads,
  sliceTokens,
} from '../../kernels/index.ts';
import { type Backbone, backboneOf } from './backbones/index.ts';
import { jointRowNumbers, rowsAt } from './chosen-rows.ts';
import { type BlockSettings, hasKeys, type ModelConfiguration } from './configuration.ts';
import { type AttentionRun, type CrossAttention, crossAttentionOf, type Memory } from './cross-attention.ts';
import { ExpertLayer } from './expert-layer.ts';
import { type Layer, Norm } from './layers.ts';
import { mapped } from './records.ts';

/** A value for each expert, by the expert's name. */
export type PerExpert<T> = Readonly<Record<string, T>>;

/** All rows of an expert, or those with these numbers [count] u32, counted through the batch; a number beyond the last means zeros. */
export type ChosenRows = 'all' | Tensor;

/** Stores the keys and values [batch, rows, kvHeads, headDimension] of the rows that run, and returns all that are attended to. */
export type Cache = (layer: number, key: Tensor, value: Tensor) => { key: Tensor; value: Tensor };

export interface MixtureOptions {
  /** Activation checkpointing: backward runs every layer again instead of keeping its activations. Not with a cache. */
  readonly recompute?: boolean;
  /** Gets every attention of the experts, with the number of its layer from 0, while the pass runs. */
  readonly onAttention?: (layer: number, run: AttentionRun) => void;
}

export interface MixturePass extends MixtureOptions {
  /** Experts from whose rows a gradient would reach frozen parameters alone: none is computed for them. */
  readonly stopped?: readonly string[];
  /** Names in the table of the blocks of the other experts; default: all blocks. */
  readonly liveBlocks?: readonly string[];
  /** The experts that run, each with its residual stream before the first layer: [batch, rows of the expert, width of the expert]. */
  readonly inputs: PerExpert<Tensor>;
  /** The blocks that run, in order, one entry for each copy. */
  readonly blocks: readonly BlockSettings[];
  /** The name in the attention table of each of these blocks, or some rows of the block of that name. */
  readonly queries: readonly (string | RowsOfBlock)[];
  /** The attention table over the blocks in the cache and, after them, the blocks that run. */
  readonly table: AttentionTable;
  /** The padding mask [batch, tokens of the table] u32, 0 for padding. */
  readonly validity: Tensor;
  /** Cosines and sines of the rows that run: [batch, rows, headDimension / 2, 2]. */
  readonly rotaryTable: Tensor;
  /** Each expert's condition of its adaptive norms: [batch, width], or [batch * copies, width], or [batch * rows, width]; see `Norm`. */
  readonly conditions?: PerExpert<Tensor>;
  /** Names in the table of the blocks with a loss on their final hidden states: only their rows of the last attention run backward. */
  readonly lossBlocks?: readonly string[];
  /**
   * The rows of each expert that are read after the last layer; default: all rows of all experts. The last layer makes keys and values
   * of every row, but all else for these rows alone. An expert without an entry has no output; chosen rows come as [1, count, width],
   * and are only for experts with plain norms.
   */
  readonly finalRows?: PerExpert<ChosenRows>;
  readonly cache?: Cache;
  /** The memory that the rows of each expert read by cross-attention. */
  readonly memory?: PerExpert<Memory>;
}

export interface MixtureResult {
  /** The output of each expert after its final norm. It has the `finalRows` alone, as the last of `residuals` does. */
  readonly hidden: PerExpert<Tensor>;
  /** The residual stream of each expert before the first layer and after each layer. */
  readonly residuals: readonly PerExpert<Tensor>[];
}

export class Mixture {
  /** By expert: its layers in order, its final norm, and its cross-attention, if it has one. */
  private readonly experts: PerExpert<{
    readonly layers: readonly ExpertLayer[];
    readonly norm: Norm;
    readonly cross: CrossAttention | null;
  }>;
  private readonly family: Backbone;

  constructor(private readonly configuration: ModelConfiguration) {
    this.family = backboneOf(configuration);
    const { names, norm } = this.family;
    this.experts = mapped(configuration.experts, (settings, name) => {
      const prefix = names.expert(name);
      return {
        layers: Array.from(
          { length: configuration.depth },
          (_, layer) => new ExpertLayer(name, `${prefix}.layers.${layer}`, settings, configuration, this.family),
        ),
        norm: new Norm(name, `${prefix}.norm`, settings.width, norm, settings.adaptive ?? false),
        cross: settings.crossAttention ? crossAttentionOf(configuration, name) : null,
      };
    });
  }

  /** The layers of one expert, for its parameters. */
  layersOf(expert: string): readonly Layer[] {
    const { layers, norm, cross } = this.experts[expert];
    return [...layers, norm, ...(cross ? [cross] : [])];
  }

  /** The cross-attention of an expert; null if it reads no memory. */
  crossAttentionOf(expert: string): CrossAttention | null {
    return this.experts[expert].cross;
  }

  run(values: ParameterSet, pass: MixturePass): MixtureResult {
    const { depth } = this.configuration;
    // Lists of tensors below have an element for each expert that runs, in this order.
    const names = Object.keys(this.experts).filter((name) => pass.inputs[name]);
    const last = pass.finalRows ? names.filter((name) => pass.finalRows![name]) : names;
    let x = names.map((name) => pass.inputs[name]);
    const byName = (tensors: readonly Tensor[], experts: readonly string[]): PerExpert<Tensor> =>
      Object.fromEntries(experts.map((name, i) => [name, tensors[i]]));
    const residuals = [byName(x, names)];
    const keyRotary = rowsOfBlocks(pass.rotaryTable, pass.blocks, hasKeys);
    for (let layer = 0; layer < depth; layer++) {
      const onAttention = pass.onAttention && ((own: AttentionRun) => pass.onAttention!(layer, own));
      const before = x;
      const after = layer === depth - 1 ? last : names;
      const run = () => {
        if (after.length === 0) return [];
        // The streams after the branch by which rows read memory, in layers that have one.
        const entering = names.map((name, i) => {
          const { cross } = this.experts[name];
          const memory = pass.memory?.[name] && { ...pass.memory[name], onAttention };
          return cross?.run(values, layer, before[i], memory, pass.conditions?.[name]) ?? before[i];
        });
        return this.runLayer(values, pass, names, after, layer, entering, keyRotary);
      };
      const entered = pass.recompute ? recompute(before[0], 'mixture layer', run) : run();
      x = entered.map((own, i) => (pass.stopped?.includes(after[i]) ? stopGradient(own) : own));
      residuals.push(byName(x, after));
    }
    const hidden = last.map((name, i) =>
      cast(this.experts[name].norm.run(values, x[i], pass.conditions?.[name]).output, 'f32'),
    );
    return { hidden: byName(hidden, last), residuals };
  }

  /** Runs one layer: from the residual streams `x` of the experts `names` to those of the experts `after`, which are some of them. */
  private runLayer(
    values: ParameterSet,
    {
      blocks,
      queries,
      table,
      validity,
      rotaryTable,
      conditions = {},
      cache,
      lossBlocks,
      liveBlocks,
      stopped = [],
      finalRows,
      ...pass
    }: MixturePass,
    names: readonly string[],
    after: readonly string[],
    layer: number,
    x: readonly Tensor[],
    keyRotary: Tensor | null,
  ): Tensor[] {
    const { heads, kvHeads, headDimension, depth } = this.configuration;
    const { layout } = this.family.rotary;
    const isLast = layer === depth - 1;
    const layers = names.map((name) => this.experts[name].layers[layer]);
    const normed = layers.map(({ attentionNorm }, i) => attentionNorm.run(values, x[i], conditions[names[i]]));
    const inHeads = (projected: Tensor) => {
      const [batch, rows, width] = projected.shape;
      return reshape(projected, [batch, rows, width / headDimension, headDimension]);
    };
    const project = (parts: readonly ('query' | 'key' | 'value')[], runs: (block: BlockSettings) => boolean) => {
      const weights = layers.map((own) => parts.map((part) => own[part].weight(values)));
      const inputs = normed.map(({ output }) => output);
      return inHeads(blockLinear(inputs, weights, layoutOf(blocks, names, runs)));
    };
    // Beside adapted matrices every expert makes one part after the other, and their rows are joined.
    const projectPart = (part: 'query' | 'key' | 'value', runs: (block: BlockSettings) => boolean) => {
      const rows = names.map((name, i) => {
        const ofBlocks = blocks.filter(({ weights }) => weights === name);
        const input = rowsOfBlocks(normed[i].output, ofBlocks, runs);
        return input && layers[i][part].run(values, input);
      });
      return inHeads(joined(rows, layoutOf(blocks.filter(runs), names)));
    };
    const isAdapted = layers.some(({ adapted }) => adapted);
    // An expert that `after` leaves out gives keys and values to this layer, but asks nothing.
    const hasQueries = ({ weights }: BlockSettings) => after.includes(weights);
    // If all blocks have queries and keys, one product makes both. If not, queries and keys have joint sequences of their own.
    const projectHeads = (): { query: Tensor; key: Tensor; value: Tensor } => {
      if (!isAdapted && blocks.every((block) => hasQueries(block) && hasKeys(block)))
        return rotaryHeads(project(['query', 'key', 'value'], hasKeys), rotaryTable, { heads, kvHeads, layout });
      const asking = isAdapted ? projectPart('query', hasQueries) : project(['query'], hasQueries);
      const query = rotary(asking, rowsOfBlocks(rotaryTable, blocks, hasQueries)!, { layout });
      if (keyRotary && isAdapted) {
        const key = rotary(projectPart('key', hasKeys), keyRotary, { layout });
        return { query, key, value: projectPart('value', hasKeys) };
      }
      if (keyRotary)
        return { ...rotaryHeads(project(['key', 'value'], hasKeys), keyRotary, { heads: 0, kvHeads, layout }), query };
      const none = () => zeroTensor(values.device, [query.shape[0], 0, kvHeads, headDimension], query.dtype, 'no keys');
      return { query, key: none(), value: none() };
    };
    const { query, key: ownKey, value: ownValue } = projectHeads();
    const { key, value } = cache ? cache(layer, ownKey, ownValue) : { key: ownKey, value: ownValue };
    const attending = { table, validity, queries: queries.filter((_, i) => hasQueries(blocks[i])) };
    const attended = attention(query, key, value, { ...attending, lossBlocks: isLast ? lossBlocks : liveBlocks });
    pass.onAttention?.(layer, { ...attending, query, key, value, output: attended });
    const [batch, rows] = attended.shape;
    const joint = reshape(attended, [batch, rows, heads * headDimension]);
    const chosen = (name: string) => {
      const rows = isLast ? finalRows?.[name] : undefined;
      return rows === 'all' ? undefined : rows;
    };
    const asking = blocks.filter(hasQueries);
    const queryLayout = layoutOf(asking, names);
    const isSplit = (name: string, { adapted }: ExpertLayer) => after.includes(name) && !chosen(name) && !adapted;
    const branches = blockSplitLinear(
      joint,
      layers.map((own, i) => (isSplit(names[i], own) ? own.output.weight(values) : null)),
      queryLayout,
      { residuals: normed.map(({ residual }) => residual ?? null) },
    );
    return after.map((name) => {
      const i = names.indexOf(name);
      const numbers = chosen(name);
      if (!numbers) {
        const own = () => rowsOfBlocks(joint, asking, ({ weights }) => weights === name)!;
        const branch = branches[i] ?? layers[i].output.run(values, own(), { residual: normed[i].residual });
        const kept = stopped.includes(name) ? stopGradient(branch) : branch;
        return layers[i].runMlp(values, normed[i].add(kept), conditions[name]);
      }
      const residual = rowsAt(numbers, x[i]);
      const attendedRows = rowsAt(jointRowNumbers(numbers, queryLayout, i, batch), joint);
      const output = layers[i].output.run(values, attendedRows, { residual });
      return layers[i].runMlp(values, output, undefined);
    });
  }
}

/** The layout of the joint sequence. A block's `input` is the index of its expert in `names`; only blocks that `runs` are joined. */
function layoutOf(
  blocks: readonly BlockSettings[],
  names: readonly string[],
  runs: (block: BlockSettings) => boolean = () => true,
): BlockLayout {
  return blocks.map((block) => ({ input: names.indexOf(block.weights), length: block.length, joined: runs(block) }));
}

/** The joint sequence of the rows of the experts; an expert without rows in the layout is null. */
function joined(rows: readonly (Tensor | null)[], layout: BlockLayout): Tensor {
  const used = rows.map(() => 0);
  const parts = layout.map(({ input, length }) => {
    const start = used[input];
    used[input] += length;
    const own = rows[input]!;
    return own.shape[1] === length ? own : sliceTokens(own, start, length);
  });
  return parts.length > 1 ? concatenateTokens(parts) : parts[0];
}

/** The rows of x [batch, rows, ...] that belong to the wanted blocks; null if there are none. */
function rowsOfBlocks(
  x: Tensor,
  blocks: readonly BlockSettings[],
  isWanted: (block: BlockSettings) => boolean,
): Tensor | null {
  if (blocks.every(isWanted)) return x;
  let start = 0;
  const parts = blocks.flatMap((block) => {
    start += block.length;
    return isWanted(block) ? [sliceTokens(x, start - block.length, block.length)] : [];
  });
  return parts.length > 1 ? concatenateTokens(parts) : (parts[0] ?? null);
}
