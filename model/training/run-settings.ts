/**
 * The settings of a training run: one plain object, made by the command line, kept whole in the checkpoint and handed whole to
 * whoever trains.
 */
import * as v from 'valibot';
import { presetNamed, presetSchema } from './presets.ts';

const count = (least = 0) => v.pipe(v.number(), v.safeInteger(), v.minValue(least));

export const runSettingsSchema = v.object({
  system: v.string(),
  preset: presetSchema,
  /** Training steps. */
  steps: count(),
  /** Examples that are in memory at a time. */
  batch: count(1),
  /** Batches to a step, whose gradients are averaged: more examples than memory holds at a time. */
  accumulate: count(1),
  /** Backward runs every layer of the mixture again instead of keeping its activations (gradient checkpointing). */
  recompute: v.boolean(),
  /** Storage of AdamW's moments. */
  moments: v.picklist(['f32', 'bf16', '8bit']),
  /** Chooses split, weights, order, noise and times. */
  seed: count(),
  /** Control steps of a chunk; null for one second. */
  horizon: v.nullable(count(1)),
  /** Training images are cropped, rotated and recoloured, as (seed, step) draws it. */
  augment: v.boolean(),
  /** Part of every batch that is vision-language questions, from 0 to below 1. */
  cotrain: v.pipe(v.number(), v.minValue(0), v.ltValue(1)),
  /** Path of the images that the questions are about; null for the built-in world. */
  questions: v.nullable(v.string()),
  /** File of paraphrases of the instructions. */
  paraphrases: v.nullable(v.string()),
  /** File or folder of an action tokenizer in place of one that is fitted to the data. */
  tokenizer: v.nullable(v.string()),
  /** openpi's norm_stats.json in place of the data's own statistics. */
  statistics: v.nullable(v.string()),
  /** Folders or files of the data sets; null for the built-in world. */
  data: v.nullable(v.array(v.string())),
  /** Which data sets of a folder with several. */
  dataset: v.nullable(v.array(v.string())),
  /** Which cameras of the data set; null for all. */
  cameras: v.nullable(v.array(v.string())),
  /** Control steps a second, of files that do not say. */
  rate: v.nullable(v.pipe(v.number(), v.gtValue(0))),
  /** Slot maps of the robots of a mixture, by name. */
  robot: v.nullable(v.array(v.string())),
  /** How often each data set of a mixture is drawn, beside the others. */
  weights: v.nullable(v.array(v.number())),
});
export type RunSettings = Readonly<v.InferOutput<typeof runSettingsSchema>>;

/** Settings from those that were asked for; the others have their defaults, which are the preset's where it has them. */
export function runSettings(asked: Partial<RunSettings> = {}): RunSettings {
  const { preset = presetNamed('tiny') } = asked;
  return {
    system: 'knowledge-insulation',
    preset,
    steps: preset.steps,
    batch: preset.batch,
    accumulate: 1,
    recompute: false,
    moments: 'f32',
    seed: 0,
    horizon: null,
    augment: false,
    cotrain: 0,
    questions: null,
    paraphrases: null,
    tokenizer: null,
    statistics: null,
    data: null,
    dataset: null,
    cameras: null,
    rate: null,
    robot: null,
    weights: null,
    ...asked,
  };
}
