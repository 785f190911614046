/** HybridVLA in the form in which knowledge insulation compares itself with it (Liu et al. 2025, arXiv 2503.10631). */
import { causal, full } from '../../kernels/index.ts';
import { jointTraining } from './knowledge-insulation.ts';
import type { System } from './system.ts';

/** Its targets also see the noisy actions, so at low noise they can read the answer, and the token loss trains the expert. */
export const hybridVla: System = {
  ...jointTraining,
  name: 'hybrid-vla',
  parent: 'joint-training',
  description: 'joint training with one bin token a number, and targets that see the noisy actions',
  source: 'arXiv 2503.10631, as retrained in arXiv 2505.23705, section 6, item 5',
  blocks: [
    { name: 'image', input: 'images', weights: 'backbone' },
    { name: 'language', input: 'prompt', weights: 'backbone' },
    { name: 'action', input: 'noisyActions', weights: 'expert' },
    { name: 'target', input: 'target', weights: 'backbone' },
  ],
  attention: { ...jointTraining.attention, target: { image: full, language: full, action: full, target: causal } },
  actionTokens: 'bins',
};
