import type { Dataset } from '../data/dataset.ts';
import { pretrainedUrl } from '../pretrained/index.ts';
import { type System, systemNamed, withDraws, withSubtask } from '../systems/index.ts';
import { presetNamed } from './presets.ts';
import { type RunSettings, runSettings } from './run-settings.ts';

/** The recipe of a system as settings. */
function recipeOf({ recipe = {} }: System): Partial<RunSettings> {
  const { scratch: _, cotrain = 0, ...others } = recipe;
  return { cotrain, ...others };
}

/** The given settings, and for the others the recipe of their system and the preset's numbers. */
export function recipeSettings(given: Partial<RunSettings> & Pick<RunSettings, 'system'>): RunSettings {
  return runSettings({ ...recipeOf(systemNamed(given.system)), ...given });
}

/** The settings without the parts of a recipe that the data cannot follow, and a note on each; what was `given` stays. */
export function withoutLacking(
  settings: RunSettings,
  given: Partial<RunSettings>,
  { name, cameras, episodes }: Dataset,
): { settings: RunSettings; notes: string[] } {
  const notes: string[] = [];
  let fitting = settings;
  if (settings.cotrain > 0 && given.cotrain === undefined && cameras.length === 0) {
    fitting = { ...fitting, cotrain: 0 };
    notes.push(`${name}: no images, so ${settings.system} is trained without questions`);
  }
  if (settings.subtask === 'words' && given.subtask === undefined && !episodes.some(({ subtask }) => subtask)) {
    fitting = { ...fitting, subtask: null };
    notes.push(`${name}: no subtasks in words, so ${settings.system} says none before it acts`);
  }
  return { settings: fitting, notes };
}

/** The shipped vision-language models have learned from questions before, so that robot data alone is left. */
export const DEFAULT_SYSTEM = 'knowledge-insulation-robot-only';

/**
 * The given settings, and for the others those by which a policy that begins from a shipped vision-language model learns to act in
 * minutes: it says the places of the things that it acts on, and learns from several noise and time draws of each chunk with open gates.
 * The tower, and the backbone if an expert acts, learn so slowly that they still answer most questions. Meant for data with places, such
 * as the built-in world's.
 */
export function recommendedSettings(given: Partial<RunSettings> = {}): RunSettings {
  const { preset = presetNamed('tiny'), system: name = DEFAULT_SYSTEM, freeze, lora = null, loraOn } = given;
  const system = systemNamed(name);
  const { rules = [], recipe = {} } = system;
  const { from = recipe.scratch || !pretrainedUrl(preset.name) ? null : preset.name } = given;
  const hasExpert = system.blocks.some(({ weights }) => weights !== 'backbone');
  // Adapters learn at the full rate.
  const isAdapted = lora !== null && (loraOn?.includes('backbone') ?? true);
  const towers = (system.towers ?? ['vision']).map((tower) => [tower, 0.1]);
  const slow = Object.entries<number>({
    ...Object.fromEntries(towers),
    ...(hasExpert && !isAdapted && { backbone: 0.2 }),
  });
  // A rate for parameters that are frozen would be refused.
  const isFrozen = (group: string) =>
    (freeze?.some((own) => own === group || own.includes('*')) ?? false) ||
    rules.some(({ match, frozen }) => frozen && match === group);
  const rates = Object.fromEntries(slow.filter(([group]) => !isFrozen(group)));
  return recipeSettings({
    ...{ preset, from, system: name },
    ...(from !== null && Object.keys(rates).length > 0 && { rates }),
    ...(!recipe.subtask && withSubtask(system, { tokens: 1, dimension: 0 }) && { subtask: 'places' }),
    ...(!recipe.draws && withDraws(system, 2) && { draws: 8 }),
    ...(system.time === 'adaptive' && { gates: 1 }),
    ...given,
  });
}
