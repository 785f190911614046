import { type Tensor, tensor } from '../../engine/index.ts';
import { flowInterpolate, linearCrossEntropyRows, meanSquaredError, scale } from '../../kernels/index.ts';
import type { PerExpert } from './mixture.ts';
import { type Model, type Observation, weighedSum } from './model.ts';

/** A batch with what the model is to learn from it. */
export interface TrainingBatch extends Observation {
  /** [batch, rows of the backbone]: the id that follows each row, and 1 where that is to be learned. */
  readonly lossTarget: ArrayLike<number> | null;
  readonly lossMask: ArrayLike<number> | null;
  /** [batch, horizon, actionDimension], normalised; for the flow loss. */
  readonly actions: Float32Array | null;
  /** Standard normal, of the shape of actions. */
  readonly noise: Float32Array | null;
  /** [batch], 1 = noise. Taken as exact numbers. */
  readonly time: ArrayLike<number> | null;
  /** [batch, horizon], 0 for the padded tail of a chunk, and for samples without actions. */
  readonly actionValid: ArrayLike<number> | null;
  /** [actionDimension], 0 for padded dimensions; null where all are real. */
  readonly realDimensions: ArrayLike<number> | null;
}

export interface TrainingPass {
  /** Next-token loss of the backbone, averaged by example; null for systems without it. */
  readonly tokenLoss: Tensor | null;
  /** Flow-matching loss of the expert, over real steps and dimensions; null for systems without it. */
  readonly flowLoss: Tensor | null;
  /** tokenLoss + alpha flowLoss */
  readonly loss: Tensor;
  readonly hidden: PerExpert<Tensor>;
  readonly residuals: readonly PerExpert<Tensor>[];
  readonly condition: Tensor | null;
  readonly noisy: Tensor | null;
  readonly target: Tensor | null;
  readonly velocity: Tensor | null;
  /** Of the backbone's rows [batch, rows]: lossMask * negative log-likelihood, log-sum-exp of the logits, and the likeliest id. */
  readonly rows: { rowLoss: Tensor; logSumExp: Tensor; prediction: Tensor } | null;
}

/** One pass over the whole sequence, all losses of the system; runs inside a step. */
export function trainingPass(model: Model, batch: TrainingBatch): TrainingPass {
  const { configuration } = model;
  const { losses, blocks } = configuration;
  const names = blocks.map((block) => block.name);
  const path = losses.flow ? flowPath(model, batch) : null;
  const expert = path ? model.embedActions(path.noisy, batch.time!, batch.state) : null;
  const condition = expert?.condition ?? null;
  const lossBlocks = blocks
    .filter(({ input }) => (losses.token && input === 'ids') || (losses.flow && input === 'actions'))
    .map((block) => block.name);
  const { hidden, residuals } = model.run(batch, names, [model.embed(batch, names), expert?.input ?? null], {
    condition,
    lossBlocks,
  });
  const velocity = hidden[1] ? model.velocity(hidden[1]) : null;
  const rows = losses.token ? tokenLosses(model, hidden[0]!, batch) : null;
  const flowLoss = velocity && path ? meanSquaredError(velocity, path.target, flowMasks(model, batch)) : null;
  const weighed = flowLoss && losses.alpha !== 1 ? scale(flowLoss, losses.alpha) : flowLoss;
  return {
    tokenLoss: rows?.loss ?? null,
    flowLoss,
    loss: weighedSum(rows?.loss ?? null, weighed),
    hidden,
    residuals,
    condition,
    noisy: path?.noisy ?? null,
    target: path?.target ?? null,
    velocity,
    rows,
  };
}

function flowMasks({ device, configuration }: Model, { actionValid, realDimensions, batch }: TrainingBatch) {
  const { horizon, actionDimension } = configuration;
  const mask = (numbers: ArrayLike<number>, shape: number[]) =>
    tensor(device, Uint32Array.from(numbers), shape, { dtype: 'u32' });
  return {
    valid: actionValid ? mask(actionValid, [batch, horizon]) : undefined,
    dimensions: realDimensions ? mask(realDimensions, [actionDimension]) : undefined,
  };
}

function flowPath(
  { device, configuration }: Model,
  { batch, actions, noise, time }: TrainingBatch,
): { noisy: Tensor; target: Tensor } {
  if (!actions || !noise || !time) throw new Error('the flow loss needs actions, noise and time');
  const shape = [batch, configuration.horizon, configuration.actionDimension];
  return flowInterpolate(
    tensor(device, actions, shape),
    tensor(device, noise, shape),
    tensor(device, Float32Array.from(time), [batch]),
  );
}

function tokenLosses(model: Model, hidden: Tensor, { lossTarget, lossMask }: TrainingBatch) {
  if (!lossTarget || !lossMask) throw new Error('the token loss needs lossTarget and lossMask');
  const shape = hidden.shape.slice(0, 2);
  const ids = (numbers: ArrayLike<number>) => tensor(model.device, Uint32Array.from(numbers), shape, { dtype: 'u32' });
  return linearCrossEntropyRows(hidden, model.embeddingTable, ids(lossTarget), ids(lossMask), {
    reduction: 'perExample',
  });
}
