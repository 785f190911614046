/** pi0 (Black et al. 2024, arXiv 2410.24164), pi0-FAST (Pertsch et al. 2025, arXiv 2501.09747), pi0.5 as in openpi. */
import { causal, full } from '../../kernels/index.ts';
import type { System } from './system.ts';

export const pi0: System = {
  name: 'pi0',
  description:
    'flow matching on the action expert alone; state as a token of that expert, time concatenated to the actions (arXiv 2410.24164)',
  tokens: null,
  expert: 'concatenate',
  state: 'expert',
  attention: {
    image: { image: full, language: full },
    language: { image: full, language: full },
    state: { image: full, language: full, state: full },
    action: { image: full, language: full, state: full, action: full },
  },
  alpha: 1,
};

export const pi05: System = {
  ...pi0,
  name: 'pi05',
  description: 'pi0 with the state as text and the time in adaptive norms, as openpi fine-tunes pi0.5',
  expert: 'adaptive',
  state: 'text',
};

export const pi0Fast: System = {
  ...pi0,
  name: 'pi0-fast',
  description: 'no action expert: FAST tokens by next-token loss, decoded autoregressively (arXiv 2501.09747)',
  tokens: 'fast',
  expert: null,
  state: 'text',
  attention: {
    image: { image: full, language: full },
    language: { image: full, language: full },
    fast: { image: full, language: full, fast: causal },
  },
};
