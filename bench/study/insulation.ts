/** Knowledge insulation (arXiv 2505.23705) beside what its paper compares it with, small. */
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
    meaning: 'the flow loss on backbone and expert, no action tokens; state and time as in the other variants (pi05)',
    settings: { system: 'pi05' },
  },
  {
    name: 'frozen-backbone',
    meaning: 'knowledge insulation with vision and backbone as they begin',
    settings: { system: 'knowledge-insulation', freeze: ['vision', 'backbone'] },
  },
];

const places = ({ name, meaning, settings }: Variant): Variant => ({
  name: `${name}-places`,
  meaning: `${meaning}; it says places before it acts, by a token loss of their own, and the expert gets them with the state as a token`,
  settings: { ...settings, subtask: 'places' },
  beside: name,
});

export const insulation: Study = {
  name: 'insulation',
  title: 'Knowledge insulation, small',
  question:
    'What does a stop-gradient between a pretrained vision-language model and the action expert preserve, and what does it cost?',
  remark:
    'With places the expert gets them, and the state, as a token of its own and hardly needs the keys behind the stop-gradient: what those carry is told by the variants without. No variant is trained on questions.',
  variants: variants.flatMap((own) => [{ ...own, settings: { ...own.settings, subtask: null } }, places(own)]),
  steps: 300,
  seeds: 3,
  scenes: 100,
};
