/** The record of a run: its history of losses and measurements, and its checkpoints. */
import { InputError, reasonOf } from '../../engine/files/errors.ts';
import { DeviceLostError } from '../../engine/index.ts';
import type { Model } from '../architecture/model.ts';
import type { ObjectiveDescription, Reference } from '../architecture/objectives/index.ts';
import type { Checkpoint, CheckpointSettings } from './checkpoint.ts';
import { answersDescription } from './co-training.ts';
import { type ActingRow, emptyHistory, type Losses, type RunHistory } from './history.ts';
import type { RunMark } from './lost-device.ts';
import { finiteLosses } from './measuring.ts';
import type { MemoryGiven } from './memory-plan.ts';
import type { RunListener } from './prepare-run.ts';
import { AGAINST_DIVERGENCE, codeOf, RunSaves } from './run-saves.ts';
import type { RunSettings } from './run-settings.ts';
import { type ExampleSampler, type Maker, Trainer } from './trainer.ts';

/** So many skipped steps, of so many in a row, end a run; or all steps of a shorter one. */
const [MOST_SKIPS, SKIPS_WITHIN] = [10, 100];

/** The result of `work`; null if it threw because `signal` was aborted. */
export async function unlessAborted<T>(signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T | null> {
  try {
    return await work();
  } catch (error) {
    if (signal?.aborted && error === signal.reason) return null;
    throw error;
  }
}

/** The facts of a run that its steps need. */
export interface RecordedRun<Example> {
  readonly settings: RunSettings;
  readonly resume?: Checkpoint;
  readonly objectives: readonly ObjectiveDescription[];
  /** Examples of the measurements during training. */
  readonly heldOut: readonly Example[];
  /** null for a run without baselines. */
  readonly baselines: Reference | null;
  /** The questions of co-training. */
  readonly coTraining?: { readonly heldOut: readonly Example[] };
  readonly listener: RunListener;
}

export interface RecordOptions {
  /** Path of the checkpoint. */
  readonly checkpointPath: string;
  /** Ends the run, with a checkpoint, after the current training step or held-out batch. */
  readonly signal?: AbortSignal;
  /** The memory that there is for the run; unknown by default. */
  readonly memory?: MemoryGiven;
  /** Called with the history after each measurement and each checkpoint. */
  readonly onHistory?: (history: RunHistory) => Promise<void>;
}

/** The scores of a policy between training steps. */
type ActingMeasurement = Omit<ActingRow, 'step'>;

/**
 * Trains the model, measures it and saves its checkpoints. `last` are the examples of the last measurement, and `act` has the policy act
 * for the measurements in between.
 */
export async function carryOut<Example>(
  run: RecordedRun<Example>,
  settings: CheckpointSettings,
  {
    model,
    maker,
    sampler,
    mark,
  }: { model: Model; maker: Maker<Example>; sampler: ExampleSampler<Example>; mark: RunMark },
  last: readonly Example[],
  options: RecordOptions,
  act?: () => Promise<ActingMeasurement>,
) {
  const { resume, listener } = run;
  using trainer = new Trainer(model, maker, sampler, run.settings, ({ label }, done, total) =>
    listener.compiled(label, done, total),
  );
  await resume?.loadOptimizer(trainer.optimizer);
  await resume?.close();
  const { average } = trainer.optimizer;
  if (average)
    listener.note(
      `the weights' moving average, decay ${run.settings.ema}, takes ${(average.bytes / 2 ** 20).toFixed(1)} MiB on the adapter; it is measured, acts, and has the parameters' names in the checkpoint`,
    );
  const record = new RunRecord(run, settings, trainer, maker, mark, options, act);
  const times = [performance.now()];
  await record.begin();
  times.push(performance.now());
  const step = await record.trainSteps();
  times.push(performance.now());
  const measured = await record.conclude(step, last);
  times.push(performance.now());
  const [compile, train, evaluate] = times.slice(1).map((time, i) => (time - times[i]) / 1000);
  return {
    ...{ step, resumedAt: mark.resumedAt, history: record.history },
    seconds: { compile, train: train + mark.secondsLost, evaluate },
    /** Whether the last measurements were taken. */
    measured,
  };
}

class RunRecord<Example> {
  readonly history: RunHistory;
  private readonly signal?: AbortSignal;
  private readonly secondsBefore: number;
  private trainingStart = 0;
  private readonly saves: RunSaves;

  constructor(
    private readonly run: RecordedRun<Example>,
    settings: CheckpointSettings,
    private readonly trainer: Trainer<Example>,
    private readonly maker: Maker<Example>,
    private readonly mark: RunMark,
    private readonly options: RecordOptions,
    private readonly act?: () => Promise<ActingMeasurement>,
  ) {
    this.signal = options.signal;
    this.saves = new RunSaves(options.checkpointPath, trainer, settings, run.resume, (line) => run.listener.note(line));
    this.history = run.resume?.progress.history ?? emptyHistory();
    this.secondsBefore = this.history.training.at(-1)?.seconds ?? 0;
  }

  /** Has the kernels compiled and takes the first measurement, if there are steps to do. */
  async begin(): Promise<void> {
    const step = this.run.resume?.progress.step ?? 0;
    if (step < this.run.settings.steps && !this.signal?.aborted) await this.trainer.prepareStep(step);
    await this.measureIfDue(step);
    this.trainingStart = performance.now();
  }

  /** Adds the losses of training step `step`, counted from 1. */
  private add(step: number, losses: Losses): void {
    const seconds = this.secondsBefore + (performance.now() - this.trainingStart) / 1000;
    this.history.training.push({ step, losses, seconds });
  }

  /** Counts a training step that changed nothing, says why, and ends the run where they are too many. */
  private async skip(step: number, reason: string): Promise<void> {
    const { settings, listener } = this.run;
    const skipped = [...(this.history.skipped ?? []), step];
    this.history.skipped = skipped;
    const found = await this.trainer.diagnose(step - 1).catch((error) => {
      if (error instanceof DeviceLostError) throw error;
      return `unknown, because its batch could not be run once more: ${reasonOf(error)}`;
    });
    const first = found ? `first not finite: ${found}` : 'its batch, run once more, has finite numbers';
    listener.note(`training step ${step} was skipped, and changed nothing: ${reason}; ${first}`);
    const { length } = skipped.filter((own) => own > step - SKIPS_WITHIN);
    if (length >= Math.min(MOST_SKIPS, settings.steps))
      throw new InputError(
        `training has diverged: ${length} of the last ${Math.min(step, SKIPS_WITHIN)} steps had a loss or a gradient that was not finite; look at the data and weights that the notes above name, or ${AGAINST_DIVERGENCE}; the last checkpoint is as it was`,
      );
  }

  private async measureIfDue(step: number): Promise<void> {
    const { settings, heldOut } = this.run;
    const { preset, actEvery } = settings;
    const isDue = (every: number, rows: readonly { step: number }[]) =>
      step < settings.steps && step % every === 0 && !rows.some((row) => row.step === step);
    if (isDue(preset.evaluateEvery, this.history.heldOut)) await this.measure(step, heldOut);
    if (step > 0 && actEvery !== null && isDue(actEvery, this.history.acting ?? [])) await this.measureActing(step);
  }

  /** Has the policy act. Returns false if it was interrupted: then a resumed run repeats it. */
  private async measureActing(step: number): Promise<boolean> {
    const { act, history, trainer, signal } = this;
    if (!act) return true;
    const measured = await unlessAborted(signal, () => trainer.optimizer.averaged(act));
    // What waits for the next chunk would lie beside what measuring takes.
    trainer.model.device.memory.trim();
    if (!measured) return false;
    const numbers = { ...measured.openLoop, ...measured.closedLoop };
    const notFinite = Object.entries(numbers).filter(([, own]) => !Number.isFinite(own));
    if (notFinite.length > 0) {
      const named = notFinite.map(([name, own]) => `${name} is ${own}`).join(', ');
      this.run.listener.note(`acting after step ${step} is left out: ${named}`);
      return true;
    }
    const row = { step, ...measured };
    history.acting = [...(history.acting ?? []).filter((own) => own.step !== step), row];
    this.run.listener.acted(row);
    await this.tell();
    return true;
  }

  /** Measures held-out losses and gradient norms. Returns false if it was interrupted: then it is discarded, and a resumed run repeats it. */
  private async measure(step: number, examples: readonly Example[]): Promise<boolean> {
    const { history, trainer, signal } = this;
    const { coTraining, baselines, objectives, listener } = this.run;
    const questions = coTraining?.heldOut ?? [];
    const measure = async () => {
      const { losses, baselines: reference } = await trainer.measure(examples, baselines, signal);
      const answers = questions.length > 0 && {
        [answersDescription.name]: await trainer.measureAnswers(questions, signal),
      };
      return { losses: { ...losses, ...answers }, reference };
    };
    const measured = await unlessAborted(signal, () => trainer.optimizer.averaged(measure));
    if (!measured) return false;
    const { reference } = measured;
    const { finite: losses, others: notFinite } = finiteLosses(measured.losses);
    const others = <T extends { step: number }>(rows: T[]) => rows.filter((row) => row.step !== step);
    history.heldOut = [...others(history.heldOut), { step, losses }];
    const norms = await trainer.gradientNorms(step);
    history.gradients = [...others(history.gradients), ...norms.filter(({ norm }) => Number.isFinite(norm))];
    history.baselines = reference;
    for (const { loss, group, norm } of norms)
      if (!Number.isFinite(norm)) notFinite.push(`the gradient norm of the ${loss} loss on ${group} is ${norm}`);
    if (notFinite.length > 0) listener.note(`measured after step ${step}, and left out: ${notFinite.join(', ')}`);
    if (Object.keys(losses).length > 0) listener.heldOut(step, losses, reference, objectives);
    await this.tell();
    return true;
  }

  /**
   * Takes the last measurements, if all steps are done, and saves the last checkpoint. Returns false if steps or measurements are left. From
   * then on the parameters hold their averages, if the run keeps them.
   */
  async conclude(step: number, examples: readonly Example[]): Promise<boolean> {
    const trained = step >= this.run.settings.steps;
    const measured = trained && (await this.measure(step, examples)) && (await this.measureActing(step));
    await this.save(step, true);
    this.trainer.optimizer.exchange();
    return measured;
  }

  private async save(step: number, isLast = false): Promise<void> {
    const { history, saves, maker, options, mark } = this;
    const { listener } = this.run;
    if (!(await saves.save(step, history, isLast))) return;
    mark.saved = true;
    await this.tell();
    listener.saved(step, options.checkpointPath);
    const { examples = 0, truncated = 0 } = maker.counts ?? {};
    if (truncated > 0)
      listener.note(
        `${truncated} of ${examples} examples had targets longer than the model's block for them: they were truncated`,
      );
  }

  /** Reports the history. What shows it beside the run is not worth the run. */
  private async tell(): Promise<void> {
    const { options, history, run } = this;
    await options.onHistory?.(history).catch((error) => {
      if (codeOf(error) === undefined) throw error;
      run.listener.note(`warning: ${error.message}`);
    });
  }

  /** Runs the remaining training steps, each encoded while the adapter computes the one before. Returns the steps done. */
  async trainSteps(): Promise<number> {
    const { trainer, signal } = this;
    const { settings, objectives, resume, listener } = this.run;
    const { steps, preset, actEvery } = settings;
    let step = resume?.progress.step ?? 0;
    let pending: Promise<void> = Promise.resolve();
    while (step < steps && !signal?.aborted) {
      const { outcome } = await trainer.step(step);
      outcome.catch(() => {}); // awaited as `pending`, unless that of the step before fails
      await pending;
      step += 1;
      this.mark.step = step;
      const done = step;
      pending = outcome.then(({ losses, skipped }) => {
        if (skipped !== null) return this.skip(done, skipped);
        this.add(done, losses);
        listener.step(done, steps, losses, objectives);
      });
      pending.catch(() => {}); // awaited before the next step is counted
      const saving = step < steps && step % preset.saveEvery === 0;
      if (saving || [preset.evaluateEvery, actEvery].some((every) => every !== null && step % every === 0))
        await pending;
      await this.measureIfDue(step);
      if (saving) await this.save(step);
    }
    await pending;
    return step;
  }
}
