/** The gripper of a policy head: the last dimension of the actions as a binary label, by its logit (RoboVLMs, base_policy.py). */
import { InputError } from '../../../engine/files/errors.ts';
import type { Tensor } from '../../../engine/index.ts';
import { binaryCrossEntropyWithLogits } from '../../../kernels/index.ts';
import type { ModelConfiguration } from '../configuration.ts';
import { type Inputs, inputNamed, type TrainingBatch } from '../inputs.ts';
import { chunkInputs, columnsOf, countElements, masksOf, meanChunkLoss } from './chunk.ts';
import type { LossResult, Objective, Pass } from './objective.ts';

/** The least probability that the baseline gives to either label. */
const LEAST = 1e-3;

const labelOf = (action: number): number => (action > 0 ? 1 : 0);

/**
 * The loss of the gripper is an objective of its own beside the regression, which has the head of both: each is a mean over its own real
 * elements, because a robot of a mixture may lack a gripper.
 */
export class Gripper implements Objective {
  readonly name: string;
  readonly meaning = 'mean cross-entropy of the gripper, labelled 1 where its normalised action is above 0';
  readonly layers = [];
  readonly reads: readonly string[];
  readonly blocks: readonly string[];
  readonly baseline;
  private readonly columns: readonly [width: number, first: number, count: number];

  constructor(
    { name, reads, blocks }: Pick<Objective, 'name' | 'blocks'> & { readonly reads: readonly string[] },
    private readonly configuration: ModelConfiguration,
    readonly weight: number,
    private readonly logits: (pass: Pass) => Tensor,
  ) {
    const { actionDimension } = configuration;
    this.name = `${name} gripper`;
    this.reads = reads;
    this.blocks = blocks;
    this.columns = [actionDimension, actionDimension - 1, 1];
    // If m is the mean of actions that are 1 or -1, the probability of 1 is (1 + m) / 2.
    const baselineLoss = (action: number, mean: number) => {
      const probability = Math.min(Math.max((1 + mean) / 2, LEAST), 1 - LEAST);
      return -Math.log(labelOf(action) === 1 ? probability : 1 - probability);
    };
    this.baseline = meanChunkLoss(baselineLoss, ...this.columns);
  }

  inputs(batch: TrainingBatch): Inputs {
    const { actions, ...masks } = columnsOf(batch, ...this.columns);
    if (!actions) throw new InputError(`the ${this.name} loss needs actions`);
    const shape = [batch.batch, this.configuration.horizon, 1];
    return chunkInputs(this.name, { ...masks, actions: actions.map(labelOf) }, shape);
  }

  /** The loss is a mean over real elements. */
  count(inputs: Inputs): number {
    return countElements(this.name, inputs);
  }

  loss(pass: Pass): LossResult {
    const prediction = this.logits(pass);
    const labels = inputNamed(pass.inputs, `${this.name}/actions`);
    return { loss: binaryCrossEntropyWithLogits(prediction, labels, masksOf(this.name, pass.inputs)), prediction };
  }
}
