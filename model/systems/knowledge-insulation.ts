/** Knowledge insulation, and variants that its paper compares it with (Driess et al. 2025, arXiv 2505.23705). */
import { causal, full, insulated } from '../../kernels/index.ts';
import type { System } from './system.ts';

const paper = 'arXiv 2505.23705';

export const knowledgeInsulation: System = {
  name: 'knowledge-insulation',
  parent: null,
  description: 'FAST tokens on the backbone, flow matching on the action expert, stop-gradient between them',
  source: paper,
  blocks: [
    { name: 'image', input: 'images', weights: 'backbone' },
    { name: 'language', input: 'prompt', weights: 'backbone' },
    { name: 'target', input: 'target', weights: 'backbone' },
    { name: 'action', input: 'noisyActions', weights: 'expert' },
  ],
  attention: {
    image: { image: full, language: full },
    language: { image: full, language: full },
    target: { image: full, language: full, target: causal },
    action: { image: insulated, language: insulated, action: full },
  },
  objectives: [
    { kind: 'nextToken', name: 'token', weight: 1 },
    { kind: 'flow', name: 'flow', weight: 1, block: 'action' },
  ],
  actionTokens: 'fast',
  stateAsText: true,
  time: 'adaptive',
};

export const jointTraining: System = {
  ...knowledgeInsulation,
  name: 'joint-training',
  parent: 'knowledge-insulation',
  description: 'knowledge insulation without the stop-gradient',
  source: `${paper}, section 6`,
  attention: { ...knowledgeInsulation.attention, action: { image: full, language: full, action: full } },
};

export const kiContinuousState: System = {
  ...knowledgeInsulation,
  name: 'ki-continuous-state',
  parent: 'knowledge-insulation',
  description: 'knowledge insulation with the state as one affine token of the backbone, not as text',
  source: `${paper}, appendix C`,
  blocks: [
    { name: 'image', input: 'images', weights: 'backbone' },
    { name: 'language', input: 'prompt', weights: 'backbone' },
    { name: 'state', input: 'state', weights: 'backbone' },
    { name: 'target', input: 'target', weights: 'backbone' },
    { name: 'action', input: 'noisyActions', weights: 'expert' },
  ],
  attention: {
    image: { image: full, language: full, state: full },
    language: { image: full, language: full, state: full },
    state: { image: full, language: full, state: full },
    target: { image: full, language: full, state: full, target: causal },
    action: { image: insulated, language: insulated, state: insulated, action: full },
  },
  stateAsText: false,
};
