/** OpenVLA (Kim et al. 2024, arXiv 2406.09246) and RT-2 (Brohan et al. 2023, arXiv 2307.15818): one action as bin tokens of a language model. */
import { causal, full } from '../../kernels/index.ts';
import type { System } from './system.ts';

export const openvla: System = {
  name: 'openvla',
  parent: null,
  description:
    'one action as bin tokens of a causal language model, from one image through two vision towers, without a state',
  source: 'arXiv 2406.09246',
  blocks: [
    { name: 'image', input: 'images', weights: 'backbone' },
    { name: 'language', input: 'prompt', weights: 'backbone' },
    { name: 'target', input: 'target', weights: 'backbone' },
  ],
  attention: {
    image: { image: causal },
    language: { image: full, language: causal },
    target: { image: full, language: full, target: causal },
  },
  objectives: [{ kind: 'nextToken', name: 'token', weight: 1 }],
  actionTokens: 'bins',
  stateAsText: false,
  time: null,
  towers: ['vision', 'dinov2'],
  cameras: 1,
  recipe: { horizon: 1 },
};

export const rt2: System = {
  ...openvla,
  name: 'rt-2',
  parent: 'openvla',
  description: 'one action as bin tokens of a prefix language model, co-trained with vision-language questions',
  source: 'arXiv 2307.15818',
  attention: {
    ...openvla.attention,
    image: { image: full, language: full },
    language: { image: full, language: full },
  },
  towers: ['vision'],
  recipe: { ...openvla.recipe, cotrain: 0.5 },
};
