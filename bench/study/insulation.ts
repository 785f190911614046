/** What a stop-gradient between the language model and the action expert preserves, and what it costs. */
import type { Study, Variant } from './study.ts';

const variants: readonly Variant[] = [
  {
    name: 'knowledge-insulation',
    meaning: 'token loss on the backbone, flow loss on the expert, stop-gradient between them',
    settings: { system: 'knowledge-insulation' },
  },
  {
    name: 'joint-training',
    meaning: 'the same two losses without the stop-gradient',
    settings: { system: 'joint-training' },
  },
  {
    name: 'soft-insulation',
    meaning: 'a factor of 0.3 in place of the stop-gradient',
    settings: { system: 'knowledge-insulation', gradientScale: 0.3 },
  },
  {
    name: 'pi0',
    meaning: 'the flow loss alone, on backbone and expert, with the state and the time as in the other variants (pi05)',
    settings: { system: 'pi05' },
  },
  {
    name: 'frozen-backbone',
    meaning: 'knowledge insulation with vision and backbone frozen as they begin',
    settings: { system: 'knowledge-insulation', freeze: ['vision', 'backbone'] },
  },
];

export const insulation: Study = {
  name: 'insulation',
  title: 'Knowledge insulation, small',
  question:
    'What does a stop-gradient between a pretrained vision-language model and the action expert preserve, and what does it cost?',
  remark: 'Questions are asked after robot data alone; no variant is trained on questions.',
  settings: { gates: 1 },
  variants,
  steps: 500,
  seeds: 3,
  scenes: 100,
};
