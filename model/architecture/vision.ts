/** Vision transformers, and the projection of their features into the backbone. */
import type { ParameterSet, Shape, Tensor } from '../../engine/index.ts';
import {
  type AttentionTable,
  attention,
  attentionTable,
  cast,
  concatenateTokens,
  full,
  patchEmbedding,
  reshape,
  sequence,
  sliceTokens,
} from '../../kernels/index.ts';
import type { Backbone } from './backbones/index.ts';
import { patchesPerImage, projectorGroup, type TowerSettings, type VisionSettings } from './configuration.ts';
import {
  type Initialisation,
  type Layer,
  LayerNorm,
  Linear,
  type ModelParameter,
  parametersOfLayers,
} from './layers.ts';
import type { Precision } from './precision.ts';
import { mapped } from './records.ts';
import { resamplerOf } from './resampler.ts';

/** One layer: x + attention(norm(x)), then x + MLP(norm(x)). */
function towerLayer(group: string, at: string, { width, hidden }: TowerSettings) {
  const [before, between] = [1, 2].map((i) => new LayerNorm(group, `${at}.layer_norm${i}`, width));
  const linear = (name: string, outputs: number, inputs: number) =>
    new Linear(group, `${at}.${name}`, { outputs, inputs });
  const projections = ['q_proj', 'k_proj', 'v_proj'].map((name) => linear(`self_attn.${name}`, width, width));
  const output = linear('self_attn.out_proj', width, width);
  const [up, down] = [linear('mlp.fc1', hidden, width), linear('mlp.fc2', width, hidden)];
  return {
    parameters: parametersOfLayers([before, between, ...projections, output, up, down]),
    run(values: ParameterSet, x: Tensor, heads: readonly number[], table: AttentionTable): Tensor {
      const normed = before.run(values, x);
      const [query, key, value] = projections.map((own) => reshape(own.run(values, normed), heads));
      const seen = reshape(attention(query, key, value, { table }), x.shape);
      const residual = output.run(values, seen, { residual: x });
      const hidden = up.run(values, between.run(values, residual), { activation: 'gelu' });
      return down.run(values, hidden, { residual });
    },
  };
}

interface Tower extends Layer {
  /** images [N, height, width, 3] -> features [N, patches, width] */
  run(values: ParameterSet, images: Tensor): Tensor;
}

/** SigLIP's vision transformer (Zhai et al. 2023, arXiv 2303.15343), without its pooling head. */
function towerOf(
  group: string,
  root: string,
  sizes: TowerSettings,
  vision: VisionSettings,
  precision: Precision | undefined,
): Tower {
  const { width, depth, heads } = sizes;
  const { patch } = vision;
  const tokens = patchesPerImage(vision);
  const own = (name: string, shape: Shape, initialisation: Initialisation): ModelParameter => {
    return { name: `${root}.embeddings.${name}`, shape, group, initialisation };
  };
  const patches = [
    own('patch_embedding.weight', [width, 3, patch, patch], 'matrix'),
    own('patch_embedding.bias', [width], 'zero'),
    own('position_embedding.weight', [tokens, width], 'position'),
  ];
  const layers = Array.from({ length: depth }, (_, i) => towerLayer(group, `${root}.encoder.layers.${i}`, sizes));
  const norm = new LayerNorm(group, `${root}.post_layernorm`, width);
  const table = attentionTable(sequence({ image: tokens }), { image: { image: full } });
  return {
    parameters: [...patches, ...parametersOfLayers([...layers, norm])],
    run(values, images) {
      const [weight, bias, position] = patches.map(({ name }) => values.get(name));
      let x = cast(patchEmbedding(images, weight, bias, position), precision ?? 'f32');
      const shape = [x.shape[0], x.shape[1], heads, width / heads];
      for (const layer of layers) x = layer.run(values, x, shape, table);
      return cast(norm.run(values, x), 'f32');
    },
  };
}

export interface Vision extends Layer {
  /**
   * images [batch, cameras, height, width, 3] in [-1, 1] -> tokens [batch, cameras * rows of an image, backbone width], and the towers'
   * features [batch * cameras, patches, width].
   */
  run(values: ParameterSet, images: Tensor): { tokens: Tensor; features: Readonly<Record<string, Tensor>> };
}

/** All towers, the resampler of their concatenated features if there is one, and the projection. */
export function visionOf(
  vision: VisionSettings,
  { names }: Backbone,
  backboneWidth: number,
  precision?: Precision,
): Vision {
  const [first] = Object.keys(vision.towers);
  /** By name: one for all cameras, or one for each. */
  const towers = mapped(vision.towers, (sizes, name) => {
    const roots = vision.towerPerCamera
      ? Array.from({ length: vision.cameras }, (_, i) =>
          names.tower(`${name === first ? '' : `${name}_`}${i + 1}`, false),
        )
      : [names.tower(name, name === first)];
    return roots.map((root) => towerOf(name, root, sizes, vision, precision));
  });
  const group = projectorGroup(vision);
  const inputs = Object.values(vision.towers).reduce((sum, { width }) => sum + width, 0);
  const between = vision.resampler
    ? resamplerOf(group, names.resampler, inputs, patchesPerImage(vision), vision.resampler)
    : null;
  const projector = new Linear(group, names.projector, { outputs: backboneWidth, inputs });
  return {
    parameters: parametersOfLayers([...Object.values(towers).flat(), ...(between ? [between] : []), projector]),
    run(values, images) {
      const [batch, cameras, ...image] = images.shape;
      const features = mapped(towers, (own) => {
        if (own.length === 1) return own[0].run(values, reshape(images, [batch * cameras, ...image]));
        const ofCamera = (camera: number) => reshape(sliceTokens(images, camera, 1), [batch, ...image]);
        const seen = concatenateTokens(own.map((tower, i) => tower.run(values, ofCamera(i))));
        return reshape(seen, [batch * cameras, seen.shape[1] / cameras, seen.shape[2]]);
      });
      const media = sideBySide(Object.values(features));
      const projected = projector.run(values, between?.run(values, media) ?? media);
      return { tokens: reshape(projected, [batch, cameras * projected.shape[1], projected.shape[2]]), features };
    },
  };
}

/** [N, rows, w1], [N, rows, w2] ... -> [N, rows, w1 + w2 + ...] */
export function sideBySide(parts: readonly Tensor[]): Tensor {
  if (parts.length === 1) return parts[0];
  const [count, rows] = parts[0].shape;
  const joined = concatenateTokens(parts.map((part) => reshape(part, [count * rows, part.shape[2]])));
  return reshape(joined, [count, rows, joined.shape[1]]);
}
