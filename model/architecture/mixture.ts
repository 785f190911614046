/**
 * A mixture of transformers: every token runs through the weights of its own expert, and the experts meet only in
 * attention.
 *
 *   q, k, v    each expert projects its rows by its own matrices, into one joint tensor (blockLinear; nothing is concatenated)
 *   attention  runs over the joint sequence, by the system's table
 *   x          gets each expert's own output projection added, then its own gated MLP; an adaptive norm also gates both branches
 *
 * The experts are the backbone (image, language and discrete action tokens) and the action expert. Either may be
 * absent: at inference the prefix runs alone and leaves its keys and values in a cache, and the suffix attends to the
 * cache.
 */
import { type ParameterSet, recompute, type Tensor } from '../../engine/index.ts';
import {
  type AttentionTable,
  adaptiveRmsNorm,
  attention,
  type BlockLayout,
  blockLinear,
  blockSplitLinear,
  gatedMlp,
  gatedResidual,
  linear,
  reshape,
  rmsNorm,
  rotary,
} from '../../kernels/index.ts';
import type { ModelConfiguration } from './configuration.ts';
import { prefixes } from './parameters.ts';

export const experts = ['backbone', 'expert'] as const;
type Expert = (typeof experts)[number];
/** One value for each expert; null if that expert does not run. */
export type PerExpert<T> = readonly [T | null, T | null];

export interface MixtureOptions {
  /** Activation checkpointing: backward runs every layer again instead of keeping its activations. Not with a cache. */
  readonly recompute?: boolean;
}

export interface MixturePass {
  readonly parameters: ParameterSet;
  readonly configuration: ModelConfiguration;
  /** [batch, rows of the expert, its width] */
  readonly inputs: PerExpert<Tensor>;
  /** Names of the blocks that run (the queries), in order. */
  readonly blocks: readonly string[];
  /** The attention table over all keys: the blocks in the cache, then the blocks that run. */
  readonly table: AttentionTable;
  /** The padding mask [batch, keys] u32, 0 for padding. */
  readonly validity: Tensor;
  /** Cosines and sines of the rows that run: [batch, rows, headDimension / 2, 2]. */
  readonly rotaryTable: Tensor;
  /** Condition of the adaptive norms [batch, expert width]; null unless the action expert runs and its norms are adaptive. */
  readonly condition: Tensor | null;
  /** Blocks whose final hidden states have a loss; the last layer's attention runs backward for them only. */
  readonly lossBlocks?: readonly string[];
  readonly options?: MixtureOptions;
  /** Stores the keys and values of the rows that run, and returns all keys and values to attend to. */
  readonly cache?: (layer: number, key: Tensor, value: Tensor) => { key: Tensor; value: Tensor };
}

export interface MixtureResult {
  /** The output of each expert after its final norm. */
  readonly hidden: PerExpert<Tensor>;
  /** The residual stream of each expert before the first layer and after each layer. */
  readonly residuals: readonly PerExpert<Tensor>[];
}

export function runMixture(pass: MixturePass): MixtureResult {
  const { parameters, configuration, blocks, table, validity, rotaryTable, cache } = pass;
  const { heads, kvHeads, headDimension, depth } = configuration;
  const layout = layoutOf(configuration, blocks);
  const rows = layout.reduce((sum, { length }) => sum + length, 0);
  const each = <T>(fn: (expert: Expert, index: 0 | 1) => T | null): PerExpert<T> =>
    [pass.inputs[0] ? fn('backbone', 0) : null, pass.inputs[1] ? fn('expert', 1) : null] as const;
  const weights = (layer: number, name: string) =>
    each((expert) => parameters.get(`${prefixes[expert]}.layers.${layer}.${name}.weight`));

  const runLayer = (layer: number, x: PerExpert<Tensor>): PerExpert<Tensor> => {
    const attentionNorm = each((expert, i) => normalise(pass, expert, `layers.${layer}.input_layernorm`, x[i]!));
    const normed = attentionNorm.map((norm) => norm?.output ?? null);
    const project = (name: string, count: number) => {
      const projected = blockLinear(normed, weights(layer, `self_attn.${name}`), layout);
      return reshape(projected, [projected.shape[0], rows, count, headDimension]);
    };
    const query = rotary(project('q_proj', heads), rotaryTable);
    const ownKey = rotary(project('k_proj', kvHeads), rotaryTable);
    const ownValue = project('v_proj', kvHeads);
    const { key, value } = cache ? cache(layer, ownKey, ownValue) : { key: ownKey, value: ownValue };
    const lossBlocks = layer === depth - 1 ? pass.lossBlocks : undefined;
    const attended = attention(query, key, value, { table, validity, queries: blocks, lossBlocks });
    const joint = reshape(attended, [attended.shape[0], rows, heads * headDimension]);
    const residuals = each((_, i) => (attentionNorm[i]!.modulation ? null : x[i]));
    const branches = blockSplitLinear(joint, weights(layer, 'self_attn.o_proj'), layout, { residuals });
    const between = each((_, i) => addBranch(x[i]!, branches[i]!, attentionNorm[i]!.modulation));
    return each((expert, i) => {
      const norm = normalise(pass, expert, `layers.${layer}.post_attention_layernorm`, between[i]!);
      const [gate, up, down] = ['gate_proj', 'up_proj', 'down_proj'].map((name) =>
        parameters.get(`${prefixes[expert]}.layers.${layer}.mlp.${name}.weight`),
      );
      const residual = norm.modulation ? undefined : between[i]!;
      return addBranch(between[i]!, gatedMlp(norm.output, gate, up, down, { residual }), norm.modulation);
    });
  };

  let x = pass.inputs;
  const residuals = [x];
  for (let layer = 0; layer < depth; layer++) {
    const before = x;
    const run = () => runLayer(layer, before);
    x = pass.options?.recompute ? recomputed(before, run) : run();
    residuals.push(x);
  }
  const hidden = each((expert, i) => normalise(pass, expert, 'norm', x[i]!).output);
  return { hidden, residuals };
}

function recomputed(inputs: PerExpert<Tensor>, run: () => PerExpert<Tensor>): PerExpert<Tensor> {
  const outputs = recompute((inputs[0] ?? inputs[1])!, 'mixture layer', () => run().filter((x) => x !== null));
  const [first] = outputs;
  if (inputs[0] && inputs[1]) return [first, outputs[1]];
  return inputs[0] ? [first, null] : [null, first];
}

function layoutOf({ blocks }: ModelConfiguration, names: readonly string[]): BlockLayout {
  return blocks
    .filter((block) => names.includes(block.name))
    .map(({ weights, length }) => ({ input: experts.indexOf(weights), length }));
}

/** The norm of x; the modulation of an adaptive norm also gates the branch that the norm feeds. */
function normalise(
  { parameters, configuration, condition }: MixturePass,
  expert: Expert,
  name: string,
  x: Tensor,
): { output: Tensor; modulation: Tensor | null } {
  const at = `${prefixes[expert]}.${name}`;
  if (expert === 'backbone' || configuration.expert?.time !== 'adaptive')
    return { output: rmsNorm(x, parameters.get(`${at}.weight`)), modulation: null };
  const modulation = linear(condition!, parameters.get(`${at}.dense.weight`), parameters.get(`${at}.dense.bias`));
  return { output: adaptiveRmsNorm(x, modulation), modulation };
}

/** Adds the gated branch of an adaptive norm to the residual stream; other branches are added in their last product. */
function addBranch(residual: Tensor, branch: Tensor, modulation: Tensor | null): Tensor {
  return modulation ? gatedResidual(residual, branch, modulation) : branch;
}
