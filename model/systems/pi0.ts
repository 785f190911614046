/** pi0 (Black et al. 2024, arXiv 2410.24164), pi0-FAST (Pertsch et al. 2025, arXiv 2501.09747), pi0.5 as in openpi. */
import { causal, full } from '../../kernels/index.ts';
import type { System } from './system.ts';

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

export const pi05: System = {
  ...pi0,
  name: 'pi05',
  parent: 'pi0',
  description: 'pi0 with the state as text and the time in adaptive norms, as openpi fine-tunes pi0.5',
  source: 'openpi, pi0.py',
  blocks: pi0.blocks.filter(({ name }) => name !== 'state'),
  stateAsText: true,
  time: 'adaptive',
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
