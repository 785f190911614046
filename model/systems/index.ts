import { InputError, quote } from '../../engine/files/errors.ts';
import { probable } from '../../engine/files/nearest.ts';
import {
  insulationDual,
  openvlaC,
  openvlaD,
  openvlaDS,
  openvlaPlus,
  openvlaS,
  openvlaSC,
  pi0Paraphrased,
  pi0Plus,
} from './genvla.ts';
import { hybridVla, hybridVlaOriginal } from './hybrid-vla.ts';
import {
  insulationRobotOnly,
  jointRobotOnly,
  jointTraining,
  kiContinuousState,
  kiExpertState,
  kiSpecialTokenState,
  knowledgeInsulation,
  naiveTokens,
  naiveTokensStride,
} from './knowledge-insulation.ts';
import { openvla, rt2 } from './openvla.ts';
import { openvlaOft } from './openvla-oft.ts';
import { frozenBackbone, pi0, pi0Fast, pi0TextState, pi05, pi05Stage1, pi05Stage2 } from './pi0.ts';
import { pi0Small } from './pi0-small.ts';
import {
  interleaved,
  oneStepContinuous,
  oneStepDiscrete,
  policyHeadDiffusion,
  policyHeadFlow,
  policyHeadLstm,
  policyHeadMlp,
  policyHeadSquared,
  policyHeadTransformer,
} from './robovlms.ts';
import { flamingo, flamingoPolicyHead } from './robovlms-flamingo.ts';
import type { System } from './system.ts';
import { transfusion } from './transfusion.ts';

export {
  type Change,
  type Difference,
  differencesOf,
  edgeDifferences,
  edgeText,
  fieldsOf,
  settingsOf,
} from './differences.ts';
export { MARKS, PACKED_QUESTIONS, packedQuestions, type SlotLengths, slotBlocks } from './packed-questions.ts';
export { type SubtaskSizes, withSubtask } from './subtask.ts';
export {
  configurationOf,
  type ModelSizes,
  NUMBERS,
  type Recipe,
  STATE,
  SUBTASK,
  type System,
  type SystemBlock,
  withDraws,
  withMaximumDelay,
  withStopsAt,
} from './system.ts';

/** Systems that belong together, by what their papers study. */
export interface Family {
  readonly title: string;
  /** Papers and years. */
  readonly papers: string;
  readonly systems: readonly System[];
}

const added: System[] = [];

const known: readonly Family[] = [
  {
    title: 'Knowledge insulation',
    papers: 'arXiv 2505.23705, 2025',
    systems: [
      ...[knowledgeInsulation, insulationRobotOnly, jointTraining, jointRobotOnly, naiveTokens, naiveTokensStride],
      ...[kiContinuousState, kiExpertState, kiSpecialTokenState],
    ],
  },
  {
    title: 'pi0 to pi0.5',
    papers: 'arXiv 2410.24164, 2024; 2501.09747 and 2504.16054, 2025',
    systems: [pi0, pi0TextState, pi05, frozenBackbone, pi0Fast, pi05Stage1, pi05Stage2, pi0Small],
  },
  {
    title: 'HybridVLA, Transfusion and OpenVLA-OFT',
    papers: 'arXiv 2503.10631 and 2502.19645, 2025; retrained in 2505.23705, 2025',
    systems: [hybridVla, hybridVlaOriginal, transfusion, openvlaOft],
  },
  {
    title: 'OpenVLA, RT-2 and GenVLA',
    papers: 'arXiv 2406.09246, 2024; 2307.15818, 2023; 2509.11417, 2025',
    systems: [
      ...[openvla, rt2, openvlaD, openvlaS, openvlaC, openvlaDS, openvlaSC, openvlaPlus, pi0Paraphrased, pi0Plus],
      insulationDual,
    ],
  },
  {
    title: 'RoboVLMs',
    papers: 'arXiv 2412.14058, 2024',
    systems: [
      ...[oneStepDiscrete, oneStepContinuous, interleaved, policyHeadLstm, policyHeadMlp, policyHeadTransformer],
      ...[policyHeadSquared, policyHeadDiffusion, policyHeadFlow, flamingo, flamingoPolicyHead],
    ],
  },
];

/** The systems by family; those that a user adds come last. */
export const families: readonly Family[] = [...known, { title: 'Added', papers: 'your own files', systems: added }];

const all: System[] = known.flatMap((family) => family.systems);

export const systems: readonly System[] = all;

/**
 * Adds a system of one's own, so that it is trained, sampled and benchmarked by its name.
 *
 * @throws InputError if its name is no lower-case word with dashes, or is another system's, or if it has an unknown parent
 */
export function addSystem(system: System): void {
  const { name, parent } = system;
  if (!/^[a-z0-9]+(-[a-z0-9]+)*$/.test(name))
    throw new InputError(`system ${quote(name)}: its name must be lower-case words joined by dashes`);
  if (systems.some((own) => own.name === name)) throw new InputError(`system ${quote(name)}: another has this name`);
  if (parent !== null) systemNamed(parent);
  all.push(system);
  added.push(system);
}

/** @throws InputError with names that are near, if no system has this one */
export function systemNamed(name: string): System {
  const found = systems.find((system) => system.name === name);
  if (!found) throw new InputError(`no system is named ${quote(name)}; ${nearSystems(name)}`);
  return found;
}

/** The systems that were probably meant by an unknown name: one with few other letters, those that contain it, or its family. */
export function nearSystems(word: string): string {
  const names = systems.map(({ name }) => name);
  const lower = word.toLowerCase();
  const family = families.filter(({ title }) => title.toLowerCase().split(/,? /).includes(lower));
  const near = new Set([
    ...[probable(word, names) ?? []].flat(),
    ...(lower.length > 1 ? names.filter((name) => name.includes(lower)) : []),
    ...family.flatMap((own) => own.systems.map(({ name }) => name)),
  ]);
  return near.size > 0 ? `did you mean ${[...near].join(', ').replace(/, (?=[^ ]*$)/, ' or ')}?` : 'see insula systems';
}
