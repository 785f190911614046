/** Vision transformers, and the projection of their features into the backbone. */
import type { ParameterSet, Shape, Tensor } from '../../engine/index.ts';
import {
  type AttentionTable,
  attention,
  attentionTable,
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
import { mapped } from './records.ts';
import { Resampler } from './resampler.ts';

/** One layer: x + attention(norm(x)), then x + MLP(norm(x)). */
class TowerLayer implements Layer {
  readonly parameters;
  private readonly norms: readonly LayerNorm[];
  private readonly projections: readonly Linear[];
  private readonly mlp: readonly Linear[];

  constructor(group: string, at: string, { width, hidden }: TowerSettings) {
    const square = { outputs: width, inputs: width };
    this.norms = ['layer_norm1', 'layer_norm2'].map((name) => new LayerNorm(group, `${at}.${name}`, width));
    this.projections = ['q_proj', 'k_proj', 'v_proj', 'out_proj'].map(
      (name) => new Linear(group, `${at}.self_attn.${name}`, square),
    );
    this.mlp = [
      new Linear(group, `${at}.mlp.fc1`, { outputs: hidden, inputs: width }),
      new Linear(group, `${at}.mlp.fc2`, { outputs: width, inputs: hidden }),
    ];
    this.parameters = parametersOfLayers([...this.norms, ...this.projections, ...this.mlp]);
  }

  run(values: ParameterSet, x: Tensor, heads: readonly number[], table: AttentionTable): Tensor {
    const [before, between] = this.norms;
    const normed = before.run(values, x);
    const [query, key, value] = this.projections
      .slice(0, 3)
      .map((projection) => reshape(projection.run(values, normed), heads));
    const seen = reshape(attention(query, key, value, { table }), x.shape);
    const residual = this.projections[3].run(values, seen, { residual: x });
    const [up, down] = this.mlp;
    const hidden = up.run(values, between.run(values, residual), { activation: 'gelu' });
    return down.run(values, hidden, { residual });
  }
}

/** SigLIP's vision transformer (Zhai et al. 2023, arXiv 2303.15343), without its pooling head. */
class Tower implements Layer {
  readonly parameters;
  /** The embedding of patches (weight and bias), and of their positions. */
  private readonly patches: readonly ModelParameter[];
  private readonly layers: readonly TowerLayer[];
  private readonly norm: LayerNorm;
  private readonly table: AttentionTable;

  constructor(
    group: string,
    root: string,
    private readonly sizes: TowerSettings,
    vision: VisionSettings,
  ) {
    const { width, depth } = sizes;
    const { patch } = vision;
    const tokens = patchesPerImage(vision);
    const own = (name: string, shape: Shape, initialisation: Initialisation) => {
      return { name: `${root}.embeddings.${name}`, shape, group, initialisation };
    };
    this.patches = [
      own('patch_embedding.weight', [width, 3, patch, patch], 'matrix'),
      own('patch_embedding.bias', [width], 'zero'),
      own('position_embedding.weight', [tokens, width], 'position'),
    ];
    this.layers = Array.from({ length: depth }, (_, i) => new TowerLayer(group, `${root}.encoder.layers.${i}`, sizes));
    this.norm = new LayerNorm(group, `${root}.post_layernorm`, width);
    this.parameters = [...this.patches, ...parametersOfLayers([...this.layers, this.norm])];
    this.table = attentionTable(sequence({ image: tokens }), { image: { image: full } });
  }

  /** images [N, height, width, 3] -> features [N, patches, width] */
  run(values: ParameterSet, images: Tensor): Tensor {
    const { heads, width } = this.sizes;
    const [weight, bias, position] = this.patches.map(({ name }) => values.get(name));
    let x = patchEmbedding(images, weight, bias, position);
    const shape = [x.shape[0], x.shape[1], heads, width / heads];
    for (const layer of this.layers) x = layer.run(values, x, shape, this.table);
    return this.norm.run(values, x);
  }
}

/** All towers, the resampler of their concatenated features if there is one, and the projection. */
export class Vision implements Layer {
  readonly parameters;
  /** By name: one for all cameras, or one for each. */
  private readonly towers: Readonly<Record<string, readonly Tower[]>>;
  private readonly resampler: Resampler | null;
  private readonly projector: Linear;

  constructor(vision: VisionSettings, { names }: Backbone, backboneWidth: number) {
    const { cameras, towerPerCamera, resampler } = vision;
    const towers = Object.entries(vision.towers);
    const rootsOf = (name: string, first: boolean) =>
      towerPerCamera
        ? Array.from({ length: cameras }, (_, i) => names.tower(`${first ? '' : `${name}_`}${i + 1}`, false))
        : [names.tower(name, first)];
    this.towers = Object.fromEntries(
      towers.map(([name, sizes], i) => [
        name,
        rootsOf(name, i === 0).map((root) => new Tower(name, root, sizes, vision)),
      ]),
    );
    const group = projectorGroup(vision);
    const features = towers.reduce((sum, [, { width }]) => sum + width, 0);
    this.resampler = resampler
      ? new Resampler(group, names.resampler, features, patchesPerImage(vision), resampler)
      : null;
    this.projector = new Linear(group, names.projector, { outputs: backboneWidth, inputs: features });
    const between = this.resampler ? [this.resampler] : [];
    this.parameters = parametersOfLayers([...Object.values(this.towers).flat(), ...between, this.projector]);
  }

  /**
   * images [batch, cameras, height, width, 3] in [-1, 1] -> tokens [batch, cameras * rows of an image, backbone width], and the towers'
   * features [batch * cameras, patches, width].
   */
  run(values: ParameterSet, images: Tensor): { tokens: Tensor; features: Readonly<Record<string, Tensor>> } {
    const [batch, cameras, ...image] = images.shape;
    const seenBy = (towers: readonly Tower[]): Tensor => {
      if (towers.length === 1) return towers[0].run(values, reshape(images, [batch * cameras, ...image]));
      const ofCamera = (camera: number) => reshape(sliceTokens(images, camera, 1), [batch, ...image]);
      const seen = concatenateTokens(Array.from({ length: cameras }, (_, i) => towers[i].run(values, ofCamera(i))));
      return reshape(seen, [batch * cameras, seen.shape[1] / cameras, seen.shape[2]]);
    };
    const features = mapped(this.towers, seenBy);
    const media = sideBySide(Object.values(features));
    const projected = this.projector.run(values, this.resampler?.run(values, media) ?? media);
    return { tokens: reshape(projected, [batch, cameras * projected.shape[1], projected.shape[2]]), features };
  }
}

/** [N, rows, w1], [N, rows, w2] ... -> [N, rows, w1 + w2 + ...] */
export function sideBySide(parts: readonly Tensor[]): Tensor {
  if (parts.length === 1) return parts[0];
  const [count, rows] = parts[0].shape;
  const joined = concatenateTokens(parts.map((part) => reshape(part, [count * rows, part.shape[2]])));
  return reshape(joined, [count, rows, joined.shape[1]]);
}
