import type { Backbone } from './backbone.ts';

const root = 'paligemma_with_expert';
const prefixes: Readonly<Record<string, string>> = {
  backbone: `${root}.paligemma.model.language_model`,
  expert: `${root}.gemma_expert.model`,
};

/** Gemma (2024, arXiv 2403.08295), under the names of the public PyTorch checkpoints of pi0 and pi0.5. */
export const gemma: Backbone = {
  name: 'gemma',
  norm: { gain: 'onePlus', epsilon: 1e-6 },
  activation: 'gelu',
  rotary: { base: 10_000, layout: 'halves' },
  embeddingScale: (width) => Math.sqrt(width),
  tied: true,
  names: {
    expert: (name) => prefixes[name] ?? `${root}.${name}.model`,
    embedding: `${prefixes.backbone}.embed_tokens`,
    head: `${root}.paligemma.lm_head`,
    tower: (name, first) => `${root}.paligemma.model.vision_tower${first ? '' : `_${name}`}.vision_model`,
    resampler: `${root}.paligemma.model.perceiver_resampler`,
    projector: `${root}.paligemma.model.multi_modal_projector.linear`,
  },
};
