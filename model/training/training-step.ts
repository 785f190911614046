/** The captured training step: gradients of the losses, clipping and AdamW. */

import {
  backward,
  type CapturedStep,
  captureStep,
  type ListedOperation,
  type OnPipeline,
  type StepStatistics,
  type Tensor,
} from '../../engine/index.ts';
import type { AdamW } from '../../kernels/index.ts';
import type { Input, Inputs, InputTensors } from '../architecture/inputs.ts';
import type { MixtureOptions } from '../architecture/mixture.ts';
import type { Model } from '../architecture/model.ts';
import { mapped } from '../architecture/records.ts';
import {
  type LossShares,
  lossShares,
  type TrainingPass,
  trainingPass,
  withShares,
} from '../architecture/training-pass.ts';
import type { RunSettings } from './run-settings.ts';

/** The losses that the system has, by the names of its objectives. */
export type LossTensors = Readonly<Record<string, Tensor>>;

/** Activation checkpointing, and the number of batches in a step. */
export type StepSettings = Partial<MixtureOptions & Pick<RunSettings, 'accumulate'>>;

/** Bytes on the device by what they hold; activations are those of the captured step. */
export type TrainingMemory = Readonly<Record<'weights' | 'gradients' | 'moments' | 'averages' | 'activations', number>>;

export class TrainingStep implements Disposable {
  private readonly accumulate: number;
  /** The whole step; with gradient accumulation, the part that runs for each batch. */
  private gradients: CapturedStep<string, LossTensors> | null = null;
  private update: CapturedStep<'schedule', Record<string, never>> | null = null;

  constructor(
    private readonly model: Model,
    private readonly optimizer: AdamW,
    private readonly settings: StepSettings = {},
    private readonly onPipeline?: OnPipeline,
  ) {
    const { accumulate = 1 } = settings;
    if (!Number.isInteger(accumulate) || accumulate < 1)
      throw new RangeError(`TrainingStep: accumulate is ${accumulate}; expected a positive integer`);
    this.accumulate = accumulate;
  }

  /**
   * One update from the `trainingInputs` of each of its batches. `onLosses` gets the losses of each batch, and must
   * read them at once, because the next batch overwrites them.
   */
  async run(
    batches: readonly Inputs[],
    learningRate: number,
    onLosses: (losses: LossTensors, shares: LossShares) => void,
  ): Promise<void> {
    const { model, optimizer, accumulate } = this;
    if (batches.length !== accumulate)
      throw new Error(`TrainingStep: ${batches.length} batches; an update takes ${accumulate}`);
    const schedule = () => scheduleOf(optimizer.nextSchedule(learningRate));
    const shares = lossShares(model, batches);
    if (accumulate === 1) {
      const inputs = { ...batches[0], schedule: schedule() };
      onLosses(await this.captured(inputs).run(inputs), shares[0]);
      return;
    }
    model.device.step(() => model.parameters.zeroGradients());
    for (const [part, batch] of batches.entries()) {
      const inputs = withShares(batch, shares[part]);
      onLosses(await this.captured(inputs).run(inputs), shares[part]);
    }
    await this.updating().run({ schedule: schedule() });
  }

  /** Captures the step and compiles its pipelines; `batch` is one of those that `run` takes. */
  async prepare(batch: Inputs): Promise<void> {
    const inputs = this.example(batch);
    await this.captured(inputs).prepare(inputs);
    const schedule = scheduleOf(new Float32Array(this.optimizer.scheduleSize));
    if (this.accumulate > 1) await this.updating().prepare({ schedule });
  }

  /** Captures the step and compiles nothing: enough for `list` and `stats`. `batch` is one of those that `run` takes. */
  capture(batch: Inputs): void {
    const inputs = this.example(batch);
    this.captured(inputs).capture(inputs);
  }

  private example(batch: Inputs): Inputs {
    const schedule = scheduleOf(new Float32Array(this.optimizer.scheduleSize));
    return this.accumulate === 1 ? { ...batch, schedule } : withShares(batch, lossShares(this.model, [batch])[0]);
  }

  /** Operations of the captured step, or of the part that runs for each batch. Throws before the first run. */
  list(): ListedOperation[] {
    return this.afterCapture('list').list();
  }

  /** Memory and dispatches of the captured step. Throws before the first run. */
  stats(): StepStatistics & { readonly memory: TrainingMemory } {
    const statistics = this.afterCapture('stats').stats();
    const { values: weights, gradients } = this.model.parameters.bytes;
    const activations = statistics.arenaBytes.reduce((sum, bytes) => sum + bytes, 0);
    return { ...statistics, memory: { weights, gradients, ...this.optimizer.bytes, activations } };
  }

  dispose(): void {
    this.gradients?.dispose();
    this.update?.dispose();
  }
  readonly [Symbol.dispose] = this.dispose;

  private afterCapture(method: string): CapturedStep<string, LossTensors> {
    if (!this.gradients) throw new Error(`${method}: the training step has not run yet`);
    return this.gradients;
  }

  private captured(inputs: Inputs): CapturedStep<string, LossTensors> {
    const whole = this.accumulate === 1;
    const work = (own: InputTensors) => (whole ? this.whole(own) : this.backward(own));
    const options = { name: whole ? 'training' : 'gradients', onPipeline: this.onPipeline };
    this.gradients ??= captureStep(this.model.device, inputs, work, options);
    return this.gradients;
  }

  private updating(): CapturedStep<'schedule', Record<string, never>> {
    const { model, optimizer, onPipeline } = this;
    const work = ({ schedule }: InputTensors) => {
      optimizer.step(schedule);
      return {};
    };
    const inputs = { schedule: { shape: [optimizer.scheduleSize] } };
    this.update ??= captureStep(model.device, inputs, work, { name: 'update', onPipeline });
    return this.update;
  }

  private whole({ schedule, ...batch }: InputTensors): LossTensors {
    this.model.parameters.zeroGradients();
    const losses = this.backward(batch);
    this.optimizer.step(schedule);
    return losses;
  }

  private backward(batch: InputTensors): LossTensors {
    const { model, settings, optimizer } = this;
    const pass = trainingPass(model, batch, settings);
    const losses = lossesOf(pass);
    optimizer.checkLosses(Object.values(losses));
    backward(pass.loss);
    return losses;
  }
}

export function lossesOf({ objectives }: TrainingPass): LossTensors {
  return mapped(objectives, ({ loss }) => loss);
}

function scheduleOf(data: Float32Array): Input {
  return { data, shape: [data.length], dtype: 'f32' };
}
