/** Losses of a model with the gradients of its parameters, read. */
import { backward, type Tensor } from '../../engine/index.ts';
import { type Inputs, type TrainingBatch, tensorsOf } from '../../model/architecture/inputs.ts';
import type { Model } from '../../model/architecture/model.ts';
import { lossShares, trainingInputs, trainingPass, withShares } from '../../model/architecture/training-pass.ts';

interface Read {
  readonly loss: number;
  /** By parameter; zeros for one that no loss reaches. */
  readonly gradients: Readonly<Record<string, Float32Array>>;
}

/** The total loss of parts that run one after the other. */
export function gradientsOfParts(model: Model, parts: readonly Inputs[]): Promise<Read> {
  const shares = lossShares(model, parts);
  return gradientsOf(model, () =>
    parts.map((part, i) => trainingPass(model, tensorsOf(model.device, withShares(part, shares[i]))).loss),
  );
}

/** The loss of one objective. */
export function gradientsOfObjective(model: Model, batch: TrainingBatch, name: string): Promise<Read> {
  const inputs = trainingInputs(model.architecture, batch);
  return gradientsOf(model, () => [trainingPass(model, tensorsOf(model.device, inputs)).objectives[name].loss]);
}

async function gradientsOf(model: Model, run: () => Tensor[]): Promise<Read> {
  const losses = model.device.step(() => {
    model.parameters.zeroGradients();
    const own = run();
    for (const loss of own) backward(loss);
    return own;
  });
  let loss = 0;
  for (const own of losses) loss += (await own.read())[0];
  const gradients: Record<string, Float32Array> = {};
  for (const { name, size, grad } of model.parameters)
    gradients[name] = grad ? ((await grad.read()) as Float32Array) : new Float32Array(size);
  return { loss, gradients };
}
