/**
 * GenVLA (Grover et al. 2025, arXiv 2509.11417): D, a frozen vision tower beside a trained one; S, actions as strings of digits; C,
 * co-training with as many vision-language questions as robot examples. The paper does not say which of OpenVLA's two towers it freezes.
 */
import { knowledgeInsulation } from './knowledge-insulation.ts';
import { openvla } from './openvla.ts';
import { pi0, pi0Fast } from './pi0.ts';
import type { Recipe, System } from './system.ts';

const source = 'arXiv 2509.11417';
const half: Recipe = { cotrain: 0.5 };

type Part = 'd' | 's' | 'c';

const words: Readonly<Record<Part, string>> = {
  d: 'a frozen vision tower beside a trained one',
  s: 'actions as strings of digits',
  c: 'vision-language questions in half of every batch',
};

function withParts(name: string, parts: readonly Part[], parent: System): System {
  const has = (part: Part) => parts.includes(part);
  return {
    ...openvla,
    name,
    parent: parent.name,
    description: `GenVLA's ${parts.map((part) => part.toUpperCase()).join(' and ')}: OpenVLA with ${parts.map((part) => words[part]).join(', ')}`,
    source,
    actionTokens: has('s') ? 'string' : openvla.actionTokens,
    ...(has('d') && { rules: [{ match: 'dinov2', frozen: true }] }),
    recipe: { ...openvla.recipe, ...(has('c') && half) },
  };
}

export const openvlaD = withParts('openvla-d', ['d'], openvla);
export const openvlaS = withParts('openvla-s', ['s'], openvla);
export const openvlaC = withParts('openvla-c', ['c'], openvla);
export const openvlaDS = withParts('openvla-ds', ['d', 's'], openvlaD);
export const openvlaSC = withParts('openvla-sc', ['s', 'c'], openvlaS);
export const openvlaPlus = withParts('openvla-plus', ['d', 's', 'c'], openvlaSC);

export const pi0Paraphrased: System = {
  ...pi0,
  name: 'pi0-paraphrased',
  parent: 'pi0',
  description: 'pi0 with paraphrases of the instructions, the baseline of GenVLA',
  source,
  recipe: { paraphrases: 'forms' },
};

export const pi0Plus: System = {
  ...pi0Fast,
  name: 'pi0-plus',
  parent: 'pi0-fast',
  description:
    'GenVLA on pi0: no expert and no flow, strings of digits, a frozen vision tower beside a trained one, and co-training',
  source,
  actionTokens: 'string',
  towers: ['vision', 'frozen'],
  rules: [{ match: 'frozen', frozen: true }],
  recipe: half,
};

export const insulationDual: System = {
  ...knowledgeInsulation,
  name: 'knowledge-insulation-dual',
  parent: 'knowledge-insulation',
  description: "GenVLA's D: knowledge insulation with a frozen vision tower beside a trained one",
  source: `${source}, in the model of arXiv 2505.23705`,
  towers: ['vision', 'frozen'],
  rules: [{ match: 'frozen', frozen: true }],
};
