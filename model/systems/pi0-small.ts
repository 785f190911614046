/** pi0-small, the baseline of pi0 without a vision-language model (Black et al. 2024, arXiv 2410.24164, section V). */
import { full } from '../../kernels/index.ts';
import { pi0 } from './pi0.ts';
import type { System } from './system.ts';

/**
 * The backbone is a bidirectional encoder of images and prompt; in the paper DistilBERT embeds the prompt before it. Every camera has a
 * tower of its own. The expert is a DiT: its blocks attend to state and noisy actions, and read the encoder by cross-attention; the flow
 * time conditions its norms (AdaLN-zero).
 */
export const pi0Small: System = {
  ...pi0,
  name: 'pi0-small',
  parent: 'pi0',
  description:
    'no vision-language model: an encoder of images and prompt, and a flow by a DiT with cross-attention to it',
  source: 'arXiv 2410.24164, section V',
  blocks: [
    { name: 'image', input: 'images', weights: 'backbone' },
    { name: 'language', input: 'prompt', weights: 'backbone' },
    { name: 'state', input: 'state', weights: 'expert', after: [] },
    { name: 'action', input: 'noisyActions', weights: 'expert', after: ['state'] },
  ],
  attention: {
    image: { image: full, language: full },
    language: { image: full, language: full },
    state: { image: full, language: full, state: full, action: full },
    action: { image: full, language: full, state: full, action: full },
  },
  experts: { backbone: { encoder: true }, expert: { crossAttention: { every: 1, gated: false } } },
  towerPerCamera: true,
  time: 'adaptive',
  recipe: { ...pi0.recipe, scratch: true },
};
