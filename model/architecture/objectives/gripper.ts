/** The gripper of a policy head: the last dimension of the actions as a binary label, by its logit (RoboVLMs, base_policy.py). */
import type { Tensor } from '../../../engine/index.ts';
import { binaryCrossEntropyWithLogits } from '../../../kernels/index.ts';
import type { ModelConfiguration } from '../configuration.ts';
import { inputNamed } from '../inputs.ts';
import { chunkInputs, countElements, masksOf, meanChunkLoss } from './chunk.ts';
import type { Objective, Pass } from './objective.ts';

/** The least probability that the baseline gives to either label. */
const LEAST = 1e-3;

const labelOf = (action: number): number => (action > 0 ? 1 : 0);

/**
 * The loss of the gripper is an objective of its own beside the regression, which has the head of both: each is a mean over its own real
 * elements, because a robot of a mixture may lack a gripper.
 */
export function gripperOf(
  { name: arm, reads, blocks }: Pick<Objective, 'name' | 'reads' | 'blocks'>,
  { actionDimension, horizon }: ModelConfiguration,
  weight: number,
  logits: (pass: Pass) => Tensor,
): Objective {
  const name = `${arm} gripper`;
  const columns = [actionDimension, actionDimension - 1, 1] as const;
  // If m is the mean of actions that are 1 or -1, the probability of 1 is (1 + m) / 2.
  const baselineLoss = (action: number, mean: number) => {
    const probability = Math.min(Math.max((1 + mean) / 2, LEAST), 1 - LEAST);
    return -Math.log(labelOf(action) === 1 ? probability : 1 - probability);
  };
  return {
    ...{ name, weight, reads, blocks, layers: [] },
    meaning: 'cross-entropy of the gripper, 1 for normalised actions above 0',
    baseline: meanChunkLoss(baselineLoss, columns),
    inputs: (batch) => chunkInputs(name, batch, horizon, columns, labelOf),
    /** The loss is a mean over real elements. */
    count: (inputs) => countElements(name, inputs),
    loss(pass) {
      const prediction = logits(pass);
      const labels = inputNamed(pass.inputs, `${name}/actions`);
      return { loss: binaryCrossEntropyWithLogits(prediction, labels, masksOf(name, pass.inputs)), prediction };
    },
  };
}
