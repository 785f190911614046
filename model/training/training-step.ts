/** The unit that training repeats: gradients of the losses, clipping and AdamW, captured as one list. */
import { backward, type CapturedStep, captureStep, type Tensor } from '../../engine/index.ts';
import type { AdamW } from '../../kernels/index.ts';
import type { Input, Inputs, InputTensors } from '../architecture/inputs.ts';
import { type TrainingPass, trainingPass } from '../architecture/losses.ts';
import type { Model } from '../architecture/model.ts';

/** By name, of the losses that the system has: `tokenLoss`, `flowLoss`. */
export type LossTensors = Readonly<Record<string, Tensor>>;

export class TrainingStep implements Disposable {
  private captured: CapturedStep<string, LossTensors> | null = null;

  constructor(
    private readonly model: Model,
    private readonly optimizer: AdamW,
  ) {}

  /** One update from what `trainingInputs` made of a batch. The losses are overwritten by the next run. */
  run(batch: Inputs, learningRate: number): Promise<LossTensors> {
    const { model, optimizer } = this;
    const schedule: Input = { data: optimizer.nextSchedule(learningRate), shape: [3], dtype: 'f32' };
    const inputs = { ...batch, schedule };
    const work = ({ schedule, ...own }: InputTensors) => {
      model.parameters.zeroGradients();
      const pass = trainingPass(model, own);
      backward(pass.loss);
      optimizer.step(schedule);
      return lossesOf(pass);
    };
    this.captured ??= captureStep(model.device, inputs, work, { name: 'training' });
    return this.captured.run(Object.fromEntries(Object.entries(inputs).map(([name, { data }]) => [name, data])));
  }

  /** What a run does and takes. Throws before the first. */
  describe() {
    if (!this.captured) throw new Error('describe: the training step has not run yet');
    return { list: this.captured.list(), statistics: this.captured.stats() };
  }

  dispose(): void {
    this.captured?.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

export function lossesOf({ tokenLoss, flowLoss }: TrainingPass): LossTensors {
  return { ...(tokenLoss && { tokenLoss }), ...(flowLoss && { flowLoss }) };
}
