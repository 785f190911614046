/** HybridVLA (Liu et al. 2025, arXiv 2503.10631), and the form in which knowledge insulation compares itself with it. */
import { causal, full } from '../../kernels/index.ts';
import { jointRobotOnly } from './knowledge-insulation.ts';
import type { System } from './system.ts';

/**
 * Its targets also see the noisy actions, so at low noise they can read the answer, and the token loss trains the expert. They cannot be
 * decoded without noisy actions, so it answers no questions.
 */
export const hybridVla: System = {
  ...jointRobotOnly,
  name: 'hybrid-vla',
  parent: 'joint-training-robot-only',
  description: 'joint training with one bin token a number, and targets that see the noisy actions',
  source: 'arXiv 2503.10631, as retrained in arXiv 2505.23705, section 6, item 5',
  blocks: [
    { name: 'image', input: 'images', weights: 'backbone' },
    { name: 'language', input: 'prompt', weights: 'backbone' },
    { name: 'action', input: 'noisyActions', weights: 'expert' },
    { name: 'target', input: 'target', weights: 'backbone' },
  ],
  attention: { ...jointRobotOnly.attention, target: { image: full, language: full, action: full, target: causal } },
  actionTokens: 'bins',
};

/**
 * Every block is causal, and its positions follow those of all blocks before it. The towers are those of its vision-language model
 * (Prismatic: SigLIP and DINOv2), which its public training keeps frozen; it predicts one action. Its code repeats whole batches with four
 * draws of noise, where the noisy actions alone are repeated here, and has MLPs where affine maps embed state and actions here and read
 * the noise.
 */
export const hybridVlaOriginal: System = {
  name: 'hybrid-vla-original',
  parent: null,
  description:
    'diffusion of one action and bin tokens that see it, in one causal language model behind two frozen vision towers',
  source: 'arXiv 2503.10631 and its code, train.py',
  blocks: [
    { name: 'image', input: 'images', weights: 'backbone' },
    { name: 'language', input: 'prompt', weights: 'backbone' },
    { name: 'state', input: 'state', weights: 'backbone' },
    { name: 'time', input: 'time', weights: 'backbone' },
    { name: 'action', input: 'noisyActions', weights: 'backbone', after: ['image', 'language', 'state', 'time'] },
    { name: 'target', input: 'target', weights: 'backbone', after: ['image', 'language', 'state', 'time', 'action'] },
  ],
  attention: {
    image: { image: causal },
    language: { image: full, language: causal },
    state: { image: full, language: full, state: full },
    time: { image: full, language: full, state: full, time: full },
    action: { image: full, language: full, state: full, time: full, action: causal },
    target: { image: full, language: full, state: full, time: full, action: full, target: causal },
  },
  objectives: [
    { kind: 'nextToken', name: 'token', weight: 1 },
    { kind: 'diffusion', name: 'diffusion', weight: 1, block: 'action' },
  ],
  actionTokens: 'bins',
  stateAsText: false,
  time: 'token',
  towers: ['vision', 'dinov2'],
  rules: ['vision', 'dinov2'].map((match) => ({ match, frozen: true })),
  recipe: { horizon: 1, draws: 4 },
};
