import * as v from 'valibot';
import { InputError, quote } from '../../engine/files/errors.ts';
import { count, nonNegative32, positive32 } from '../../engine/files/json-schema.ts';
import { MOST_BINS } from '../../tokenizers/index.ts';
import { initialValueKinds } from '../architecture/configuration.ts';

const trainingSchema = v.object({
  steps: count(),
  batch: count(1),
  learningRate: positive32,
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
  vision: v.object({
    ...sizesSchema.entries,
    depth: count(1),
    heads: count(1),
    patch: count(1),
    image: count(1, 4096),
  }),
  /** Rows of the token embedding at least, whatever ids the data's tokenizers have; by default one for each id. */
  vocabulary: v.optional(count(1)),
  initialValues: v.optional(v.picklist(initialValueKinds)),
  /** Ids of a FAST tokenizer fitted to the data, at most. */
  fastVocabulary: count(1),
  stateBins: count(1, MOST_BINS),
  /** Demonstrations of the built-in world. */
  demonstrations: count(1, 1e6),
  ...trainingSchema.entries,
  /** The settings that differ in `insula pretrain`. */
  pretraining: trainingSchema,
  weightDecay: nonNegative32,
  maximumNorm: positive32,
  /** Held-out control steps of a measurement during training, and of the last one. */
  heldOutSteps: count(1),
  finalHeldOutSteps: count(1),
});
export type Preset = Readonly<v.InferOutput<typeof presetSchema>>;

const tiny: Preset = {
  name: 'tiny',
  description: 'the smallest that learns, in minutes on two processor cores',
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
  description: 'for tests and first tries, a step in milliseconds',
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
  description: 'wider and a layer deeper, with more demonstrations',
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

const ofLaptop = {
  steps: 20_000,
  batch: 16,
  learningRate: 5e-4,
  warmUpSteps: 500,
  evaluateEvery: 1000,
  saveEvery: 1000,
};

/** All widths are multiples of 64, and all head dimensions are 64. */
const laptop: Preset = {
  ...tiny,
  name: 'laptop',
  description: 'for the GPU of a laptop, with 30 M parameters',
  backbone: { width: 384, hidden: 1280 },
  expert: { width: 256, hidden: 768 },
  depth: 8,
  heads: 6,
  kvHeads: 2,
  headDimension: 64,
  vision: { width: 256, depth: 6, heads: 4, hidden: 1024, patch: 8, image: 96 },
  initialValues: 'uniform',
  fastVocabulary: 512,
  demonstrations: 1000,
  ...ofLaptop,
  pretraining: ofLaptop,
  heldOutSteps: 128,
  finalHeldOutSteps: 256,
};

/** Numbers of the recipes of openpi (optimizer.py) and SmolVLA, which begin from loaded weights. */
const large = {
  initialValues: 'uniform',
  fastVocabulary: 1024,
  steps: 20_000,
  warmUpSteps: 1000,
  weightDecay: 1e-10,
  evaluateEvery: 1000,
  saveEvery: 1000,
  heldOutSteps: 16,
  finalHeldOutSteps: 64,
} as const satisfies Partial<Preset>;

/**
 * SmolVLM2-500M and the expert of SmolVLA (lerobot, smolvlm_with_expert.py), whose hidden width is 8 / 3 of its width rounded up to 256.
 * Its 64 rows of an image, a pixel shuffle of the patches, are the 1,024 patches here.
 */
const smol: Preset = {
  ...tiny,
  ...large,
  name: 'smol',
  description: 'the sizes of SmolVLA, with 445 M parameters',
  backbone: { width: 960, hidden: 2560 },
  expert: { width: 720, hidden: 2048 },
  depth: 16,
  heads: 15,
  kvHeads: 5,
  headDimension: 64,
  vision: { width: 768, depth: 12, heads: 12, hidden: 3072, patch: 16, image: 512 },
  vocabulary: 49_280,
  batch: 4,
  learningRate: 1e-4,
  pretraining: { ...ofLaptop, batch: 4, learningRate: 1e-4 },
};

/** Gemma 2B, the expert of 300 M and SigLIP So400m/14 at 224 pixels (openpi, gemma.py and siglip.py). */
const paligemma: Preset = {
  ...tiny,
  ...large,
  name: 'paligemma',
  description: 'the sizes of pi0 and pi0.5, with 3.3 B parameters',
  backbone: { width: 2048, hidden: 16_384 },
  expert: { width: 1024, hidden: 4096 },
  depth: 18,
  heads: 8,
  kvHeads: 1,
  headDimension: 256,
  vision: { width: 1152, depth: 27, heads: 16, hidden: 4304, patch: 14, image: 224 },
  vocabulary: 257_152,
  batch: 1,
  learningRate: 2.5e-5,
  pretraining: { ...ofLaptop, batch: 1, learningRate: 2.5e-5 },
};

export const presets: readonly Preset[] = [nano, tiny, small, laptop, smol, paligemma];

/** @throws InputError that lists the presets if none has this name */
export function presetNamed(name: string): Preset {
  const found = presets.find((preset) => preset.name === name);
  if (!found)
    throw new InputError(
      `no preset is named ${quote(name)}; there are ${presets.map((preset) => preset.name).join(', ')}`,
    );
  return found;
}
