import { InputError, quote } from '../../engine/files/errors.ts';
import { hybridVla } from './hybrid-vla.ts';
import { jointTraining, kiContinuousState, knowledgeInsulation } from './knowledge-insulation.ts';
import { openvlaOft } from './openvla-oft.ts';
import { pi0, pi0Fast, pi05 } from './pi0.ts';
import type { System } from './system.ts';
import { transfusion } from './transfusion.ts';

export { type Change, type Difference, differencesOf, edgeText, fieldsOf, settingsOf } from './differences.ts';
export { MARKS, PACKED_QUESTIONS, packedQuestions, type SlotLengths, slotBlocks } from './packed-questions.ts';
export { type SubtaskSizes, withSubtask } from './subtask.ts';
export {
  configurationOf,
  type ModelSizes,
  NUMBERS,
  SUBTASK,
  type System,
  type SystemBlock,
  withDraws,
  withStopsAt,
} from './system.ts';

export const systems: readonly System[] = [
  ...[knowledgeInsulation, jointTraining],
  ...[pi0, pi05, pi0Fast],
  ...[hybridVla, kiContinuousState, transfusion, openvlaOft],
];

/** @throws InputError that lists the systems if none has this name */
export function systemNamed(name: string): System {
  const found = systems.find((system) => system.name === name);
  if (!found)
    throw new InputError(
      `no system is named ${quote(name)}; there are ${systems.map((system) => system.name).join(', ')}`,
    );
  return found;
}
