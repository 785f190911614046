/** A training run on an adapter: model, steps, checkpoints, measurements. Progress goes to the listener. */
import type { Device } from '../../engine/index.ts';
import { chosenVariants, useVariants } from '../../kernels/index.ts';
import type { Model } from '../architecture/model.ts';
import type { ObjectiveDescription } from '../architecture/objectives/index.ts';
import { evaluationSamples, type Split } from '../data/index.ts';
import { Policy } from '../policy/policy.ts';
import { BatchMaker } from './batches.ts';
import type { CheckpointSettings } from './checkpoint.ts';
import { type AnsweredQuestion, answerQuestions, exampleSampler } from './co-training.ts';
import type { ClosedLoopRates, RunHistory } from './history.ts';
import { expectBatch } from './largest-batch.ts';
import { type RunMark, unlessLost } from './lost-device.ts';
import { expectMemory } from './memory-plan.ts';
import { type OpenLoop, openLoopOf } from './open-loop.ts';
import type { PreparedRun } from './prepare-run.ts';
import { carryOut, type RecordOptions, unlessAborted } from './run-record.ts';
import { begunModel } from './start.ts';

export interface TrainOptions extends RecordOptions {
  /** Has the policy act in a world, for the measurements of acting; throws the reason of an aborted `signal`. */
  readonly closedLoop?: (policy: Policy, signal?: AbortSignal) => Promise<ClosedLoopRates>;
  /** Uses the result while it is on the device; called again, with the checkpoint's, if the device is lost meanwhile. */
  readonly onResult?: (result: RunResult) => Promise<void>;
}

export interface RunResult {
  readonly finished: boolean;
  /** Training steps done; `resumedAt` of them before this part of the run. */
  readonly step: number;
  readonly resumedAt: number;
  readonly policy: Policy;
  readonly settings: CheckpointSettings;
  readonly history: RunHistory;
  /** Descriptions of the losses in `history`. */
  readonly objectives: readonly ObjectiveDescription[];
  readonly split: Split;
  /** Notes on missing instructions, images and states. */
  readonly missing: readonly string[];
  readonly seconds: { readonly compile: number; readonly train: number; readonly evaluate: number };
  /** null if the run was interrupted. */
  readonly openLoop: OpenLoop | null;
  /** The answers to the held-out questions of co-training; null without questions, and if the run was interrupted. */
  readonly answers: readonly AnsweredQuestion[] | null;
}

/**
 * Trains; a device that is lost is opened again, and the run goes on from its last checkpoint (lost-device.ts).
 *
 * @throws InputError if the run does not fit the adapter or `options.memory`, if a loss diverges, or if the device is lost again and again
 */
export async function runTraining(device: Device, prepared: PreparedRun, options: TrainOptions): Promise<RunResult> {
  const { configuration, settings, from } = prepared;
  await expectToFit(device, prepared, options);
  const kept = checkpointSettings(device, prepared);
  const begin = () => begunModel(device, configuration, settings.seed, from);
  return unlessLost(device, prepared, options, begin, (model, own, mark) => trained(model, own, kept, options, mark));
}

async function trained(
  model: Model,
  prepared: PreparedRun,
  kept: CheckpointSettings,
  options: TrainOptions,
  mark: RunMark,
): Promise<RunResult> {
  const { settings, split, missing, encoding, configuration, coTraining, dataset, listener } = prepared;
  const { signal, closedLoop } = options;
  const maker = new BatchMaker(encoding, configuration, settings);
  const sampler = exampleSampler(split, settings, { coTraining, weights: dataset.weights });
  const policy = new Policy(model, encoding);
  const inOpenLoop = (most?: number) => {
    const onProgress = (done: number, total: number) => listener.openLoop(done, total);
    return openLoopOf(policy, maker, prepared.heldOut, settings.batch, prepared.baselines.meanChunk, {
      ...{ most, onProgress, signal },
    });
  };
  const acting = async () => {
    const { error } = await inOpenLoop(1);
    const rates = await closedLoop?.(policy, signal);
    const { oneSample, bestConstant } = error;
    return { openLoop: { oneSample, bestConstant }, ...(rates && { closedLoop: rates }) };
  };
  const run = { model, maker, sampler, mark };
  const last = evaluationSamples(split.heldOut, settings.preset.finalHeldOutSteps);
  const act = settings.actEvery === null ? undefined : acting;
  const { measured, seconds, ...done } = await carryOut(prepared, kept, run, last, options, act);
  const start = performance.now();
  const openLoop = measured ? await unlessAborted(signal, () => inOpenLoop()) : null;
  const questions = coTraining?.heldOut ?? [];
  const answers =
    openLoop && coTraining
      ? await unlessAborted(signal, () => answerQuestions(policy, questions, settings.batch, signal))
      : null;
  const evaluate = seconds.evaluate + (performance.now() - start) / 1000;
  return {
    finished: openLoop !== null && (answers !== null || !coTraining),
    ...done,
    ...{ policy, settings: kept, objectives: prepared.objectives, split, missing },
    seconds: { ...seconds, evaluate },
    ...{ openLoop, answers },
  };
}

/** @throws InputError if the batch is too large for the adapter, or if the run takes more memory than `memory` says there is */
export async function expectToFit(
  device: Device,
  { settings, configuration, listener }: Pick<PreparedRun, 'settings' | 'configuration' | 'listener'>,
  { memory }: Pick<RecordOptions, 'memory'>,
): Promise<void> {
  expectBatch(configuration, settings.batch, device);
  await expectMemory(device, configuration, settings, (line) => listener.note(line), memory);
}

/** A resumed run keeps its kernel variants if the device supports them, because other variants round differently. */
export function checkpointSettings(
  device: Device,
  prepared: Pick<PreparedRun, 'settings' | 'data' | 'configuration' | 'encoding' | 'resume' | 'listener'>,
): CheckpointSettings {
  const { settings: run, data, configuration, encoding, resume, listener } = prepared;
  if (resume) {
    const { adapter, variants } = resume.settings;
    try {
      useVariants(device, variants);
    } catch {
      listener.note(
        `the kernel variants that this run chose on ${adapter} do not run here: it goes on with others, which round differently`,
      );
    }
  }
  const begun = resume?.settings ?? { data, configuration, encoding: encoding.settings };
  return { ...begun, run, adapter: device.description, variants: chosenVariants(device) };
}
