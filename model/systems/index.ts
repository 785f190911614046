import { InputError, quote } from '../../engine/files/errors.ts';
import { openvlaC, openvlaD, openvlaDS, openvlaPlus, openvlaS, openvlaSC, pi0Paraphrased, pi0Plus } from './genvla.ts';
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

export { type Change, type Difference, differencesOf, edgeText, fieldsOf, settingsOf } from './differences.ts';
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

const all: System[] = [
  ...[knowledgeInsulation, insulationRobotOnly, jointTraining, jointRobotOnly, naiveTokens, naiveTokensStride],
  ...[kiContinuousState, kiExpertState, kiSpecialTokenState],
  ...[pi0, pi0TextState, pi05, frozenBackbone, pi0Fast, pi05Stage1, pi05Stage2, pi0Small],
  ...[hybridVla, hybridVlaOriginal, transfusion, openvlaOft],
  ...[openvla, rt2, openvlaD, openvlaS, openvlaC, openvlaDS, openvlaSC, openvlaPlus, pi0Paraphrased, pi0Plus],
  ...[oneStepDiscrete, oneStepContinuous, interleaved, policyHeadLstm, policyHeadMlp, policyHeadTransformer],
  ...[policyHeadSquared, policyHeadDiffusion, policyHeadFlow, flamingo, flamingoPolicyHead],
];

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
}

/** @throws InputError that lists the systems if none has this name */
export function systemNamed(name: string): System {
  const found = systems.find((system) => system.name === name);
  if (!found)
    throw new InputError(
      `no system is named ${quote(name)}; there are ${systems.map((system) => system.name).join(', ')}`,
    );
  return found;
}
