import type { Tensor } from '../../engine/index.ts';
import {
  flowInterpolate,
  linearCrossEntropy,
  linearCrossEntropyRows,
  meanSquaredError,
  multiply,
  scale,
} from '../../kernels/index.ts';
import { type InputTensors, inputNamed, type LossShares } from './inputs.ts';
import type { MixtureOptions, PerExpert } from './mixture.ts';
import { type Model, weightedSum } from './model.ts';

export interface TrainingPass {
  /** Next-token loss of the backbone, averaged over each example first; null for systems without it. */
  readonly tokenLoss: Tensor | null;
  /** Flow-matching loss of the action expert over real control steps and dimensions; null for systems without it. */
  readonly flowLoss: Tensor | null;
  /** tokenLoss + alpha flowLoss; of a part of a batch each times its share in the loss of the whole. */
  readonly loss: Tensor;
  readonly hidden: PerExpert<Tensor>;
  readonly residuals: readonly PerExpert<Tensor>[];
  readonly condition: Tensor | null;
  readonly noisy: Tensor | null;
  readonly target: Tensor | null;
  readonly velocity: Tensor | null;
  /** By row of the backbone [batch, rows]: masked negative log-likelihood, log-sum-exp of the logits, most probable id. */
  readonly rows: { rowLoss: Tensor; logSumExp: Tensor; prediction: Tensor } | null;
}

interface PassOptions {
  readonly mixture?: MixtureOptions;
  /**
   * The most rows of a sample that have a token loss: logits of other rows are not computed, and `rows` is null. By
   * default all logits are computed.
   */
  readonly lossRows?: number;
}

/** One forward pass over the whole sequence with all losses of the system, from `trainingInputs`; must run inside a step. */
export function trainingPass(
  model: Model,
  inputs: InputTensors,
  { mixture, lossRows }: PassOptions = {},
): TrainingPass {
  const { configuration } = model;
  const { losses, blocks } = configuration;
  const names = blocks.map((block) => block.name);
  const input = (name: string) => inputNamed(inputs, name);
  const path = losses.flow ? flowInterpolate(input('actions'), input('noise'), input('time')) : null;
  const expert = path ? model.embedActions(path.noisy, inputs) : null;
  const condition = expert?.condition ?? null;
  const lossBlocks = blocks
    .filter(({ input }) => (losses.token && input === 'ids') || (losses.flow && input === 'actions'))
    .map((block) => block.name);
  const { hidden, residuals } = model.run(inputs, names, [model.embed(inputs, names), expert?.input ?? null], {
    condition,
    lossBlocks,
    mixture,
  });
  const velocity = hidden[1] ? model.velocity(hidden[1]) : null;
  const { tokenLoss, rows } = losses.token
    ? tokenLosses(model, hidden[0]!, input('lossTarget'), input('lossMask'), lossRows)
    : { tokenLoss: null, rows: null };
  const masks = { valid: inputs.actionValid, dimensions: inputs.realDimensions };
  const flowLoss = velocity && path ? meanSquaredError(velocity, path.target, masks) : null;
  // A part of a batch brings its shares in the losses of the whole.
  const share = (name: keyof LossShares, loss: Tensor | null) =>
    loss && inputs[`share/${name}`] ? multiply(loss, inputs[`share/${name}`]) : loss;
  const weighted = flowLoss && losses.alpha !== 1 ? scale(flowLoss, losses.alpha) : flowLoss;
  return {
    tokenLoss,
    flowLoss,
    loss: weightedSum(share('tokenLoss', tokenLoss), share('flowLoss', weighted)),
    hidden,
    residuals,
    condition,
    noisy: path?.noisy ?? null,
    target: path?.target ?? null,
    velocity,
    rows,
  };
}

function tokenLosses(model: Model, hidden: Tensor, targets: Tensor, mask: Tensor, lossRows?: number) {
  const table = model.embeddingTable;
  if (lossRows === undefined) {
    const rows = linearCrossEntropyRows(hidden, table, targets, mask);
    return { tokenLoss: rows.loss, rows };
  }
  const capacity = hidden.shape[0] * lossRows;
  return { tokenLoss: linearCrossEntropy(hidden, table, targets, mask, { capacity }), rows: null };
}
