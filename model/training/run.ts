/** A whole training run: data, model, steps, checkpoints, measurements, report. What it prints and draws is up to the listener. */
import { type Device, InputError } from '../../engine/index.ts';
import { chosenVariants, type MomentStorage, useVariants } from '../../kernels/index.ts';
import { Model } from '../architecture/model.ts';
import type { Dataset } from '../data/dataset.ts';
import {
  actionExamples,
  chooseHorizon,
  type Example,
  evaluationSamples,
  type Sample,
  type Split,
} from '../data/index.ts';
import { Encoding } from '../policy/encoding.ts';
import { Policy } from '../policy/policy.ts';
import type { System } from '../systems/index.ts';
import { type Baselines, fitBaselines } from './baselines.ts';
import { BatchMaker, type BatchOptions, type MadeBatch } from './batches.ts';
import { type Checkpoint, type CheckpointSettings, saveCheckpoint } from './checkpoint.ts';
import { type Answered, answersOf, type CoTraining, checkCoTraining, exampleSampler } from './co-training.ts';
import {
  checkData,
  checkGiven,
  configurationFor,
  type FittingOptions,
  fitEncoding,
  fittingSamples,
  prepareData,
} from './fitting.ts';
import { emptyHistory, type RunHistory } from './history.ts';
import { largestBatch } from './largest-batch.ts';
import { type OpenLoopError, openLoopError } from './open-loop.ts';
import type { Preset } from './presets.ts';
import { type Losses, Trainer } from './trainer.ts';
import type { TrainingStepOptions } from './training-step.ts';

export interface RunOptions extends TrainingStepOptions, BatchOptions {
  readonly device: Device;
  readonly dataset: Dataset;
  readonly system: System;
  readonly preset: Preset;
  readonly seed: number;
  readonly steps: number;
  readonly batch: number;
  readonly coTraining?: CoTraining;
  /** In place of the tokenizer and the statistics that are fitted to the training part. */
  readonly fast?: FittingOptions['fast'];
  readonly statistics?: FittingOptions['statistics'];
  /** Storage of AdamW's moments; default f32. */
  readonly moments?: MomentStorage;
  /** Control steps of a chunk; one second by default. */
  readonly horizon?: number;
  /** Where checkpoints go. */
  readonly checkpointPath: string;
  /** Goes on from here; closed when it is read. */
  readonly resume?: Checkpoint;
  /** Ends the run after the step or the measuring batch under way, with a checkpoint. */
  readonly signal?: AbortSignal;
  readonly listener: RunListener;
}

export interface RunListener {
  note(line: string): void;
  step(step: number, steps: number, losses: Losses): void;
  compiled(kernel: string, done: number, total: number): void;
  heldOut(step: number, losses: Losses, baselines: RunHistory['baselines']): void;
  saved(step: number, path: string): void;
  openLoop(done: number, total: number): void;
}

/** What a finished run leaves. */
export interface RunResult {
  readonly finished: boolean;
  /** Steps done. */
  readonly step: number;
  readonly policy: Policy;
  readonly settings: CheckpointSettings;
  readonly history: RunHistory;
  readonly split: Split;
  /** What the data lack, in words. */
  readonly missing: readonly string[];
  readonly seconds: { readonly compile: number; readonly train: number; readonly evaluate: number };
  /** null where the run was interrupted. */
  readonly openLoop: { readonly error: OpenLoopError; readonly batches: readonly MadeBatch[] } | null;
  /** What it says to the held-out questions of co-training; null without, or where the run was interrupted. */
  readonly answers: readonly Answered[] | null;
}

/** What `work` resolves to; null where it threw because `signal` was aborted. */
export async function unlessAborted<T>(signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T | null> {
  try {
    return await work();
  } catch (error) {
    if (signal?.aborted && error === signal.reason) return null;
    throw error;
  }
}

/** A run goes on with the examples that it was begun with. @throws InputError with what differs */
function checkSameExamples(
  begun: CheckpointSettings,
  { name, weights }: Dataset,
  wordings: number,
  coTraining: CoTraining | undefined,
): void {
  const differs = (what: string, now: unknown, before: unknown, advice = '') => {
    if (JSON.stringify(now) === JSON.stringify(before)) return;
    const [own, other] = [now, before].map((value) => (value === undefined ? 'none' : JSON.stringify(value)));
    throw new InputError(`"${name}": ${what}: ${own}; the run was begun with ${other}${advice}`);
  };
  differs('co-training share', coTraining?.share, begun.coTraining);
  differs('weights of its robots', weights, begun.weights);
  differs('wordings of instructions', wordings, begun.wordings ?? wordings, ': give the same paraphrases');
}

/** @throws InputError where options or data do not fit, and where the losses are no numbers any more */
export async function runTraining(options: RunOptions): Promise<RunResult> {
  const { device, dataset, preset, seed, steps, batch, listener, resume, signal, coTraining } = options;
  if (!Number.isInteger(batch) || batch < 1)
    throw new InputError(`batch ${batch}: it is a whole number of examples, at least 1`);
  if (coTraining) checkCoTraining(coTraining, options.system, dataset);
  const wordings = new Set(dataset.episodes.flatMap(({ instructions }) => instructions)).size;
  checkGiven(options);
  if (resume) checkSameExamples(resume.settings, dataset, wordings, coTraining);
  const { split, missing } = prepareData(dataset, seed);
  listener.note(split.description);
  for (const line of missing) listener.note(`${dataset.name}: ${line}; trained without`);
  if (resume) await checkData(options, split, resume.settings);
  const horizon = resume?.settings.configuration.horizon ?? chooseHorizon(dataset, options.horizon);
  const encodingSettings = resume?.settings.encoding ?? (await fitEncoding(options, split, horizon));
  const encoding = new Encoding(encodingSettings);
  const configuration = resume?.settings.configuration ?? (await configurationFor(options, split, encoding, horizon));
  const blocks = configuration.blocks.map(({ name, length }) => `${name} ${length}`).join(', ');
  listener.note(`chunks of ${horizon} control steps (${(horizon / dataset.rate).toFixed(2)} s); tokens: ${blocks}`);
  const most = largestBatch(configuration, device.limits.maxStorageBufferBindingSize);
  if (batch > most)
    throw new InputError(`batch ${batch}: this adapter takes at most ${most} examples of this model at a time`);
  const heldOut = evaluationSamples(split.heldOut, preset.heldOutSteps);
  const baselines = await fitBaselines(fittingSamples(split.train), encoding, horizon);
  const settings: CheckpointSettings = resume?.settings ?? {
    system: options.system.name,
    preset: preset.name,
    dataset: dataset.name,
    rate: dataset.rate,
    seed,
    batch,
    wordings,
    accumulate: options.accumulate,
    recompute: options.recompute,
    moments: options.moments,
    augment: options.augment,
    coTraining: coTraining?.share,
    questions: coTraining?.source,
    weights: dataset.weights,
    configuration,
    encoding: encodingSettings,
    adapter: device.description,
    variants: chosenVariants(device),
  };
  if (resume) takeVariants(device, settings, listener);
  const model = resume ? await resume.loadModel(device) : new Model(device, configuration);
  if (!resume) model.initialise(seed);
  const maker = new BatchMaker(encoding, configuration, seed);
  const sampler = exampleSampler(split, seed, { coTraining, weights: dataset.weights });
  using trainer = new Trainer(
    model,
    maker,
    sampler,
    { ...preset, ...trainerOptions(settings), batch, steps, seed },
    ({ label }, done, total) => listener.compiled(label, done, total),
  );
  await resume?.loadOptimizer(trainer.optimizer);
  await resume?.close();
  const history = resume ? resume.progress.history : emptyHistory();
  // A measurement that an interrupt ends early leaves nothing: it is taken when the run goes on.
  const measure = async (step: number, samples: readonly Sample[]) => {
    const answers = (coTraining?.heldOut ?? []).map((question): Example => ({ kind: 'vision-language', question }));
    const measured = await unlessAborted(signal, async () => ({
      ...(await trainer.measure(samples, baselines, signal)),
      ...(answers.length > 0 && { answerLoss: await trainer.measureAnswers(answers, signal) }),
    }));
    if (!measured) return;
    const { baselines: reference, ...losses } = measured;
    const others = <T extends { step: number }>(rows: T[]) => rows.filter((row) => row.step !== step);
    history.heldOut = [...others(history.heldOut), { step, ...losses }];
    history.gradients = [...others(history.gradients), ...(await trainer.gradientNorms(step))];
    history.baselines = reference;
    listener.heldOut(step, losses, reference);
  };
  const measureWhereDue = async (step: number) => {
    const due = step < steps && step % preset.evaluateEvery === 0;
    if (due && !history.heldOut.some((row) => row.step === step)) await measure(step, heldOut);
  };
  let savedStep: number | null = null;
  const save = async (step: number) => {
    if (step === savedStep) return;
    await saveCheckpoint(options.checkpointPath, model, trainer.optimizer, settings, { step, steps, history });
    savedStep = step;
    listener.saved(step, options.checkpointPath);
    const { examples, cut } = maker.made;
    if (cut > 0)
      listener.note(
        `${cut} of ${examples} examples had more action tokens than the model has room for: the rest was cut`,
      );
  };

  const compileStart = performance.now();
  let step = resume?.progress.step ?? 0;
  if (step < steps && !signal?.aborted) await trainer.prepareStep(step);
  await measureWhereDue(step);
  const trainStart = performance.now();
  const before = history.training.at(-1)?.seconds ?? 0;
  let pending: Promise<void> = Promise.resolve();
  while (step < steps && !signal?.aborted) {
    const { losses } = await trainer.step(step);
    await pending;
    step += 1;
    const done = step;
    pending = losses.then((values) => {
      history.training.push({ step: done, ...values, seconds: before + (performance.now() - trainStart) / 1000 });
      listener.step(done, steps, values);
    });
    pending.catch(() => {}); // awaited before the next step is counted
    const saving = step < steps && step % preset.saveEvery === 0;
    if (saving || step % preset.evaluateEvery === 0) await pending;
    await measureWhereDue(step);
    if (saving) await save(step);
  }
  await pending;
  const trainEnd = performance.now();
  const trained = step >= steps;
  const policy = new Policy(model, encoding);
  if (trained) await measure(step, evaluationSamples(split.heldOut, preset.finalHeldOutSteps));
  await save(step);
  const openLoop = trained
    ? await unlessAborted(signal, () => openLoopOf(policy, maker, heldOut, batch, baselines, options))
    : null;
  const answers =
    openLoop && coTraining && (await unlessAborted(signal, () => answersOf(policy, coTraining.heldOut, batch, signal)));
  const seconds = (from: number, to: number) => (to - from) / 1000;
  return {
    finished: openLoop !== null && answers !== null,
    step,
    policy,
    settings,
    history,
    split,
    missing,
    seconds: {
      compile: seconds(compileStart, trainStart),
      train: seconds(trainStart, trainEnd),
      evaluate: seconds(trainEnd, performance.now()),
    },
    openLoop,
    answers: answers ?? null,
  };
}

function trainerOptions({ accumulate, recompute, moments, augment }: CheckpointSettings) {
  return { accumulate, recompute, moments, augment };
}

/** The kernels that the run was begun with, where the device has them: others round differently. */
function takeVariants(device: Device, { variants, adapter }: CheckpointSettings, listener: RunListener): void {
  try {
    useVariants(device, variants ?? { attention: [], matmul: [] });
  } catch {
    listener.note(
      `the kernels that this run chose on ${adapter} do not run here: it goes on with others, which round differently`,
    );
  }
}

async function openLoopOf(
  policy: Policy,
  maker: BatchMaker,
  samples: readonly Sample[],
  size: number,
  baselines: Baselines,
  { listener, signal }: RunOptions,
) {
  const batches: MadeBatch[] = [];
  for (let start = 0; start < samples.length; start += size)
    batches.push(await maker.make(actionExamples(samples.slice(start, start + size)), start));
  const onProgress = (done: number, total: number) => listener.openLoop(done, total);
  const error = await openLoopError(policy, batches, baselines.meanChunk, onProgress, signal);
  return { error, batches };
}
