/** Knowledge insulation and its joint-training baseline (Driess et al. 2025, arXiv 2505.23705). */
import { causal, full, insulated } from '../../kernels/index.ts';
import type { System } from './system.ts';

export const knowledgeInsulation: System = {
  name: 'knowledge-insulation',
  description:
    'FAST tokens on the backbone, flow matching on the action expert, stop-gradient between them (arXiv 2505.23705)',
  tokens: 'fast',
  expert: 'adaptive',
  state: 'text',
  attention: {
    image: { image: full, language: full },
    language: { image: full, language: full },
    fast: { image: full, language: full, fast: causal },
    action: { image: insulated, language: insulated, action: full },
  },
  alpha: 1,
};

export const jointTraining: System = {
  ...knowledgeInsulation,
  name: 'joint-training',
  description: 'knowledge insulation without the stop-gradient (arXiv 2505.23705, section 6)',
  attention: { ...knowledgeInsulation.attention, action: { image: full, language: full, action: full } },
};
