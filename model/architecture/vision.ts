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
} from '../../kernels/index.ts';
import type { Backbone } from './backbones/index.ts';
import { projectorGroup, type TowerSettings, tokensPerImage, type VisionSettings } from './configuration.ts';
import {
  type Initialisation,
  type Layer,
  LayerNorm,
  Linear,
  type ModelParameter,
  parametersOfLayers,
} from './layers.ts';

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
    const tokens = tokensPerImage(vision);
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

/** All towers, and the projection of their concatenated features. */
export class Vision implements Layer {
  readonly parameters;
  private readonly towers: Readonly<Record<string, Tower>>;
  private readonly projector: Linear;

  constructor(vision: VisionSettings, { names }: Backbone, backboneWidth: number) {
    const towers = Object.entries(vision.towers);
    this.towers = Object.fromEntries(
      towers.map(([name, sizes], i) => [name, new Tower(name, names.tower(name, i === 0), sizes, vision)]),
    );
    const features = towers.reduce((sum, [, { width }]) => sum + width, 0);
    this.projector = new Linear(projectorGroup(vision), names.projector, { outputs: backboneWidth, inputs: features });
    this.parameters = parametersOfLayers([...Object.values(this.towers), this.projector]);
  }

  /** images [batch, cameras, height, width, 3] in [-1, 1] -> tokens [batch, cameras * patches, backbone width], and the towers' features. */
  run(values: ParameterSet, images: Tensor): { tokens: Tensor; features: Readonly<Record<string, Tensor>> } {
    const [batch, cameras, ...image] = images.shape;
    const stacked = reshape(images, [batch * cameras, ...image]);
    const features = Object.fromEntries(
      Object.entries(this.towers).map(([name, tower]) => [name, tower.run(values, stacked)]),
    );
    const projected = this.projector.run(values, sideBySide(Object.values(features)));
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
