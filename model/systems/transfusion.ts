/**
 * Transfusion in the form that knowledge insulation is compared with (Zhou et al. 2024, arXiv 2408.11039; arXiv 2505.23705, section 6).
 * The papers leave open how the model gets the flow time; here it is concatenated to the actions, as in pi0.
 */
import { full } from '../../kernels/index.ts';
import type { System } from './system.ts';

export const transfusion: System = {
  name: 'transfusion',
  parent: null,
  description: 'no action expert: flow matching on the weights of the backbone, time concatenated to the actions',
  source: 'arXiv 2505.23705, section 6',
  blocks: [
    { name: 'image', input: 'images', weights: 'backbone' },
    { name: 'language', input: 'prompt', weights: 'backbone' },
    { name: 'action', input: 'noisyActions', weights: 'backbone' },
  ],
  attention: {
    image: { image: full, language: full },
    language: { image: full, language: full },
    action: { image: full, language: full, action: full },
  },
  objectives: [{ kind: 'flow', name: 'flow', weight: 1, block: 'action' }],
  actionTokens: null,
  stateAsText: true,
  time: 'concatenate',
};
