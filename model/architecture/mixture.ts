/**
 * A mixture of transformers: every token runs through the weights of its own expert, and the experts meet only in
 * attention.
 *
 *   q, k, v    each expert projects its rows by its own matrices, into one joint tensor (blockLinear; nothing is concatenated)
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
import { type ParameterSet, recompute, type Tensor, zeroTensor } from '../../engine/index.ts';
import {
  type AttentionTable,
  attention,
  type BlockLayout,
  blockLinear,
  blockSplitLinear,
  concatenateTokens,
  gatedMlp,
  type RowsOfBlock,
  reshape,
  rotary,
  sliceTokens,
} from '../../kernels/index.ts';
import { type Backbone, backboneOf } from './backbones/index.ts';
import { type BlockSettings, type ExpertSettings, hasKeys, type ModelConfiguration } from './configuration.ts';
import { type Layer, Linear, Norm, parametersOfLayers } from './layers.ts';

/** One value for each expert that runs, by its name. */
export type PerExpert<T> = Readonly<Record<string, T>>;

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
  readonly cache?: Cache;
}

export interface MixtureResult {
  /** The output of each expert after its final norm. */
  readonly hidden: PerExpert<Tensor>;
  /** The residual stream of each expert before the first layer and after each layer. */
  readonly residuals: readonly PerExpert<Tensor>[];
}

/** The rows [batch, rows, ...] of the blocks that have keys; null if none has. */
function rowsWithKeys(x: Tensor, blocks: readonly BlockSettings[]): Tensor | null {
  if (blocks.every(hasKeys)) return x;
  let start = 0;
  const parts = blocks.flatMap((block) => {
    start += block.length;
    return hasKeys(block) ? [sliceTokens(x, start - block.length, block.length)] : [];
  });
  return parts.length === 0 ? null : concatenateTokens(parts);
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
    let x = names.map((name) => pass.inputs[name]);
    const byName = (tensors: readonly Tensor[]) => Object.fromEntries(names.map((name, i) => [name, tensors[i]]));
    const residuals = [byName(x)];
    const keyRotary = rowsWithKeys(pass.rotaryTable, pass.blocks);
    for (let layer = 0; layer < depth; layer++) {
      const before = x;
      const run = () => this.runLayer(values, pass, names, layer, before, keyRotary);
      x = pass.recompute ? [...recompute(before[0], 'mixture layer', run)] : run();
      residuals.push(byName(x));
    }
    const hidden = names.map((name, i) => this.experts[name].norm.run(values, x[i], pass.conditions?.[name]).output);
    return { hidden: byName(hidden), residuals };
  }

  /** The residual streams of the experts of `names`, from those before the layer to those after it. */
  private runLayer(
    values: ParameterSet,
    { blocks, queries, table, validity, rotaryTable, conditions = {}, cache, lossBlocks }: MixturePass,
    names: readonly string[],
    layer: number,
    x: readonly Tensor[],
    keyRotary: Tensor | null,
  ): Tensor[] {
    const { heads, kvHeads, headDimension, depth } = this.configuration;
    const { layout: pairs } = this.family.rotary;
    const experts = names.map((name) => this.experts[name].layers[layer]);
    // A block's input is the place of its expert in these lists.
    const layout: BlockLayout = blocks.map(({ weights, length }) => ({ input: names.indexOf(weights), length }));
    const keyLayout: BlockLayout = layout.map((own, i) => ({ ...own, joined: hasKeys(blocks[i]) }));
    const normed = experts.map(({ attentionNorm }, i) => attentionNorm.run(values, x[i], conditions[names[i]]));
    const outputs = normed.map(({ output }) => output);
    const project = (name: 'query' | 'key' | 'value', count: number, of: BlockLayout) => {
      const weights = experts.map((expert) => expert[name].weight(values));
      const projected = blockLinear(outputs, weights, of);
      return reshape(projected, [...projected.shape.slice(0, 2), count, headDimension]);
    };
    const query = rotary(project('query', heads, layout), rotaryTable, { layout: pairs });
    const none = () => zeroTensor(values.device, [query.shape[0], 0, kvHeads, headDimension], 'f32', 'no keys');
    const ownKey = keyRotary ? rotary(project('key', kvHeads, keyLayout), keyRotary, { layout: pairs }) : none();
    const ownValue = keyRotary ? project('value', kvHeads, keyLayout) : none();
    const { key, value } = cache ? cache(layer, ownKey, ownValue) : { key: ownKey, value: ownValue };
    const attended = attention(query, key, value, {
      ...{ table, validity, queries },
      lossBlocks: layer === depth - 1 ? lossBlocks : undefined,
    });
    const branches = blockSplitLinear(
      reshape(attended, [...attended.shape.slice(0, 2), heads * headDimension]),
      experts.map((expert) => expert.output.weight(values)),
      layout,
      { residuals: normed.map(({ residual }) => residual ?? null) },
    );
    return experts.map((expert, i) => expert.runMlp(values, normed[i].add(branches[i]!), conditions[names[i]]));
  }
}
