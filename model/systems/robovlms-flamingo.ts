/** RoboVLMs with an encoder-decoder (Liu et al. 2024, arXiv 2412.14058) built of Flamingo (Alayrac et al. 2022, arXiv 2204.14198). */
import { causal, full } from '../../kernels/index.ts';
import type { System } from './system.ts';

/** Text and learned read-out rows run through the language model, and read the latents of the images in every layer. */
export const robovlmsFlamingo: System = {
  name: 'robovlms-flamingo',
  parent: null,
  description: 'one-step actions by regression from learned rows, which read resampled images by gated cross-attention',
  source: 'arXiv 2412.14058; RoboVLMs, flamingo_builder.py',
  blocks: [
    { name: 'image', input: 'images', weights: 'backbone', memory: true },
    { name: 'language', input: 'prompt', weights: 'backbone', after: [] },
    { name: 'readout', input: 'learned', weights: 'backbone', after: ['language'] },
  ],
  attention: {
    language: { image: full, language: causal },
    readout: { image: full, language: full, readout: causal },
  },
  objectives: [{ kind: 'regression', name: 'regression', weight: 1, rows: { block: 'readout' }, error: 'huber' }],
  actionTokens: null,
  stateAsText: false,
  time: null,
  experts: { backbone: { crossAttention: { every: 1, gated: true } } },
  resampler: true,
};
