/** The record of a run: its history of losses and measurements, and its checkpoints. */
import type { ObjectiveDescription, Reference } from '../architecture/objectives/index.ts';
import { type Checkpoint, type CheckpointSettings, saveCheckpoint } from './checkpoint.ts';
import { answersDescription } from './co-training.ts';
import { emptyHistory, type Losses, type RunHistory } from './history.ts';
import type { RunListener } from './prepare-run.ts';
import type { RunSettings } from './run-settings.ts';
import type { Maker, Trainer } from './trainer.ts';

/** The result of `work`; null if it threw because `signal` was aborted. */
export async function unlessAborted<T>(signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T | null> {
  try {
    return await work();
  } catch (error) {
    if (signal?.aborted && error === signal.reason) return null;
    throw error;
  }
}

/** What the steps of a run need to know of it. */
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

export class RunRecord<Example> {
  readonly history: RunHistory;
  private readonly secondsBefore: number;
  private trainingStart = 0;
  private savedStep: number | null = null;

  constructor(
    private readonly run: RecordedRun<Example>,
    private readonly settings: CheckpointSettings,
    private readonly trainer: Trainer<Example>,
    private readonly maker: Maker<Example>,
    private readonly path: string,
    private readonly signal?: AbortSignal,
  ) {
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

  private async measureIfDue(step: number): Promise<void> {
    const { settings, heldOut } = this.run;
    const due = step < settings.steps && step % settings.preset.evaluateEvery === 0;
    if (due && !this.history.heldOut.some((row) => row.step === step)) await this.measure(step, heldOut);
  }

  /** Measures held-out losses and gradient norms. Returns false if it was interrupted: then it is discarded, and a resumed run repeats it. */
  async measure(step: number, examples: readonly Example[]): Promise<boolean> {
    const { history, trainer, signal } = this;
    const { coTraining, baselines, objectives, listener } = this.run;
    const questions = coTraining?.heldOut ?? [];
    const measured = await unlessAborted(signal, async () => {
      const { losses, baselines: reference } = await trainer.measure(examples, baselines, signal);
      const answers = questions.length > 0 && {
        [answersDescription.name]: await trainer.measureAnswers(questions, signal),
      };
      return { losses: { ...losses, ...answers }, reference };
    });
    if (!measured) return false;
    const { losses, reference } = measured;
    const others = <T extends { step: number }>(rows: T[]) => rows.filter((row) => row.step !== step);
    history.heldOut = [...others(history.heldOut), { step, losses }];
    history.gradients = [...others(history.gradients), ...(await trainer.gradientNorms(step))];
    history.baselines = reference;
    listener.heldOut(step, losses, reference, objectives);
    return true;
  }

  async save(step: number): Promise<void> {
    if (step === this.savedStep) return;
    const { trainer, history, path } = this;
    const { listener } = this.run;
    await saveCheckpoint(path, trainer.model, trainer.optimizer, this.settings, { step, history });
    this.savedStep = step;
    listener.saved(step, path);
    const { examples = 0, truncated = 0 } = this.maker.counts ?? {};
    if (truncated > 0)
      listener.note(
        `${truncated} of ${examples} examples had targets longer than the model's block for them: they were truncated`,
      );
  }

  /** Runs the remaining training steps, each encoded while the adapter computes the one before. Returns the steps done. */
  async trainSteps(): Promise<number> {
    const { trainer, signal } = this;
    const { settings, objectives, resume, listener } = this.run;
    const { steps, preset } = settings;
    let step = resume?.progress.step ?? 0;
    let pending: Promise<void> = Promise.resolve();
    while (step < steps && !signal?.aborted) {
      const { losses } = await trainer.step(step);
      await pending;
      step += 1;
      const done = step;
      pending = losses.then((values) => {
        this.add(done, values);
        listener.step(done, steps, values, objectives);
      });
      pending.catch(() => {}); // awaited before the next step is counted
      const saving = step < steps && step % preset.saveEvery === 0;
      if (saving || step % preset.evaluateEvery === 0) await pending;
      await this.measureIfDue(step);
      if (saving) await this.save(step);
    }
    await pending;
    return step;
  }
}
