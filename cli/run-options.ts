/** The settings of a training run as options of the same names. */
import { precisions } from '../model/architecture/precision.ts';
import { nearSystems, systems } from '../model/systems/index.ts';
import { type Preset, presetNamed, presets } from '../model/training/presets.ts';
import { DEFAULT_SYSTEM, recipeSettings, recommendedSettings } from '../model/training/recommended.ts';
import { most, type RunSettings, subtaskKinds } from '../model/training/run-settings.ts';
import { actionTokenKinds } from '../tokenizers/index.ts';
import { cameraOptions, dataOptions, robotOptions } from './data.ts';
import {
  choice,
  decimal,
  decimals,
  factors,
  flag,
  number,
  type Option,
  seedNumber,
  text,
  texts,
  type ValuesOf,
} from './options.ts';
import { sceneOptions } from './scenes.ts';

/** Memory options of a training step, shared with its benchmark. */
export const memoryOptions = {
  accumulate: number(
    'gradient accumulation: batches of --batch examples that together are the batch of a step; 1 by default',
    1,
    { to: most.accumulate },
  ),
  recompute: flag('gradient checkpointing: backward runs every layer again, which takes less memory and more time'),
  precision: choice(
    'number format of matrices and activations: f32 (default), or bf16 with stochastic rounding',
    precisions,
  ),
  moments: choice("format of AdamW's moments: f32 (default), or with stochastic rounding bf16 or 8bit", [
    'f32',
    'bf16',
    '8bit',
  ]),
};

export const systemNames = systems.map(({ name }) => name);
export const presetNames = presets.map(({ name }) => name);

export const questionsHelp =
  'questions about your own images: PATH.jsonl with lines {"image": file beside it, "prompt", "answer"}, places as <locNNNN> down, then across, from 0 to 1023; or named images, PATH.json and PATH.pack; the built-in world by default';

const subtaskName = choice(
  'subtask that the policy says before it acts: places (of the things that it acts on, which an action expert gets as numbers too), words, both, or none; by default places in the built-in world, if the system can say any, and none with --data',
  subtaskKinds,
);

export const runOptions = {
  system: choice(`one of those that insula systems lists; ${DEFAULT_SYSTEM} by default`, systemNames, {}, nearSystems),
  preset: choice(presets.map(({ name, description }) => `${name}: ${description}`).join('; '), presetNames),
  ...dataOptions,
  ...cameraOptions,
  ...robotOptions,
  ...sceneOptions,
  weights: decimals('relative sampling weight of each data set; by default n^0.43 for n control steps', {
    needs: 'data',
  }),
  steps: number(`training steps; ${presetValues(({ steps }) => steps)} by default`, 0, { to: most.steps }),
  batch: number(`examples in a batch; ${presetValues(({ batch }) => batch)} by default`, 1),
  ...memoryOptions,
  ema: decimal(
    'decay of a moving average of the weights, which takes 4 bytes a parameter, is measured and acts: openpi has 0.99 and 0.999; none by default',
    { above: 0, below: 1 },
  ),
  'act-every': number(
    'training steps between measurements of acting: open-loop error and, in the built-in world, a closed loop of 10 episodes; none by default',
    1,
  ),
  delta: flag(
    'actions become differences to the state at the start of the chunk, in all dimensions but the last and grippers; for data of absolute actions',
  ),
  cotrain: decimal("fraction of every batch that is questions about images; the system's own by default, 0 in most", {
    from: 0,
    below: 1,
  }),
  questions: text(questionsHelp),
  paraphrases: text(
    'JSON file of paraphrases: { "an instruction of the data": ["a paraphrase", ...] }, or forms: such as "please" before every instruction',
  ),
  augment: flag('crops, rotates and recolours the training images at random'),
  tokenizer: text(
    'action tokenizer, instead of one made for the data: file of insula tokenize fit, or published folder',
  ),
  statistics: text("norm_stats.json of openpi, instead of the data's own statistics", {
    needs: 'data',
  }),
  tokens: choice(
    "action tokens of systems that have them: fast, bins, stride (every fifth step) or string; the system's own by default",
    actionTokenKinds,
    { excludes: 'tokenizer' },
  ),
  freeze: texts('parameters that keep their values: groups (vision, backbone, expert), or patterns of names with *'),
  lora: number(
    'rank of low-rank adaptation (LoRA) of the experts of --lora-on; none by default. Beside each matrix of their transformers two thin ones are trained. These transformers keep their values, and so do the token embeddings with the backbone. All else is trained whole, unless --freeze names it: vision tower, projections of state and actions, heads, modulation of adaptive norms',
    1,
  ),
  'lora-on': texts(
    'experts that --lora adapts: backbone, expert; by default those that --from gives weights for, which is the backbone, and all with random weights',
    { needs: 'lora' },
  ),
  'lora-alpha': decimal(
    'products of --lora are multiplied by this number and divided by the rank; the rank by default',
    {
      above: 0,
      to: most.loraAlpha,
      needs: 'lora',
    },
  ),
  rates: factors(
    'factors above 0 on the learning rate of groups, or of patterns of names; with a start in the built-in world vision=0.1 by default, and backbone=0.2 if an expert acts; for 0 give --freeze',
    { to: most.rate },
  ),
  gates: decimal(
    'initial bias of the gates of adaptive norms: at 0, the default with --data, their branches are closed; 1 by default in the built-in world, in systems that have them',
  ),
  'gradient-scale': decimal('factor of the gradient where the system stops it (soft insulation); 0 by default', {
    from: 0,
    to: 1,
  }),
  subtask: {
    ...subtaskName,
    read: (given) => (given[0] === 'none' ? null : subtaskName.read(given)),
  } as Option<RunSettings['subtask']>,
  draws: number(
    'noise and time draws of each chunk in a training step, of systems with a flow; 8 by default in the built-in world, 1 with --data',
    1,
  ),
  'maximum-delay': number(
    'training-time real-time chunking, of systems with a flow: up to so many actions of each training chunk are given, as those are that a robot carries out while the next chunk is computed; 0 by default',
  ),
  window: number("control steps that a system with a history sees together; the system's own by default", 1),
  horizon: number("control steps in a chunk; the system's own by default, one second in most", 1),
  from: {
    ...text(
      "vision-language model that the weights begin from: tiny, small or FILE, or a pi0, pi0.5 or pi0-FAST of openpi (PyTorch) or LeRobot, PaliGemma or SigLIP: FOLDER or FILE, whose sizes the preset then gets, of SigLIP those of the tower; or scratch for random weights; the preset's own, if there is one, by default in the built-in world, scratch with --data",
    ),
    read: ([name]: readonly string[]) => (name === 'scratch' ? null : name),
  },
  seed: seedNumber('determines data, initial weights, noise and order; 0 by default'),
};

/** The settings that the options give; settings of other options are absent. */
export function givenSettings({
  preset,
  'gradient-scale': gradientScale,
  'maximum-delay': maximumDelay,
  'act-every': actEvery,
  'lora-on': loraOn,
  'lora-alpha': loraAlpha,
  ...given
}: ValuesOf<typeof runOptions>): Partial<RunSettings> {
  return {
    ...given,
    ...(preset !== undefined && { preset: presetNamed(preset) }),
    ...(gradientScale !== undefined && { gradientScale }),
    ...(maximumDelay !== undefined && { maximumDelay }),
    ...(actEvery !== undefined && { actEvery }),
    ...(loraOn !== undefined && { loraOn }),
    ...(loraAlpha !== undefined && { loraAlpha }),
  };
}

/** The given settings, and defaults for the others: the system's recipe, and in the built-in world the recommended ones. */
export const settingsOfRun = (given: Partial<RunSettings>): RunSettings =>
  given.data ? recipeSettings({ system: DEFAULT_SYSTEM, ...given }) : recommendedSettings(given);

/** A number of each preset, for help. */
export function presetValues(of: (preset: Preset) => number): string {
  const numbers = presets.map(of);
  const same = new Set(numbers).size === 1;
  return same ? String(numbers[0]) : presets.map(({ name }, i) => `${numbers[i]} (${name})`).join(', ');
}
