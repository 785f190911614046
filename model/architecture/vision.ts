import type { ParameterSet, Tensor } from '../../engine/index.ts';
import {
  attention,
  attentionTable,
  full,
  type LinearOptions,
  layerNorm,
  linear,
  patchEmbedding,
  reshape,
  sequence,
} from '../../kernels/index.ts';
import { tokensPerImage, type VisionSizes } from './configuration.ts';
import { prefixes } from './parameters.ts';

/**
 * SigLIP's vision transformer and the projection into the backbone.
 *
 * images [batch, cameras, height, width, 3] in [-1, 1] -> [batch, cameras * patches, backbone width]
 */
export function encodeImages(parameters: ParameterSet, sizes: VisionSizes, images: Tensor): Tensor {
  const at = (name: string) => parameters.get(`${prefixes.vision}.${name}`);
  const affine = (x: Tensor, name: string, options: LinearOptions = {}) =>
    linear(x, at(`${name}.weight`), at(`${name}.bias`), options);
  const norm = (x: Tensor, name: string) => layerNorm(x, at(`${name}.weight`), at(`${name}.bias`));
  const [batch, cameras, height, width, channels] = images.shape;
  const patches = tokensPerImage(sizes);
  const table = attentionTable(sequence({ image: patches }), { image: { image: full } });
  const heads = [batch * cameras, patches, sizes.heads, sizes.width / sizes.heads];

  let x = patchEmbedding(
    reshape(images, [batch * cameras, height, width, channels]),
    at('embeddings.patch_embedding.weight'),
    at('embeddings.patch_embedding.bias'),
    at('embeddings.position_embedding.weight'),
  );
  for (let layer = 0; layer < sizes.depth; layer++) {
    const name = `encoder.layers.${layer}`;
    const normed = norm(x, `${name}.layer_norm1`);
    const [query, key, value] = ['q_proj', 'k_proj', 'v_proj'].map((projection) =>
      reshape(affine(normed, `${name}.self_attn.${projection}`), heads),
    );
    const seen = reshape(attention(query, key, value, { table }), x.shape);
    x = affine(seen, `${name}.self_attn.out_proj`, { residual: x });
    const hidden = affine(norm(x, `${name}.layer_norm2`), `${name}.mlp.fc1`, { activation: 'gelu' });
    x = affine(hidden, `${name}.mlp.fc2`, { residual: x });
  }
  const projected = linear(
    norm(x, 'post_layernorm'),
    parameters.get(`${prefixes.projector}.weight`),
    parameters.get(`${prefixes.projector}.bias`),
  );
  return reshape(projected, [batch, cameras * patches, projected.shape[2]]);
}
