/** What an inspection looks at: a model, and the batch of examples that it is given. */
import type { Inputs, TrainingBatch } from '../architecture/inputs.ts';
import type { Model } from '../architecture/model.ts';
import { trainingInputs } from '../architecture/training-pass.ts';
import { evaluationSamples, type Sample, type Split } from '../data/index.ts';
import type { Policy } from '../policy/policy.ts';
import { BatchMaker, type MadeBatch } from '../training/batches.ts';
import { randomBatch } from '../training/random-batch.ts';
import type { RunSettings } from '../training/run-settings.ts';

export interface Subject {
  readonly model: Model;
  readonly batch: TrainingBatch;
  /** The `trainingInputs` of the batch. */
  readonly inputs: Inputs;
  /** Where its examples come from; null for random numbers. */
  readonly real: RealExamples | null;
}

/** Control steps of held-out episodes, as a policy with the subject's model sees them. */
export interface RealExamples {
  readonly policy: Policy;
  readonly settings: RunSettings;
  readonly split: Split;
  /** The control steps of the batch, evenly spaced over the held-out episodes. */
  readonly samples: readonly Sample[];
  readonly batch: MadeBatch;
}

/** A model and `examples` random ones, which depend on the seed alone. */
export function randomSubject(model: Model, examples: number, seed: number): Subject {
  const batch = randomBatch(model.configuration, examples, seed);
  return { model, batch, inputs: trainingInputs(model.architecture, batch), real: null };
}

/** A policy and so many control steps of held-out episodes, or all if there are fewer; the seed chooses noise and times. */
export async function realSubject(
  policy: Policy,
  settings: RunSettings,
  split: Split,
  examples: number,
  seed: number,
): Promise<Subject> {
  const { model, encoding } = policy;
  const samples = evaluationSamples(split.heldOut, examples);
  const batch = await new BatchMaker(encoding, model.configuration, { seed, augment: false }).make(samples, 0);
  const inputs = trainingInputs(model.architecture, batch);
  return { model, batch, inputs, real: { policy, settings, split, samples, batch } };
}
