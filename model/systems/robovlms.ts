/**
 * RoboVLMs (Li et al. 2024, arXiv 2412.14058) compares ways to make a policy of a vision-language model: from one control step or a
 * history of them; with actions as tokens or as numbers; with the history in the language model's sequence or in a head behind it. Losses,
 * their weights and the layers of heads are those of its code.
 */
import { causal, full } from '../../kernels/index.ts';
import type { TrunkSettings } from '../architecture/heads/settings.ts';
import type { RegressionSettings } from '../architecture/objectives/settings.ts';
import type { System } from './system.ts';

const source = 'arXiv 2412.14058';
/** Control steps of a window, as on the paper's real robot and in its comparison of backbones; elsewhere it has 16. */
const WINDOW = 8;

/** PaliGemma's mask: among its backbones, that of the language model here. */
const prefix = { image: { image: full, language: full }, language: { image: full, language: full } };

export const oneStepDiscrete: System = {
  name: 'robovlms-one-step-discrete',
  parent: null,
  description: 'a chunk as bin tokens of the language model, from one observation',
  source,
  blocks: [
    { name: 'image', input: 'images', weights: 'backbone' },
    { name: 'language', input: 'prompt', weights: 'backbone' },
    { name: 'target', input: 'target', weights: 'backbone' },
  ],
  attention: { ...prefix, target: { image: full, language: full, target: causal } },
  objectives: [{ kind: 'nextToken', name: 'token', weight: 1 }],
  actionTokens: 'bins',
  stateAsText: false,
  time: null,
  recipe: { horizon: 10 },
};

const regression = (trunk: TrunkSettings, error: RegressionSettings['error'] = 'huber'): RegressionSettings => ({
  ...{ kind: 'regression', name: 'action', weight: 1, rows: { block: 'readout' }, error },
  head: { kind: 'policy', trunk },
  gripper: { weight: 0.01 },
});

export const oneStepContinuous: System = {
  ...oneStepDiscrete,
  name: 'robovlms-one-step-continuous',
  parent: 'robovlms-one-step-discrete',
  description: 'a chunk by regression from a learned read-out token, from one observation',
  blocks: [
    ...oneStepDiscrete.blocks.slice(0, 2),
    { name: 'readout', input: 'learned', weights: 'backbone', length: 1 },
  ],
  attention: { ...prefix, readout: { image: full, language: full, readout: full } },
  objectives: [regression({ kind: 'mlp' })],
  actionTokens: null,
};

export const interleaved: System = {
  ...oneStepContinuous,
  name: 'robovlms-interleaved',
  parent: 'robovlms-one-step-continuous',
  description:
    'a read-out token behind every control step of a window, all in one causal sequence of the language model',
  attention: {
    ...oneStepContinuous.attention,
    image: { image: causal },
    language: { image: full, language: causal },
  },
  history: { window: WINDOW, interleaved: true },
};

const policyHead = (name: string, description: string, trunk: TrunkSettings): System => ({
  ...oneStepContinuous,
  name: `robovlms-policy-head${name}`,
  parent: name === '' ? oneStepContinuous.name : 'robovlms-policy-head',
  description,
  objectives: [regression(trunk)],
  history: { window: WINDOW, interleaved: false },
});

export const policyHeadLstm = policyHead(
  '',
  'every control step of a window through the language model by itself, and an LSTM over their read-out tokens',
  { kind: 'lstm' },
);

export const policyHeadTransformer = policyHead(
  '-transformer',
  'the policy head with a causal transformer in place of the LSTM',
  { kind: 'transformer' },
);

export const policyHeadMlp = policyHead(
  '-mlp',
  'the policy head with an MLP of each control step in place of the LSTM: the window has no effect on the actions',
  { kind: 'mlp' },
);

export const policyHeadSquared: System = {
  ...policyHeadLstm,
  name: 'robovlms-policy-head-squared',
  parent: 'robovlms-policy-head',
  description: "the policy head with the paper's squared error in place of its code's Huber loss",
  objectives: [regression({ kind: 'lstm' }, 'squared')],
};

const denoised = (process: 'diffusion' | 'flow', description: string): System => ({
  ...policyHeadLstm,
  name: `robovlms-policy-head-${process}`,
  parent: 'robovlms-policy-head',
  description,
  objectives: [
    { kind: 'denoisingHead', name: process, weight: 1, rows: { block: 'readout' }, trunk: { kind: 'lstm' }, process },
  ],
});

export const policyHeadDiffusion = denoised(
  'diffusion',
  'the policy head with a diffusion of the chunk behind the LSTM, named in the paper and absent from its code',
);
export const policyHeadFlow = denoised('flow', 'the policy head with flow matching of the chunk behind the LSTM');
