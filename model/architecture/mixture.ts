/**
 * A mixture of transformers: every token runs through the weights of its own expert, and the experts meet only in
 * attention.
 *
 *   q, k, v    each expert projects its rows by its own matrices, into one joint tensor (blockLinear: one product of three matrices)
 *   attention  runs over the joint sequence, by the system's table
 *   x          gets each expert's own output projection added, then its own gated MLP
 *
 * Both branches begin with an RMSNorm. A plain norm leaves the residual sum to the last product of its branch. An adaptive norm, which
 * takes scale, shift and gate from a condition such as the flow time, multiplies the branch by the gate and adds it itself.
 *
 * The first expert is the backbone, which embeds tokens and predicts them; others are an action expert and whatever a system adds.
 * Any may be absent from a pass: at inference the prefix runs alone and leaves its keys and values in a cache, and the suffix
 * attends to the cache.
 */
import { hostTensor, type ParameterSet, recompute, type Tensor, zeroTensor } from '../../engine/index.ts';
import {
  type AttentionTable,
  attention,
  type BlockLayout,
  blockLinear,
  blockSplitLinear,
  concatenateTokens,
  embedding,
  gatedMlp,
  linear,
  type RowsOfBlock,
  reshape,
  rotary,
  rotaryHeads,
  sliceTokens,
} from '../../kernels/index.ts';
import { type Backbone, backboneOf } from './backbones/index.ts';
import { type BlockSettings, type ExpertSettings, hasKeys, type ModelConfiguration } from './configuration.ts';
import { type Layer, Linear, Norm, parametersOfLayers } from './layers.ts';

/** One value for each expert that runs, by its name. */
export type PerExpert<T> = Readonly<Record<string, T>>;

/** All rows of an expert, or some [count] u32, numbered through the batch; a number that is no row stands for a row of zeros. */
export type ChosenRows = 'all' | Tensor;

/** Stores the keys and values of the rows that run, and returns all keys and values to attend to. */
export type Cache = (layer: number, key: Tensor, value: Tensor) => { key: Tensor; value: Tensor };

export interface MixtureOptions {
  /** Activation checkpointing: backward runs every layer again instead of keeping its activations. Not with a cache. */
  readonly recompute?: boolean;
}

export interface MixturePass extends MixtureOptions {
  /** [batch, rows of the expert, its width] */
  readonly inputs: PerExpert<Tensor>;
  /** The blocks that run, in order, one entry for each copy. */
  readonly blocks: readonly BlockSettings[];
  /** The names of these blocks in the attention table, or rows of one block. */
  readonly queries: readonly (string | RowsOfBlock)[];
  /** The attention table over the blocks in the cache, then the blocks that run. */
  readonly table: AttentionTable;
  /** The padding mask [batch, tokens of the table] u32, 0 for padding. */
  readonly validity: Tensor;
  /** Cosines and sines of the rows that run: [batch, rows, headDimension / 2, 2]. */
  readonly rotaryTable: Tensor;
  /** Conditions of the adaptive norms: [batch, width], or [batch * copies, width]. */
  readonly conditions?: PerExpert<Tensor>;
  /** Names in the table of blocks whose final hidden states have a loss; the last layer's attention runs backward for them only. */
  readonly lossBlocks?: readonly string[];
  /**
   * The rows of each expert that are read after the last layer; default: all of all. The last layer makes the keys and values of every
   * row, and the rest for these alone; an expert without an entry has no output. Some of the rows become one sample [1, count, width].
   */
  readonly finalRows?: PerExpert<ChosenRows>;
  readonly cache?: Cache;
}

export interface MixtureResult {
  /** The output of each expert after its final norm; of its `finalRows` alone, like the last residual stream. */
  readonly hidden: PerExpert<Tensor>;
  /** The residual stream of each expert before the first layer and after each layer. */
  readonly residuals: readonly PerExpert<Tensor>[];
}

/** The weights of one expert in one layer. */
class ExpertLayer implements Layer {
  readonly parameters;
  readonly attentionNorm: Norm;
  readonly query: Linear;
  readonly key: Linear;
  readonly value: Linear;
  readonly output: Linear;
  private readonly mlpNorm: Norm;
  private readonly mlp: readonly Linear[];

  constructor(
    group: string,
    prefix: string,
    { width, hidden, adaptive = false }: ExpertSettings,
    { heads, kvHeads, headDimension }: ModelConfiguration,
    private readonly family: Backbone,
  ) {
    const norm = (name: string) => new Norm(group, `${prefix}.${name}`, width, family.norm, adaptive);
    const matrix = (name: string, outputs: number, inputs: number) =>
      new Linear(group, `${prefix}.${name}`, { outputs, inputs }, { bias: false });
    this.attentionNorm = norm('input_layernorm');
    this.query = matrix('self_attn.q_proj', heads * headDimension, width);
    this.key = matrix('self_attn.k_proj', kvHeads * headDimension, width);
    this.value = matrix('self_attn.v_proj', kvHeads * headDimension, width);
    this.output = matrix('self_attn.o_proj', width, heads * headDimension);
    this.mlpNorm = norm('post_attention_layernorm');
    this.mlp = [
      matrix('mlp.gate_proj', hidden, width),
      matrix('mlp.up_proj', hidden, width),
      matrix('mlp.down_proj', width, hidden),
    ];
    const { attentionNorm, query, key, value, output, mlpNorm, mlp } = this;
    this.parameters = parametersOfLayers([attentionNorm, query, key, value, output, mlpNorm, ...mlp]);
  }

  /** x [batch, rows, width] + MLP(norm(x)) */
  runMlp(values: ParameterSet, x: Tensor, condition: Tensor | undefined): Tensor {
    const { output, residual, add } = this.mlpNorm.run(values, x, condition);
    const [gate, up, down] = this.mlp.map((matrix) => matrix.weight(values));
    const { activation } = this.family;
    return add(gatedMlp(output, gate, up, down, { residual, activation }));
  }
}

export class Mixture {
  /** By expert: its layers in order, then its final norm. */
  private readonly experts: PerExpert<{ readonly layers: readonly ExpertLayer[]; readonly norm: Norm }>;
  private readonly family: Backbone;

  constructor(private readonly configuration: ModelConfiguration) {
    this.family = backboneOf(configuration);
    const { names, norm } = this.family;
    this.experts = Object.fromEntries(
      Object.entries(configuration.experts).map(([name, settings]) => {
        const prefix = names.expert(name);
        const layers = Array.from(
          { length: configuration.depth },
          (_, layer) => new ExpertLayer(name, `${prefix}.layers.${layer}`, settings, configuration, this.family),
        );
        return [
          name,
          { layers, norm: new Norm(name, `${prefix}.norm`, settings.width, norm, settings.adaptive ?? false) },
        ];
      }),
    );
  }

  /** The layers of one expert, for its parameters. */
  layersOf(expert: string): readonly Layer[] {
    const { layers, norm } = this.experts[expert];
    return [...layers, norm];
  }

  run(values: ParameterSet, pass: MixturePass): MixtureResult {
    const { depth } = this.configuration;
    // Below, lists have an element for each expert that runs, in this order.
    const names = Object.keys(this.experts).filter((name) => pass.inputs[name]);
    const read = pass.finalRows ? names.filter((name) => pass.finalRows![name]) : names;
    let x = names.map((name) => pass.inputs[name]);
    const byName = (tensors: readonly Tensor[], own: readonly string[]): PerExpert<Tensor> =>
      Object.fromEntries(own.map((name, i) => [name, tensors[i]]));
    const residuals = [byName(x, names)];
    const keyRotary = rowsOfBlocks(pass.rotaryTable, pass.blocks, hasKeys);
    for (let layer = 0; layer < depth; layer++) {
      const before = x;
      const after = layer === depth - 1 ? read : names;
      const run = () => this.runLayer(values, pass, names, after, layer, before, keyRotary);
      x = pass.recompute ? [...recompute(before[0], 'mixture layer', run)] : run();
      residuals.push(byName(x, after));
    }
    const hidden = read.map((name, i) => this.experts[name].norm.run(values, x[i], pass.conditions?.[name]).output);
    return { hidden: byName(hidden, read), residuals };
  }

  /** From the residual streams of the experts of `names` before the layer to those of `after`, which is a part of them, after it. */
  private runLayer(
    values: ParameterSet,
    { blocks, queries, table, validity, rotaryTable, conditions = {}, cache, lossBlocks, finalRows }: MixturePass,
    names: readonly string[],
    after: readonly string[],
    layer: number,
    x: readonly Tensor[],
    keyRotary: Tensor | null,
  ): Tensor[] {
    if (after.length === 0) return [];
    const { heads, kvHeads, headDimension, depth } = this.configuration;
    const { layout: pairs } = this.family.rotary;
    const isLast = layer === depth - 1;
    const experts = names.map((name) => this.experts[name].layers[layer]);
    const normed = experts.map(({ attentionNorm }, i) => attentionNorm.run(values, x[i], conditions[names[i]]));
    const project = (parts: readonly ('query' | 'key' | 'value')[], runs: (block: BlockSettings) => boolean) => {
      const weights = experts.map((expert) => parts.map((part) => expert[part].weight(values)));
      const inputs = normed.map(({ output }) => output);
      const projected = blockLinear(inputs, weights, layoutOf(blocks, names, runs));
      const [batch, rows, width] = projected.shape;
      return reshape(projected, [batch, rows, width / headDimension, headDimension]);
    };
    const asks = ({ weights }: BlockSettings) => after.includes(weights);
    const ownHeads = (): { query: Tensor; key: Tensor; value: Tensor } => {
      if (blocks.every((block) => asks(block) && hasKeys(block)))
        return rotaryHeads(project(['query', 'key', 'value'], hasKeys), rotaryTable, { heads, kvHeads, layout: pairs });
      const query = rotary(project(['query'], asks), rowsOfBlocks(rotaryTable, blocks, asks)!, { layout: pairs });
      if (keyRotary)
        return {
          ...rotaryHeads(project(['key', 'value'], hasKeys), keyRotary, { heads: 0, kvHeads, layout: pairs }),
          query,
        };
      const none = () => zeroTensor(values.device, [query.shape[0], 0, kvHeads, headDimension], 'f32', 'no keys');
      return { query, key: none(), value: none() };
    };
    const { query, key: ownKey, value: ownValue } = ownHeads();
    const { key, value } = cache ? cache(layer, ownKey, ownValue) : { key: ownKey, value: ownValue };
    const attended = attention(query, key, value, {
      ...{ table, validity, queries: queries.filter((_, i) => asks(blocks[i])) },
      lossBlocks: isLast ? lossBlocks : undefined,
    });
    const [batch, rows] = attended.shape;
    const joint = reshape(attended, [batch, rows, heads * headDimension]);
    const chosen = (name: string) => {
      const own = isLast ? finalRows?.[name] : undefined;
      return own === 'all' ? undefined : own;
    };
    const layout = layoutOf(blocks.filter(asks), names);
    const branches = blockSplitLinear(
      joint,
      experts.map((expert, i) => (after.includes(names[i]) && !chosen(names[i]) ? expert.output.weight(values) : null)),
      layout,
      { residuals: normed.map(({ residual }) => residual ?? null) },
    );
    return after.map((name) => {
      const i = names.indexOf(name);
      const own = chosen(name);
      if (!own) return experts[i].runMlp(values, normed[i].add(branches[i]!), conditions[name]);
      const residual = rowsAt(own, x[i]);
      const seen = rowsAt(inJointRows(own, layout, i, batch), joint);
      const output = linear(seen, experts[i].output.weight(values), null, { residual });
      return experts[i].runMlp(values, output, undefined);
    });
  }
}

/** A block's input is the place of its expert in `names`; those that `runs` leaves out have no rows in the joint sequence. */
function layoutOf(
  blocks: readonly BlockSettings[],
  names: readonly string[],
  runs: (block: BlockSettings) => boolean = () => true,
): BlockLayout {
  return blocks.map((block) => ({ input: names.indexOf(block.weights), length: block.length, joined: runs(block) }));
}

/** The rows of some of the blocks of x [batch, rows, ...]; null if there are none. */
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

/** Rows `at` of x [batch, rows, width], numbered through the batch: [1, count, width]. */
function rowsAt(at: Tensor, x: Tensor): Tensor {
  const [batch, rows, width] = x.shape;
  return reshape(embedding(at, reshape(x, [batch * rows, width])), [1, at.size, width]);
}

/** From the numbers of rows of one input of a layout to those of the same rows in the joint sequence. */
function inJointRows(own: Tensor, layout: BlockLayout, input: number, batch: number): Tensor {
  const inputs = layout.flatMap((block) => Array<number>(block.length).fill(block.input));
  const places = [...inputs.keys()].filter((place) => inputs[place] === input);
  const joint = (row: number) => Math.floor(row / places.length) * inputs.length + places[row % places.length];
  const none = batch * inputs.length;
  const numbers = (rows: ArrayLike<number>) =>
    Array.from(rows, (row) => (row < batch * places.length ? joint(row) : none));
  return hostTensor(own.device, [own], numbers, own.shape, { dtype: 'u32' });
}
