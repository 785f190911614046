/** RoboVLMs (Li et al. 2024, arXiv 2412.14058) with an encoder-decoder: Flamingo (Alayrac et al. 2022, arXiv 2204.14198). */
import { causal, full } from '../../kernels/index.ts';
import { oneStepContinuous, policyHeadLstm } from './robovlms.ts';
import type { System } from './system.ts';

/** Prompt and read-out token run through the language model, and read the latents of the images before every layer, as in Flamingo-3B. */
export const flamingo: System = {
  ...oneStepContinuous,
  name: 'robovlms-flamingo',
  parent: oneStepContinuous.name,
  description: 'one-step continuous, with resampled images outside of the sequence, read by gated cross-attention',
  source: 'arXiv 2412.14058; RoboVLMs, flamingo_builder.py',
  blocks: [
    { name: 'image', input: 'images', weights: 'backbone', memory: true },
    { name: 'language', input: 'prompt', weights: 'backbone', after: [] },
    { name: 'readout', input: 'learned', weights: 'backbone', length: 1, after: ['language'] },
  ],
  attention: {
    language: { image: full, language: causal },
    readout: { image: full, language: full, readout: full },
  },
  experts: { backbone: { crossAttention: { every: 1, gated: true } } },
  resampler: true,
};

export const flamingoPolicyHead: System = {
  ...flamingo,
  name: 'robovlms-flamingo-policy-head',
  parent: 'robovlms-flamingo',
  description: 'Flamingo, and an LSTM over the read-out tokens of a window of control steps',
  objectives: policyHeadLstm.objectives,
  history: policyHeadLstm.history,
};
