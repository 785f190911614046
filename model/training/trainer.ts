import { backward, type Device, InputError, type OnPipeline, withoutTape } from '../../engine/index.ts';
import { AdamW, GradientNorms } from '../../kernels/index.ts';
import { type Inputs, type LossShares, tensorsOf, trainingInputs } from '../architecture/inputs.ts';
import { type TrainingPass, trainingPass } from '../architecture/losses.ts';
import type { Model } from '../architecture/model.ts';
import { actionExamples, type Example, type Sample } from '../data/index.ts';
import { type Baselines, baselineSums } from './baselines.ts';
import { type BatchMaker, lossRowsOf, type MadeBatch } from './batches.ts';
import type { ExampleSampler } from './co-training.ts';
import type { RunHistory } from './history.ts';
import type { RunSettings } from './run-settings.ts';
import { learningRateAt } from './schedule.ts';
import { type LossTensors, lossesOf, TrainingStep } from './training-step.ts';

/** Losses of one training step or measurement; a loss that the system does not have is undefined. */
export interface Losses {
  readonly tokenLoss?: number;
  readonly flowLoss?: number;
  /** Token loss on held-out vision-language examples; tokenLoss is then measured on robot data alone. */
  readonly answerLoss?: number;
}

/** Trains a model. A training step depends on the weights, the optimizer state, the seed and the step's number alone. */
export class Trainer implements Disposable {
  readonly optimizer: AdamW;
  private readonly device: Device;
  private readonly trainingStep: TrainingStep;
  private prepared: { step: number; part: number; batch: Promise<MadeBatch> } | null = null;

  constructor(
    readonly model: Model,
    private readonly maker: BatchMaker,
    private readonly sampler: ExampleSampler,
    private readonly settings: RunSettings,
    onPipeline?: OnPipeline,
  ) {
    this.device = model.device;
    const { preset, moments, seed } = settings;
    const { weightDecay, maximumNorm } = preset;
    this.optimizer = new AdamW(model.parameters, { weightDecay, maximumNorm, moments, seed });
    this.trainingStep = new TrainingStep(model, this.optimizer, settings, onPipeline);
  }

  /** Captures the training step with the batch of step `step`, and compiles its kernels. */
  async prepareStep(step: number): Promise<void> {
    await this.trainingStep.prepare(await this.inputs(step, 0));
  }

  /**
   * Encodes and submits training step `step` (from 0), and resolves to a promise of its losses, so that the next step
   * can be encoded while the adapter computes this one.
   */
  async step(step: number): Promise<{ losses: Promise<Losses> }> {
    const { accumulate, preset, steps } = this.settings;
    const batches: Inputs[] = [];
    for (let part = 0; part < accumulate; part++) batches.push(await this.inputs(step, part));
    const reading: Promise<Losses>[] = [];
    const rate = learningRateAt(step, { peak: preset.learningRate, warmUpSteps: preset.warmUpSteps, steps });
    const shares: LossShares[] = [];
    await this.trainingStep.run(batches, rate, (losses, share) => {
      reading.push(readLosses(losses, `training step ${step + 1}`));
      shares.push(share);
    });
    this.prepare(step + 1, 0);
    return { losses: Promise.all(reading).then((losses) => wholeLosses(losses, shares)) };
  }

  /** Mean losses of model and baselines over held-out samples, with the same noise. Throws the reason of an aborted `signal`. */
  async measure(
    samples: readonly Sample[],
    baselines: Baselines,
    signal?: AbortSignal,
  ): Promise<Losses & { baselines: RunHistory['baselines'] }> {
    const { batch: size } = this.settings;
    const sums = { token: 0, flow: 0, unigram: 0, constantVelocity: 0, elements: 0 };
    for await (const { batch, tokenLoss = 0, flowLoss = 0 } of this.measured(actionExamples(samples), signal)) {
      const reference = baselineSums(baselines, batch);
      sums.token += tokenLoss * size;
      sums.flow += flowLoss * reference.elements;
      sums.unigram += reference.unigram;
      sums.constantVelocity += reference.constantVelocity;
      sums.elements += reference.elements;
    }
    const counted = Math.ceil(samples.length / size) * size;
    const { losses } = this.model.configuration;
    return {
      ...(losses.token && { tokenLoss: sums.token / counted }),
      ...(losses.flow && { flowLoss: sums.flow / sums.elements }),
      baselines: {
        ...(losses.token && { unigram: sums.unigram / counted }),
        ...(losses.flow && { constantVelocity: sums.constantVelocity / sums.elements }),
      },
    };
  }

  /** Mean token loss over vision-language examples. Throws the reason of an aborted `signal`. */
  async measureAnswers(examples: readonly Example[], signal?: AbortSignal): Promise<number> {
    let [sum, batches] = [0, 0];
    for await (const { tokenLoss = 0 } of this.measured(examples, signal))
      [sum, batches] = [sum + tokenLoss, batches + 1];
    return sum / batches;
  }

  /** L2 norms of the gradient of each loss for each group of parameters, on the batch of training step `step`. */
  async gradientNorms(step: number): Promise<RunHistory['gradients']> {
    const { model, device } = this;
    using norms = new GradientNorms(model.parameters);
    const batch = await this.batch(step, 0);
    const result: RunHistory['gradients'] = [];
    for (const loss of ['token', 'flow'] as const) {
      if (!model.configuration.losses[loss]) continue;
      device.step(() => {
        model.parameters.zeroGradients();
        const pass = this.pass(batch);
        backward(loss === 'token' ? pass.tokenLoss! : pass.flowLoss!);
        norms.measure();
      });
      const { groups } = await norms.read();
      for (const [group, norm] of Object.entries(groups)) result.push({ step, loss, group, norm });
    }
    return result;
  }

  dispose(): void {
    this.trainingStep.dispose();
    this.optimizer.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  private async *measured(
    examples: readonly Example[],
    signal?: AbortSignal,
  ): AsyncGenerator<Losses & { batch: MadeBatch }> {
    const { batch: size } = this.settings;
    for (let start = 0; start < examples.length; start += size) {
      signal?.throwIfAborted();
      // The last batch is filled up with the first examples, which then count twice, so that every batch has the
      // compiled shape.
      const own = Array.from({ length: size }, (_, i) => examples[(start + i) % examples.length]);
      const batch = await this.maker.make(own, MEASURING_STEP + start);
      const kept = withoutTape(this.device, () => this.device.step(() => lossesOf(this.pass(batch))));
      const losses = await readLosses(kept, 'held-out measurement');
      for (const loss of Object.values(kept)) loss.dispose();
      yield { ...losses, batch };
    }
  }

  private pass(batch: MadeBatch): TrainingPass {
    const { model, device } = this;
    const { configuration } = model;
    const inputs = tensorsOf(device, trainingInputs(configuration, batch));
    return trainingPass(model, inputs, { lossRows: lossRowsOf(configuration) });
  }

  private async inputs(step: number, part: number): Promise<Inputs> {
    return trainingInputs(this.model.configuration, await this.batch(step, part));
  }

  private batch(step: number, part: number): Promise<MadeBatch> {
    this.prepare(step, part);
    return this.prepared!.batch;
  }

  /** Starts to make a part of a step's batch, so that images are decoded while the adapter computes. */
  private prepare(step: number, part: number): void {
    if (this.prepared?.step === step && this.prepared.part === part) return;
    const { batch: size, accumulate } = this.settings;
    const first = part * size;
    const examples = this.sampler.batch(step, size * accumulate).slice(first, first + size);
    const batch = this.maker.make(examples, step, { use: 'training', first });
    batch.catch(() => {}); // the rejection reaches whoever awaits the batch
    this.prepared = { step, part, batch };
  }
}

/** The losses of a whole batch from those of its parts. */
function wholeLosses(losses: readonly Losses[], shares: readonly LossShares[]): Losses {
  const names = Object.keys(losses[0]) as (keyof LossShares)[];
  return Object.fromEntries(
    names.map((name) => [name, losses.reduce((sum, own, part) => sum + shares[part][name] * own[name]!, 0)]),
  );
}

/** Above any training step's number, so that held-out noise and times differ from those of training. */
const MEASURING_STEP = 2 ** 31;

async function readLosses(tensors: LossTensors, what: string): Promise<Losses> {
  const reading = Object.entries(tensors).map(async ([name, tensor]) => {
    const [value] = await tensor.read();
    if (!Number.isFinite(value) || value >= 1e29)
      throw new InputError(`${what}: ${name} is ${value}: training has diverged; use a lower learning rate`);
    return [name, value] as const;
  });
  return Object.fromEntries(await Promise.all(reading));
}
