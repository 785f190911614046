import type { Backbone } from './backbone.ts';

/**
 * Llama (Touvron et al. 2023, arXiv 2302.13971) under the names of Hugging Face. Rotary embedding on pairs is that of Meta's
 * weights; those of Hugging Face rotate halves. Small models have tied logits, Llama 3 a rotary base of 500,000.
 */
export const llama: Backbone = {
  name: 'llama',
  norm: { gain: 'plain', epsilon: 1e-5 },
  activation: 'swish',
  rotary: { base: 10_000, layout: 'pairs' },
  embeddingScale: () => 1,
  tied: false,
  names: {
    expert: (name) => (name === 'backbone' ? 'model' : `${name}.model`),
    embedding: 'model.embed_tokens',
    head: 'lm_head',
    tower: (name, first) => (first ? 'vision_tower.vision_model' : `vision_tower_${name}.vision_model`),
    resampler: 'perceiver_resampler',
    projector: 'multi_modal_projector.linear',
  },
};
