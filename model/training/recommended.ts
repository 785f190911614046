import { systemNamed, withDraws, withSubtask } from '../systems/index.ts';
import { presetNamed } from './presets.ts';
import { type RunSettings, runSettings } from './run-settings.ts';

/**
 * The given settings, and for the others those by which a policy that begins from a shipped vision-language model learns to act in
 * minutes: it says the places of what it acts on, learns from several noise and time draws of each chunk with open gates, and changes
 * its vision tower slowly. They suit data with places, such as the built-in world's.
 */
export function recommendedSettings(given: Partial<RunSettings> = {}): RunSettings {
  const { preset = presetNamed('tiny'), system: name = 'knowledge-insulation', freeze } = given;
  const system = systemNamed(name);
  const isFrozen = freeze?.includes('vision') ?? false;
  return runSettings({
    ...{ preset, from: preset.name, rates: isFrozen ? null : { vision: 0.5 } },
    ...(withSubtask(system, { tokens: 1, dimension: 0 }) && { subtask: 'places' }),
    ...(withDraws(system, 2) && { draws: 8 }),
    ...(system.time === 'adaptive' && { gates: 1 }),
    ...given,
  });
}
