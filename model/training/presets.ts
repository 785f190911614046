import { InputError, quote } from '../../engine/files/errors.ts';
import type { TransformerSizes } from '../architecture/configuration.ts';

/** Sizes of a model and how long it trains. */
export interface Preset {
  readonly name: string;
  readonly description: string;
  readonly backbone: TransformerSizes;
  readonly expert: TransformerSizes;
  readonly depth: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDimension: number;
  readonly vision: {
    readonly width: number;
    readonly depth: number;
    readonly heads: number;
    readonly hidden: number;
    readonly patch: number;
    readonly image: number;
  };
  /** Ids of a FAST tokenizer fitted to the data, at most. */
  readonly fastVocabulary: number;
  readonly stateBins: number;
  /** Demonstrations of the built-in world. */
  readonly demonstrations: number;
  readonly steps: number;
  readonly batch: number;
  readonly learningRate: number;
  readonly warmUpSteps: number;
  readonly weightDecay: number;
  readonly maximumNorm: number;
  /** Training steps between held-out measurements, and between checkpoints. */
  readonly evaluateEvery: number;
  readonly saveEvery: number;
  /** Held-out control steps of a measurement on the way, and of the last. */
  readonly heldOutSteps: number;
  readonly finalHeldOutSteps: number;
}

const tiny: Preset = {
  name: 'tiny',
  description: 'a few minutes on two processor cores: one camera of 16 tokens, for a first look',
  backbone: { width: 96, hidden: 256 },
  expert: { width: 64, hidden: 192 },
  depth: 3,
  heads: 4,
  kvHeads: 1,
  headDimension: 32,
  vision: { width: 64, depth: 2, heads: 2, hidden: 128, patch: 16, image: 64 },
  fastVocabulary: 256,
  stateBins: 256,
  demonstrations: 200,
  steps: 400,
  batch: 16,
  learningRate: 2e-3,
  warmUpSteps: 20,
  weightDecay: 1e-4,
  maximumNorm: 1,
  evaluateEvery: 100,
  saveEvery: 100,
  heldOutSteps: 64,
  finalHeldOutSteps: 128,
};

const small: Preset = {
  ...tiny,
  name: 'small',
  description: 'about a quarter of an hour on two processor cores: more demonstrations, wider, longer',
  backbone: { width: 128, hidden: 320 },
  expert: { width: 96, hidden: 256 },
  vision: { width: 96, depth: 3, heads: 3, hidden: 256, patch: 16, image: 64 },
  demonstrations: 600,
  steps: 4000,
  warmUpSteps: 50,
  evaluateEvery: 250,
  saveEvery: 250,
  heldOutSteps: 128,
  finalHeldOutSteps: 256,
};

export const presets: readonly Preset[] = [tiny, small];

/** @throws InputError naming the presets there are */
export function presetNamed(name: string): Preset {
  const found = presets.find((preset) => preset.name === name);
  if (!found)
    throw new InputError(
      `no preset is named ${quote(name)}; there are ${presets.map((preset) => preset.name).join(', ')}`,
    );
  return found;
}
