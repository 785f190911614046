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
  cast,
  concatenateTokens,
  full,
  reshape,
  sequence,
} from '../../kernels/index.ts';
import type { ResamplerSettings } from './configuration.ts';
import { type Layer, LayerNorm, Linear, parametersOfLayers, Table, TORCH_EPSILON } from './layers.ts';

interface Resampler extends Layer {
  /** Features [images, patches, width] -> [images, latents, width], each image by itself. */
  run(values: ParameterSet, features: Tensor): Tensor;
}

/** Its parameters have the names of Hugging Face's Idefics, in which `latents` lacks `.weight`. */
export function resamplerOf(
  group: string,
  root: string,
  width: number,
  patches: number,
  sizes: ResamplerSettings,
): Resampler {
  const { latents: count, depth } = sizes;
  const latents = new Table(group, `${root}.latents`, [count, width], 'standard');
  const layers = Array.from({ length: depth }, (_, i) => resamplerLayer(group, `${root}.blocks.${i}`, width, sizes));
  const norm = new LayerNorm(group, `${root}.layer_norm`, width, TORCH_EPSILON);
  const table = attentionTable(sequence({ features: patches, latents: count }), {
    latents: { features: full, latents: full },
  });
  return {
    parameters: parametersOfLayers([latents, ...layers, norm]),
    run(values, features) {
      const zeros = zeroTensor(values.device, [features.shape[0], count, width], 'f32', 'latents');
      let own = add(zeros, cast(latents.rows(values), 'f32'));
      for (const layer of layers) own = layer.run(values, features, own, table);
      return norm.run(values, own);
    },
  };
}

function resamplerLayer(group: string, at: string, width: number, { heads, headDimension, hidden }: ResamplerSettings) {
  const inner = heads * headDimension;
  const norm = (name: string) => new LayerNorm(group, `${at}.${name}`, width, TORCH_EPSILON);
  const matrix = (name: string, outputs: number, inputs: number) =>
    new Linear(group, `${at}.${name}`, { outputs, inputs }, { bias: false });
  const [ofFeatures, ofLatents] = [norm('0.context_layer_norm'), norm('0.latents_layer_norm')];
  const projections = ['q_proj', 'k_proj', 'v_proj'].map((name) => matrix(`0.${name}`, inner, width));
  const output = matrix('0.output_proj', width, inner);
  const [ofMlp, up, down] = [norm('1.ln'), matrix('1.fc', hidden, width), matrix('1.c_proj', width, hidden)];
  return {
    parameters: parametersOfLayers([ofFeatures, ofLatents, ...projections, output, ofMlp, up, down]),
    /** features [images, patches, width], latents [images, latents, width] -> latents of the same shape */
    run(values: ParameterSet, features: Tensor, latents: Tensor, table: AttentionTable): Tensor {
      const own = ofLatents.run(values, latents);
      const read = concatenateTokens([ofFeatures.run(values, features), own]);
      const [query, key, value] = [own, read, read].map((rows, i) =>
        reshape(projections[i].run(values, rows), [...rows.shape.slice(0, 2), heads, headDimension]),
      );
      const attended = attention(query, key, value, { table, queries: ['latents'] });
      const joint = reshape(attended, [...latents.shape.slice(0, 2), inner]);
      const residual = output.run(values, joint, { residual: latents });
      const hidden = up.run(values, ofMlp.run(values, residual), { activation: 'gelu' });
      return down.run(values, hidden, { residual });
    },
  };
}
