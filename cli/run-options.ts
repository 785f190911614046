/** The options that are settings of a training run, by the names of the settings. */
import { systems } from '../model/systems/index.ts';
import { type Preset, presetNamed, presets } from '../model/training/presets.ts';
import type { RunSettings } from '../model/training/run-settings.ts';
import { cameraOptions, dataOptions, robotOptions } from './data.ts';
import { choice, decimal, decimals, flag, number, text, type ValuesOf } from './options.ts';

/** Options of a training step's use of memory, which its benchmark takes too. */
export const memoryOptions = {
  accumulate: number('batches to a step, whose gradients are averaged; 1 by default', 1),
  recompute: flag('gradient checkpointing: backward runs every layer again, which takes less memory and more time'),
};

export const systemNames = systems.map(({ name }) => name);
export const presetNames = presets.map(({ name }) => name);

export const runOptions = {
  system: choice(`${systemNames.join(', ')}; knowledge-insulation by default`, systemNames),
  preset: choice(presets.map(({ name, description }) => `${name}: ${description}`).join('; '), presetNames),
  ...dataOptions,
  ...cameraOptions,
  ...robotOptions,
  weights: decimals('how often each of several data sets is drawn; n^0.43 of its n examples by default', {
    needs: 'data',
  }),
  steps: number(`training steps; ${ofPresets('steps')} by default`),
  batch: number(`examples to a step; ${ofPresets('batch')} by default`, 1),
  ...memoryOptions,
  moments: choice("storage of AdamW's moments: f32 (default), bf16 or 8bit, packed with stochastic rounding", [
    'f32',
    'bf16',
    '8bit',
  ]),
  cotrain: decimal('part of every batch that is questions about images (0.5: half); 0 by default', {
    from: 0,
    below: 1,
  }),
  questions: text('images with names to ask about, PATH.json and PATH.pack; the built-in world by default', {
    needs: 'cotrain',
  }),
  paraphrases: text('JSON file of paraphrases: { "an instruction of the data": ["another wording", ...] }'),
  augment: flag('crops, rotates and recolours the training images, each time anew'),
  tokenizer: text(
    'FAST tokenizer in place of one fitted to the data: file of insula tokenize fit, or published folder',
  ),
  statistics: text("openpi's norm_stats.json to normalise by, in place of the data's own statistics", {
    needs: 'data',
  }),
  horizon: number('control steps of a chunk; as many as one second has by default', 1),
  seed: number('chooses data, weights, noise and order; 0 by default'),
};

/** The settings that the options ask for; those that are left out are not there. */
export function askedSettings({ preset, ...asked }: ValuesOf<typeof runOptions>): Partial<RunSettings> {
  return { ...asked, ...(preset !== undefined && { preset: presetNamed(preset) }) };
}

/** A number of the presets, for help. */
function ofPresets(what: keyof Preset & ('steps' | 'batch')): string {
  const numbers = presets.map((preset) => preset[what]);
  const same = new Set(numbers).size === 1;
  return same ? String(numbers[0]) : presets.map(({ name }, i) => `${numbers[i]} (${name})`).join(', ');
}
