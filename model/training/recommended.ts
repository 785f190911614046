import { pretrainedNames } from '../pretrained/index.ts';
import { systemNamed, withDraws, withSubtask } from '../systems/index.ts';
import { presetNamed } from './presets.ts';
import { type RunSettings, runSettings } from './run-settings.ts';

/**
 * The given settings, and for the others those by which a policy that begins from a shipped vision-language model learns to act in
 * minutes: it says the places of the things that it acts on, and learns from several noise and time draws of each chunk with open gates.
 * The tower, and the backbone if an expert acts, learn so slowly that they still answer most questions. Meant for data with places, such
 * as the built-in world's.
 */
export function recommendedSettings(given: Partial<RunSettings> = {}): RunSettings {
  const { preset = presetNamed('tiny'), system: name = 'knowledge-insulation', freeze } = given;
  const { from = pretrainedNames.some((own) => own === preset.name) ? preset.name : null } = given;
  const system = systemNamed(name);
  const hasExpert = system.blocks.some(({ weights }) => weights !== 'backbone');
  const slow = Object.entries({ vision: 0.1, ...(hasExpert && { backbone: 0.2 }) });
  // A rate for parameters that are frozen would be refused.
  const isFrozen = (group: string) => freeze?.some((own) => own === group || own.includes('*')) ?? false;
  const rates = Object.fromEntries(slow.filter(([group]) => !isFrozen(group)));
  return runSettings({
    ...{ preset, from },
    ...(from !== null && Object.keys(rates).length > 0 && { rates }),
    ...(withSubtask(system, { tokens: 1, dimension: 0 }) && { subtask: 'places' }),
    ...(withDraws(system, 2) && { draws: 8 }),
    ...(system.time === 'adaptive' && { gates: 1 }),
    ...given,
  });
}
