/** pi0 (Black et al. 2024, arXiv 2410.24164), pi0-FAST (Pertsch et al. 2025, arXiv 2501.09747), and pi0.5 (arXiv 2504.16054). */
import { causal, full } from '../../kernels/index.ts';
import { jointTraining } from './knowledge-insulation.ts';
import type { Recipe, System } from './system.ts';

export const pi0: System = {
  name: 'pi0',
  parent: null,
  description:
    'flow matching on the action expert alone; state as a token of that expert, time concatenated to the actions',
  source: 'arXiv 2410.24164',
  blocks: [
    { name: 'image', input: 'images', weights: 'backbone' },
    { name: 'language', input: 'prompt', weights: 'backbone' },
    { name: 'state', input: 'state', weights: 'expert' },
    { name: 'action', input: 'noisyActions', weights: 'expert' },
  ],
  attention: {
    image: { image: full, language: full },
    language: { image: full, language: full },
    state: { image: full, language: full, state: full },
    action: { image: full, language: full, state: full, action: full },
  },
  objectives: [{ kind: 'flow', name: 'flow', weight: 1, block: 'action' }],
  actionTokens: null,
  stateAsText: false,
  time: 'concatenate',
};

export const pi0TextState: System = {
  ...pi0,
  name: 'pi0-text-state',
  parent: 'pi0',
  description: 'pi0 with the state as text in the prompt',
  source: 'arXiv 2505.23705, appendix C',
  blocks: pi0.blocks.filter(({ name }) => name !== 'state'),
  attention: {
    image: { image: full, language: full },
    language: { image: full, language: full },
    action: { image: full, language: full, action: full },
  },
  stateAsText: true,
};

export const pi05: System = {
  ...pi0TextState,
  name: 'pi05',
  parent: 'pi0-text-state',
  description: 'pi0 with the state as text and the time in adaptive norms, as openpi fine-tunes pi0.5',
  source: 'openpi, pi0.py',
  time: 'adaptive',
};

export const frozenBackbone: System = {
  ...pi05,
  name: 'frozen-backbone',
  parent: 'pi05',
  description: 'an action expert on a vision-language model that keeps its weights',
  source: 'arXiv 2505.23705, section 6',
  rules: ['vision', 'backbone'].map((match) => ({ match, frozen: true })),
};

export const pi0Fast: System = {
  ...pi0,
  name: 'pi0-fast',
  parent: 'pi0',
  description: 'no action expert: FAST tokens by next-token loss, decoded autoregressively',
  source: 'arXiv 2501.09747',
  blocks: [...pi0.blocks.slice(0, 2), { name: 'target', input: 'target', weights: 'backbone' }],
  attention: {
    image: { image: full, language: full },
    language: { image: full, language: full },
    target: { image: full, language: full, target: causal },
  },
  objectives: [{ kind: 'nextToken', name: 'token', weight: 1 }],
  actionTokens: 'fast',
  stateAsText: true,
  time: null,
};

/** The recipe of both stages of pi0.5. Its paper does not give the share of vision-language examples either. */
const stages: Recipe = { ...jointTraining.recipe, subtask: 'words' };

export const pi05Stage1: System = {
  ...pi0Fast,
  name: 'pi05-stage-1',
  parent: 'pi0-fast',
  description: 'pi0-FAST that also learns questions and subtasks: the first stage of pi0.5',
  source: 'arXiv 2504.16054',
  recipe: stages,
};

/** All gradients pass, as in the paper; the released weights were trained with knowledge insulation (openpi). */
export const pi05Stage2: System = {
  ...jointTraining,
  name: 'pi05-stage-2',
  parent: 'joint-training',
  description:
    'joint training with a flow loss of weight 10, and a subtask in words before the actions: the second stage of pi0.5',
  source: 'arXiv 2504.16054',
  objectives: jointTraining.objectives.map((own) => (own.kind === 'flow' ? { ...own, weight: 10 } : own)),
  recipe: stages,
};
