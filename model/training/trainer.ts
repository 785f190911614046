import { backward, type Device, type OnPipeline } from '../../engine/index.ts';
import { AdamW, GradientNorms, type NormsOfGroups } from '../../kernels/index.ts';
import { type Inputs, type TrainingBatch, tensorsOf } from '../architecture/inputs.ts';
import type { Model } from '../architecture/model.ts';
import type { Reference } from '../architecture/objectives/index.ts';
import { type LossShares, trainingInputs, trainingPass } from '../architecture/training-pass.ts';
import { firstNotFinite } from './diagnosis.ts';
import type { Losses, RunHistory } from './history.ts';
import { Means, measuredBatches, readLosses, readOutcome, skipReason } from './measuring.ts';
import type { RunSettings } from './run-settings.ts';
import { learningRateAt } from './schedule.ts';
import { TrainingStep } from './training-step.ts';

export interface Making {
  /** Images are augmented only for training, and if the settings say so. */
  readonly use?: 'training' | 'measuring';
  /** The number of the first example in the whole batch; 0 by default. */
  readonly first?: number;
}

/** Makes batches of examples, which depend on the examples, the seed and the step alone. */
export interface Maker<Example> {
  /** The batch of training step `step`, or a part of it. */
  make(examples: readonly Example[], step: number, how?: Making): Promise<TrainingBatch>;
  /** Examples with target tokens that were made so far, and those among them that were truncated. */
  readonly counts?: { readonly examples: number; readonly truncated: number };
}

export interface ExampleSampler<Example> {
  /** The examples of training step `step` (from 0). */
  batch(step: number, batchSize: number): readonly Example[];
}

/** What became of a training step. */
export interface StepOutcome {
  readonly losses: Losses;
  /** Why the step changed nothing; null for one that was taken. */
  readonly skipped: string | null;
}

/** Trains a model. A training step depends on the weights, the optimizer state, the seed and the step's number alone. */
export class Trainer<Example> implements Disposable {
  readonly optimizer: AdamW;
  private readonly device: Device;
  private readonly trainingStep: TrainingStep;
  private before: Promise<unknown> = Promise.resolve();
  private prepared: { step: number; part: number; batch: Promise<TrainingBatch> } | null = null;

  constructor(
    readonly model: Model,
    private readonly maker: Maker<Example>,
    private readonly sampler: ExampleSampler<Example>,
    private readonly settings: RunSettings,
    onPipeline?: OnPipeline,
  ) {
    this.device = model.device;
    const { preset, moments, ema, seed } = settings;
    const { weightDecay, maximumNorm } = preset;
    const average = ema ?? undefined;
    const options = { weightDecay, maximumNorm, moments, seed, average };
    this.optimizer = model.device.memory.allOrNothing(() => new AdamW(model.parameters, options));
    this.trainingStep = new TrainingStep(model, this.optimizer, settings, onPipeline);
  }

  /** Captures the training step with the batch of step `step`, and compiles its kernels. */
  async prepareStep(step: number): Promise<void> {
    await this.trainingStep.prepare(await this.inputs(step, 0));
  }

  /**
   * Encodes and submits training step `step` (from 0), and resolves to a promise of its outcome, so that the next step
   * can be encoded while the adapter computes this one.
   */
  step(step: number): Promise<{ outcome: Promise<StepOutcome> }> {
    return this.alone(() => this.submitted(step));
  }

  private async submitted(step: number): Promise<{ outcome: Promise<StepOutcome> }> {
    const { accumulate, preset, steps } = this.settings;
    const batches: Inputs[] = [];
    for (let part = 0; part < accumulate; part++) batches.push(await this.inputs(step, part));
    const rate = learningRateAt(step, { peak: preset.learningRate, warmUpSteps: preset.warmUpSteps, steps });
    const { gradientNorms } = this.optimizer;
    const reading: Promise<Losses>[] = [];
    const shares: LossShares[] = [];
    let norms: Promise<NormsOfGroups> | undefined;
    await this.trainingStep.run(batches, rate, (losses, share) => {
      shares.push(share);
      if (accumulate > 1) reading.push(heard(readLosses(losses)));
      else {
        const both = readOutcome(losses, gradientNorms);
        reading.push(heard(both.then((own) => own.losses)));
        norms = heard(both.then((own) => own.norms));
      }
    });
    norms ??= heard(gradientNorms.read());
    this.prepare(step + 1, 0);
    const outcome = Promise.all([norms, ...reading]).then(([norms, ...parts]): StepOutcome => {
      const losses = wholeLosses(parts, shares);
      return { losses, skipped: norms.usable ? null : skipReason(parts, norms) };
    });
    return { outcome };
  }

  /** Runs the batch of step `step` again, on the weights as they are now: the first tensor that is not finite, in words; null if all are. */
  diagnose(step: number): Promise<string | null> {
    return this.alone(async () => {
      const { accumulate } = this.settings;
      for (let part = 0; part < accumulate; part++) {
        const batch = await this.made(step, part);
        const found = await firstNotFinite(this.model, trainingInputs(this.model.architecture, batch));
        if (found) return found;
      }
      return null;
    });
  }

  /** Runs `work` when what began before has been submitted: parts of a step add to the same gradients. */
  private alone<T>(work: () => Promise<T>): Promise<T> {
    const running = this.before.then(work);
    this.before = running.catch(() => {});
    return running;
  }

  /** Mean losses over held-out examples of the model and, with a reference, of baselines, with the same noise. Throws the reason of an aborted `signal`. */
  async measure(
    examples: readonly Example[],
    reference: Reference | null,
    signal?: AbortSignal,
  ): Promise<{ losses: Losses; baselines: Losses }> {
    const { objectives } = this.model;
    const own = new Means();
    const baselines = new Means();
    for await (const { batch, inputs, losses } of this.measured(examples, signal))
      for (const objective of objectives) {
        const { name, baseline } = objective;
        own.add(name, { loss: losses[name], count: objective.count(inputs) });
        if (baseline && reference) baselines.add(name, baseline.measure(reference, batch));
      }
    return { losses: own.all(), baselines: baselines.all() };
  }

  /** Mean loss of the predicted tokens over vision-language examples. Throws the reason of an aborted `signal`. */
  async measureAnswers(examples: readonly Example[], signal?: AbortSignal): Promise<number> {
    const { name } = this.model.objectives.find(({ decode }) => decode)!;
    let [sum, batches] = [0, 0];
    for await (const { losses } of this.measured(examples, signal)) [sum, batches] = [sum + losses[name], batches + 1];
    return sum / batches;
  }

  /**
   * L2 norms of the gradient of each loss for each group of parameters, on the batch of training step `step`. They are taken with
   * recomputation, whatever the settings have, because the training step keeps its memory meanwhile: they differ by rounding only.
   */
  async gradientNorms(step: number): Promise<RunHistory['gradients']> {
    const { model, device } = this;
    using norms = new GradientNorms(model.parameters);
    // Every pass has other sizes of buffers, and what waits for the next one would lie beside them.
    device.memory.trim();
    const inputs = await this.inputs(step, 0);
    const result: RunHistory['gradients'] = [];
    for (const { name: loss } of model.objectives) {
      device.step(() => {
        model.parameters.zeroGradients();
        const { objectives } = trainingPass(model, tensorsOf(device, inputs), { recompute: true });
        const own = objectives[loss].loss;
        // Every parameter that it reaches may be frozen: then its gradients stay zero.
        if (own.wantsGradient) backward(own);
        norms.measure();
      });
      const { groups } = await norms.read();
      device.memory.trim();
      for (const [group, norm] of Object.entries(groups)) result.push({ step, loss, group, norm });
    }
    return result;
  }

  /** Memory and dispatches of the captured training step. Throws before `prepareStep`. */
  stats(): ReturnType<TrainingStep['stats']> {
    return this.trainingStep.stats();
  }

  dispose(): void {
    this.trainingStep.dispose();
    this.optimizer.dispose();
  }
  readonly [Symbol.dispose] = this.dispose;

  private measured(examples: readonly Example[], signal?: AbortSignal) {
    const how = { size: this.settings.batch, step: MEASURING_STEP, signal };
    return measuredBatches(this.model, this.maker, examples, how);
  }

  private async inputs(step: number, part: number): Promise<Inputs> {
    return trainingInputs(this.model.architecture, await this.batch(step, part));
  }

  private batch(step: number, part: number): Promise<TrainingBatch> {
    this.prepare(step, part);
    return this.prepared!.batch;
  }

  /** Starts to make a part of a step's batch, so that images are decoded while the adapter computes. */
  private prepare(step: number, part: number): void {
    if (this.prepared?.step === step && this.prepared.part === part) return;
    const batch = this.made(step, part);
    batch.catch(() => {}); // the rejection reaches whoever awaits the batch
    this.prepared = { step, part, batch };
  }

  private made(step: number, part: number): Promise<TrainingBatch> {
    const { batch: size, accumulate } = this.settings;
    const first = part * size;
    const examples = this.sampler.batch(step, size * accumulate).slice(first, first + size);
    return this.maker.make(examples, step, { use: 'training', first });
  }
}

/** The losses of a whole batch from those of its parts. */
function wholeLosses(losses: readonly Losses[], shares: readonly LossShares[]): Losses {
  const names = Object.keys(losses[0]);
  return Object.fromEntries(
    names.map((name) => [name, losses.reduce((sum, own, part) => sum + shares[part][name] * own[name], 0)]),
  );
}

/** Above any training step's number, so that held-out noise and times differ from those of training. */
const MEASURING_STEP = 2 ** 31;

/** A rejection reaches whoever awaits the outcome of the step; where the step itself throws, it says no more. */
function heard<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {});
  return promise;
}
