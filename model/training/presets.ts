import * as v from 'valibot';
import { InputError, quote } from '../../engine/files/errors.ts';
import { count } from '../../engine/files/json-schema.ts';

const trainingSchema = v.object({
  steps: count(),
  batch: count(1),
  learningRate: v.pipe(v.number(), v.gtValue(0)),
  warmUpSteps: count(),
  /** Training steps between held-out measurements, and between checkpoints. */
  evaluateEvery: count(1),
  saveEvery: count(1),
});

const sizesSchema = v.object({ width: count(1), hidden: count(1) });

/** Sizes of a model and defaults of its training. Checkpoints store the whole preset. */
export const presetSchema = v.object({
  name: v.string(),
  description: v.string(),
  backbone: sizesSchema,
  expert: sizesSchema,
  depth: count(1),
  heads: count(1),
  kvHeads: count(1),
  headDimension: count(1),
  /** `patch` and `image`: pixels on a side. */
  vision: v.object({ ...sizesSchema.entries, depth: count(1), heads: count(1), patch: count(1), image: count(1) }),
  /** Ids of a FAST tokenizer fitted to the data, at most. */
  fastVocabulary: count(1),
  stateBins: count(1),
  /** Demonstrations of the built-in world. */
  demonstrations: count(1),
  ...trainingSchema.entries,
  /** The settings that differ in `insula pretrain`. */
  pretraining: trainingSchema,
  weightDecay: v.pipe(v.number(), v.minValue(0)),
  maximumNorm: v.pipe(v.number(), v.gtValue(0)),
  /** Held-out control steps of a measurement during training, and of the last one. */
  heldOutSteps: count(1),
  finalHeldOutSteps: count(1),
});
export type Preset = Readonly<v.InferOutput<typeof presetSchema>>;

const tiny: Preset = {
  name: 'tiny',
  description: 'the smallest: on two processor cores it trains in minutes and is pretrained in half an hour',
  backbone: { width: 96, hidden: 256 },
  expert: { width: 64, hidden: 192 },
  depth: 3,
  heads: 4,
  kvHeads: 1,
  headDimension: 32,
  vision: { width: 64, depth: 3, heads: 2, hidden: 192, patch: 8, image: 64 },
  fastVocabulary: 256,
  stateBins: 256,
  demonstrations: 400,
  steps: 600,
  batch: 16,
  learningRate: 2e-3,
  warmUpSteps: 20,
  weightDecay: 1e-4,
  maximumNorm: 1,
  evaluateEvery: 100,
  saveEvery: 100,
  pretraining: {
    ...{ steps: 8000, batch: 16, learningRate: 2e-3, warmUpSteps: 50 },
    ...{ evaluateEvery: 250, saveEvery: 500 },
  },
  heldOutSteps: 64,
  finalHeldOutSteps: 128,
};

const nano: Preset = {
  ...tiny,
  name: 'nano',
  description: 'for tests and first tries: it trains a step in milliseconds, and learns nothing of use',
  backbone: { width: 16, hidden: 32 },
  expert: { width: 16, hidden: 32 },
  depth: 2,
  heads: 2,
  headDimension: 16,
  vision: { width: 16, depth: 1, heads: 1, hidden: 32, patch: 8, image: 16 },
  demonstrations: 8,
  steps: 20,
  batch: 4,
  warmUpSteps: 2,
  evaluateEvery: 10,
  saveEvery: 10,
  pretraining: { ...tiny.pretraining, steps: 20, batch: 4, warmUpSteps: 2, evaluateEvery: 10, saveEvery: 10 },
  heldOutSteps: 8,
  finalHeldOutSteps: 8,
};

const small: Preset = {
  ...tiny,
  name: 'small',
  description:
    'wider and a layer deeper, with more demonstrations: it trains in a quarter of an hour and is pretrained in one',
  backbone: { width: 128, hidden: 320 },
  expert: { width: 96, hidden: 256 },
  depth: 4,
  vision: { width: 96, depth: 3, heads: 3, hidden: 256, patch: 8, image: 64 },
  demonstrations: 600,
  steps: 1500,
  warmUpSteps: 50,
  evaluateEvery: 250,
  saveEvery: 250,
  pretraining: { ...tiny.pretraining, steps: 6000, learningRate: 1.5e-3 },
  heldOutSteps: 128,
  finalHeldOutSteps: 256,
};

export const presets: readonly Preset[] = [nano, tiny, small];

/** @throws InputError that lists the presets if none has this name */
export function presetNamed(name: string): Preset {
  const found = presets.find((preset) => preset.name === name);
  if (!found)
    throw new InputError(
      `no preset is named ${quote(name)}; there are ${presets.map((preset) => preset.name).join(', ')}`,
    );
  return found;
}
