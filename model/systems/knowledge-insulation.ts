/** Knowledge insulation, and variants that its paper compares it with (Driess et al. 2025, arXiv 2505.23705). */
import { causal, full, insulated } from '../../kernels/index.ts';
import type { System } from './system.ts';

const paper = 'arXiv 2505.23705';
/** Our choice: the paper does not give its share of vision-language examples. */
const COTRAIN = 0.25;

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
  recipe: { cotrain: COTRAIN },
};

const robotOnly = (system: System): System => ({
  ...system,
  name: `${system.name}-robot-only`,
  parent: system.name,
  description: `${system.description}; trained on robot data alone, without vision-language questions`,
  source: `${paper}, section 6`,
  recipe: {},
});

export const insulationRobotOnly = robotOnly(knowledgeInsulation);

export const jointTraining: System = {
  ...knowledgeInsulation,
  name: 'joint-training',
  parent: 'knowledge-insulation',
  description: 'knowledge insulation without the stop-gradient',
  source: `${paper}, section 6`,
  attention: { ...knowledgeInsulation.attention, action: { image: full, language: full, action: full } },
};

export const jointRobotOnly = robotOnly(jointTraining);

export const naiveTokens: System = {
  ...knowledgeInsulation,
  name: 'naive-tokens',
  parent: 'knowledge-insulation',
  description: 'knowledge insulation with one bin token for each number of a chunk instead of FAST tokens',
  source: `${paper}, section 6`,
  actionTokens: 'bins',
};

export const naiveTokensStride: System = {
  ...naiveTokens,
  name: 'naive-tokens-stride-5',
  parent: 'naive-tokens',
  description: 'naive tokens of every fifth action of a chunk; the flow keeps all',
  actionTokens: 'stride',
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

export const kiSpecialTokenState: System = {
  ...kiContinuousState,
  name: 'ki-special-token-state',
  description:
    'knowledge insulation with the state as one reserved token for the bin of each of its numbers, not as text',
  blocks: kiContinuousState.blocks.map((block) =>
    block.name === 'state' ? { ...block, input: 'prompt', length: 'state' } : block,
  ),
};

export const kiExpertState: System = {
  ...kiContinuousState,
  name: 'ki-expert-state',
  description: "knowledge insulation with the state as one affine token of the action expert, pi0's way, not as text",
  source: 'the state of arXiv 2410.24164 in the model of arXiv 2505.23705',
  blocks: [
    ...knowledgeInsulation.blocks.slice(0, 3),
    { name: 'state', input: 'state', weights: 'expert' },
    ...knowledgeInsulation.blocks.slice(3),
  ],
  attention: {
    ...knowledgeInsulation.attention,
    state: { image: insulated, language: insulated, state: full },
    action: { image: insulated, language: insulated, state: full, action: full },
  },
};
