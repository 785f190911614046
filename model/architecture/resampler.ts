/**
 * Perceiver resampler (Flamingo: Alayrac et al. 2022, arXiv 2204.14198): a few learned latents read the features x of one image. Each
 * layer adds two branches to the latents,
 *
 *   attention  q = W_q LN(latents), and k, v from [LN(x); LN(latents)]
 *   MLP        W_2 gelu(W_1 LN(latents))
 *
 * without biases, and a LayerNorm follows the last layer. Flamingo's GELU is exact; this is the tanh form, as everywhere in this model.
 */
import { type ParameterSet, type Tensor, zeroTensor } from '../../engine/index.ts';
import {
  type AttentionTable,
  add,
  attention,
  attentionTable,
  concatenateTokens,
  full,
  reshape,
  sequence,
} from '../../kernels/index.ts';
import type { ResamplerSettings } from './configuration.ts';
import { type Layer, LayerNorm, Linear, parametersOfLayers, Table, TORCH_EPSILON } from './layers.ts';

/** Its parameters have the names of Hugging Face's Idefics, in which `latents` lacks `.weight`. */
export class Resampler implements Layer {
  readonly parameters;
  private readonly latents: Table;
  private readonly layers: readonly ResamplerLayer[];
  private readonly norm: LayerNorm;
  private readonly table: AttentionTable;

  constructor(
    group: string,
    root: string,
    private readonly width: number,
    patches: number,
    private readonly sizes: ResamplerSettings,
  ) {
    const { latents, depth } = sizes;
    this.latents = new Table(group, `${root}.latents`, [latents, width], 'standard');
    this.layers = Array.from(
      { length: depth },
      (_, i) => new ResamplerLayer(group, `${root}.blocks.${i}`, width, sizes),
    );
    this.norm = new LayerNorm(group, `${root}.layer_norm`, width, TORCH_EPSILON);
    this.parameters = parametersOfLayers([this.latents, ...this.layers, this.norm]);
    this.table = attentionTable(sequence({ features: patches, latents }), {
      latents: { features: full, latents: full },
    });
  }

  /** Features [images, patches, width] -> [images, latents, width], each image by itself. */
  run(values: ParameterSet, features: Tensor): Tensor {
    const zeros = zeroTensor(values.device, [features.shape[0], this.sizes.latents, this.width], 'f32', 'latents');
    let latents = add(zeros, this.latents.rows(values));
    for (const layer of this.layers) latents = layer.run(values, features, latents, this.table);
    return this.norm.run(values, latents);
  }
}

class ResamplerLayer implements Layer {
  readonly parameters;
  private readonly norms: Readonly<Record<'features' | 'latents' | 'mlp', LayerNorm>>;
  private readonly projections: readonly Linear[];
  private readonly output: Linear;
  private readonly mlp: readonly Linear[];

  constructor(
    group: string,
    at: string,
    width: number,
    private readonly sizes: ResamplerSettings,
  ) {
    const { heads, headDimension, hidden } = sizes;
    const inner = heads * headDimension;
    const norm = (name: string) => new LayerNorm(group, `${at}.${name}`, width, TORCH_EPSILON);
    const matrix = (name: string, outputs: number, inputs: number) =>
      new Linear(group, `${at}.${name}`, { outputs, inputs }, { bias: false });
    this.norms = { features: norm('0.context_layer_norm'), latents: norm('0.latents_layer_norm'), mlp: norm('1.ln') };
    this.projections = ['q_proj', 'k_proj', 'v_proj'].map((name) => matrix(`0.${name}`, inner, width));
    this.output = matrix('0.output_proj', width, inner);
    this.mlp = [matrix('1.fc', hidden, width), matrix('1.c_proj', width, hidden)];
    const { features, latents, mlp } = this.norms;
    this.parameters = parametersOfLayers([features, latents, ...this.projections, this.output, mlp, ...this.mlp]);
  }

  /** features [images, patches, width], latents [images, latents, width] -> latents of the same shape */
  run(values: ParameterSet, features: Tensor, latents: Tensor, table: AttentionTable): Tensor {
    const { heads, headDimension } = this.sizes;
    const own = this.norms.latents.run(values, latents);
    const read = concatenateTokens([this.norms.features.run(values, features), own]);
    const [query, key, value] = [own, read, read].map((rows, i) =>
      reshape(this.projections[i].run(values, rows), [...rows.shape.slice(0, 2), heads, headDimension]),
    );
    const attended = attention(query, key, value, { table, queries: ['latents'] });
    const joint = reshape(attended, [...latents.shape.slice(0, 2), heads * headDimension]);
    const residual = this.output.run(values, joint, { residual: latents });
    const [up, down] = this.mlp;
    const hidden = up.run(values, this.norms.mlp.run(values, residual), { activation: 'gelu' });
    return down.run(values, hidden, { residual });
  }
}
