/** Parallel decoding with L1 regression, as OpenVLA-OFT (Kim et al. 2025, arXiv 2502.19645), on this backbone. */
import { full } from '../../kernels/index.ts';
import type { System } from './system.ts';
import { transfusion } from './transfusion.ts';

const everything = { image: full, language: full, action: full };

export const openvlaOft: System = {
  ...transfusion,
  name: 'openvla-oft',
  parent: 'transfusion',
  description: 'no action expert and no flow: all actions of a chunk in one pass, by L1 regression from rows of zeros',
  source: 'arXiv 2502.19645',
  blocks: [...transfusion.blocks.slice(0, 2), { name: 'action', input: 'zeros', weights: 'backbone' }],
  attention: { image: everything, language: everything, action: everything },
  objectives: [{ kind: 'regression', name: 'l1', weight: 1, rows: { block: 'action' }, error: 'l1' }],
  time: null,
};
