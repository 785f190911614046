/** The settings of a training run: one plain object, made by the command line and stored whole in the checkpoint. */
import * as v from 'valibot';
import { InputError } from '../../engine/files/errors.ts';
import { count, float32, positive32, share } from '../../engine/files/json-schema.ts';
import { actionTokenKinds } from '../../tokenizers/index.ts';
import { precisions } from '../architecture/precision.ts';
import { channelOrders } from '../data/channels.ts';
import { fieldMapSchema } from '../data/store/mapping.ts';
import {
  type ModelSizes,
  type System,
  systemNamed,
  withDraws,
  withMaximumDelay,
  withStopsAt,
} from '../systems/index.ts';
import { presetNamed, presetSchema } from './presets.ts';

/** Kinds of subtasks, which a policy says before it acts: places in the picture, words, or places and then words. */
export const subtaskKinds = ['places', 'words', 'both'] as const;

/** The largest settings that mean something. Random streams count steps in 32 bits. */
export const most = { steps: 2 ** 32 - 1, accumulate: 2 ** 16, loraAlpha: 2 ** 16, rate: 1e4 } as const;

export const runSettingsSchema = v.object({
  /** The name of a system, or of `packedQuestions` for pretraining. */
  system: v.string(),
  preset: presetSchema,
  /** Training steps. */
  steps: count(0, most.steps),
  /** Examples in a batch. */
  batch: count(1),
  /** Gradient accumulation: parts of `batch` examples that run one after the other and together are the batch of a step. */
  accumulate: count(1, most.accumulate),
  /** Activation (gradient) checkpointing: backward runs every layer again instead of keeping its activations. */
  recompute: v.boolean(),
  /** Number format of the weights: of matrices alone, in bf16. */
  precision: v.optional(v.picklist(precisions), 'f32'),
  /** Number format of AdamW's moments. */
  moments: v.picklist(['f32', 'bf16', '8bit']),
  /** Decay of a moving average of the weights, which is measured and acts; null for none. */
  ema: v.optional(v.nullable(v.pipe(positive32, v.ltValue(1))), null),
  /** Training steps between measurements of acting; null for none before the end. */
  actEvery: v.optional(v.nullable(count(1)), null),
  /** Actions become differences to the state at the chunk's start. */
  delta: v.optional(v.boolean(), false),
  /** Determines split, initial weights, order of examples, noise and times. */
  seed: count(),
  /** A vision-language model that the weights begin from: the name of a shipped one, or a path; null for random weights. */
  from: v.nullable(v.string()),
  /** Kind of the discrete action tokens, in systems that have them; null for the system's own. */
  tokens: v.nullable(v.picklist(actionTokenKinds)),
  /** Groups of parameters, or patterns of their names, that keep their values. */
  freeze: v.nullable(v.array(v.string())),
  /** Factors on the learning rate by group, or pattern of names. */
  rates: v.nullable(v.record(v.string(), v.pipe(positive32, v.maxValue(most.rate)))),
  /** Rank of low-rank adaptation; null for none. */
  lora: v.optional(v.nullable(count(1)), null),
  /** The experts that it adapts; null for those that the start gives weights for, which is the backbone, and all without a start. */
  loraOn: v.optional(v.nullable(v.array(v.string())), null),
  /** Its products are multiplied by this number and divided by the rank; null for the rank. */
  loraAlpha: v.optional(v.nullable(v.pipe(positive32, v.maxValue(most.loraAlpha))), null),
  /** Initial bias of the gates of adaptive norms; null for 0, at which their branches are closed. */
  gates: v.nullable(float32),
  /** Factor of the gradient on the edges where the system stops it; null for 0, the system's own. */
  gradientScale: v.nullable(share),
  /** The kind of subtask that the policy says before it acts; null for none. */
  subtask: v.nullable(v.picklist(subtaskKinds)),
  /** Noise and time draws of each chunk in a training step, of systems with a flow. */
  draws: count(1),
  /** Training-time real-time chunking: the most control steps that a chunk of a flow may be computed in; 0 for none. */
  maximumDelay: v.optional(count(), 0),
  /** Control steps that a system with a history sees together; null for the system's own. */
  window: v.optional(v.nullable(count(1)), null),
  /** Control steps in a chunk; null for one second. */
  horizon: v.nullable(count(1)),
  /** Training images are cropped, rotated and recoloured at random, determined by (seed, step). */
  augment: v.boolean(),
  /** Fraction of every batch that is vision-language questions, from 0 to below 1. */
  cotrain: v.pipe(v.number(), v.minValue(0), v.ltValue(1)),
  /** Path of the questions, or of the images that they are about; null for the built-in world. */
  questions: v.nullable(v.string()),
  /** File of paraphrases of the instructions, or 'forms' for those that fit every instruction. */
  paraphrases: v.nullable(v.string()),
  /** File or folder of an action tokenizer, instead of one fitted to the data. */
  tokenizer: v.nullable(v.string()),
  /** A norm_stats.json of openpi, instead of the data's own statistics. */
  statistics: v.nullable(v.string()),
  /** Folders or files of the data sets; null for the built-in world. */
  data: v.nullable(v.array(v.string())),
  /** Tasks of the built-in world, separated by commas, and the variation of its scenes; null for its own defaults. */
  task: v.nullable(v.string()),
  variation: v.nullable(v.string()),
  /** Names of the data sets to use, of a folder with several. */
  dataset: v.nullable(v.array(v.string())),
  /** Names of the cameras to use; null for all. */
  cameras: v.nullable(v.array(v.string())),
  /** Control steps per second, for files that do not record it. */
  rate: v.nullable(positive32),
  /** The fields of each data set that are actions, states, cameras and so on, or of all of them; null for those that are known. */
  map: v.optional(v.nullable(v.array(fieldMapSchema)), null),
  /** The order of the colours in the images of the data; null for red, green, blue. */
  channels: v.optional(v.nullable(v.picklist(channelOrders)), null),
  /** Names of the robots' slot maps. */
  robot: v.nullable(v.array(v.string())),
  /** Relative sampling weight of each data set. */
  weights: v.nullable(v.array(positive32)),
});
export type RunSettings = Readonly<v.InferOutput<typeof runSettingsSchema>>;

/** The low-rank adaptation of a run, as a model's sizes have it; undefined for none. */
export function loraOf({
  lora: rank,
  loraOn,
  loraAlpha,
  from,
}: Pick<RunSettings, 'lora' | 'loraOn' | 'loraAlpha' | 'from'>): ModelSizes['lora'] {
  if (rank === null) return undefined;
  const experts = loraOn ?? (from === null ? null : ['backbone']);
  return { rank, ...(loraAlpha !== null && { alpha: loraAlpha }), ...(experts && { experts }) };
}

/** The weights that a run with a moving average measures. */
export const averagedWords = (decay: number) =>
  `Measured numbers are those of the moving average of the weights, decay ${decay}; training losses and gradient norms are those of the weights themselves.`;

/** The given settings, and defaults for the others: the preset's if it has one. */
export function runSettings(given: Partial<RunSettings> = {}): RunSettings {
  const { preset = presetNamed('tiny') } = given;
  return {
    system: 'knowledge-insulation',
    preset,
    steps: preset.steps,
    batch: preset.batch,
    accumulate: 1,
    recompute: false,
    precision: 'f32',
    moments: 'f32',
    ema: null,
    actEvery: null,
    delta: false,
    seed: 0,
    from: null,
    tokens: null,
    freeze: null,
    rates: null,
    lora: null,
    loraOn: null,
    loraAlpha: null,
    gates: null,
    gradientScale: null,
    subtask: null,
    draws: 1,
    maximumDelay: 0,
    window: null,
    horizon: null,
    augment: false,
    cotrain: 0,
    questions: null,
    paraphrases: null,
    tokenizer: null,
    statistics: null,
    data: null,
    task: null,
    variation: null,
    dataset: null,
    cameras: null,
    rate: null,
    map: null,
    channels: null,
    robot: null,
    weights: null,
    ...given,
  };
}

/**
 * The system before `subtask` and `draws`.
 *
 * @throws InputError if `gradientScale` is for a system that stops no gradient, `draws` or `maximumDelay` for one without a flow, or
 * `window` for one without a history
 */
export function systemOf({ system: name, gradientScale, draws, maximumDelay, window }: RunSettings): System {
  const { history, ...others } = systemNamed(name);
  if (window !== null && !history)
    throw new InputError(`--window: ${name} sees no history; leave it out, or choose another --system`);
  const named = { ...others, ...(history && { history: { ...history, window: window ?? history.window } }) };
  const system = maximumDelay === 0 ? named : withMaximumDelay(named, maximumDelay);
  if (!system) throw new InputError(`--maximum-delay: ${name} has no flow; leave it out, or choose another --system`);
  if (draws > 1 && !withDraws(system, draws))
    throw new InputError(`--draws: ${name} has no flow, which draws noise; leave it out, or choose another --system`);
  if (gradientScale === null) return system;
  const softened = withStopsAt(system, gradientScale);
  if (!softened)
    throw new InputError(
      `--gradient-scale: ${name} stops the gradient of no edge; leave it out, or choose another --system`,
    );
  return softened;
}

/** @throws InputError if a setting is for discrete tokens and the system has none */
export function expectTokens({ system, cotrain, tokens, tokenizer }: RunSettings): void {
  if (systemNamed(system).actionTokens) return;
  const unused = [cotrain > 0 && 'cotrain', tokens !== null && 'tokens', tokenizer !== null && 'tokenizer'];
  const [first] = unused.filter((name) => name !== false);
  if (first !== undefined)
    throw new InputError(`--${first}: ${system} has no discrete tokens; leave it out, or choose another --system`);
}
