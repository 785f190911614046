/**
 * Parallel decoding with L1 regression: OpenVLA-OFT (Kim et al. 2025, arXiv 2502.19645) in the form that knowledge insulation is compared
 * with, without FiLM and with the state as text. An affine map reads each action from its own row. The original reads the rows one before
 * by a residual MLP: `before` and `head` of a regression.
 */
import { full } from '../../kernels/index.ts';
import type { System } from './system.ts';
import { transfusion } from './transfusion.ts';

const everything = { image: full, language: full, action: full };

export const openvlaOft: System = {
  ...transfusion,
  name: 'openvla-oft',
  parent: 'transfusion',
  description: 'no action expert and no flow: all actions of a chunk in one pass, by L1 regression from rows of zeros',
  source: 'arXiv 2502.19645, as retrained in arXiv 2505.23705, section 6',
  blocks: [...transfusion.blocks.slice(0, 2), { name: 'action', input: 'zeros', weights: 'backbone' }],
  attention: { image: everything, language: everything, action: everything },
  objectives: [{ kind: 'regression', name: 'l1', weight: 1, rows: { block: 'action' }, error: 'l1' }],
  time: null,
};
