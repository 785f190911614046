/** The gripper of a policy head: the last dimension of the actions as a choice between two (RoboVLMs, base_policy.py). */
import { InputError } from '../../../engine/files/errors.ts';
import type { Tensor } from '../../../engine/index.ts';
import { binaryCrossEntropyWithLogits } from '../../../kernels/index.ts';
import type { ModelConfiguration } from '../configuration.ts';
import { inputNamed } from '../inputs.ts';
import { chunkInputs, columnsOf, countElements, masksOf, meanChunkLoss } from './chunk.ts';
import type { Objective, Pass } from './objective.ts';

/** The least probability that the baseline gives to either choice. */
const LEAST = 1e-3;

const labelOf = (action: number): number => (action > 0 ? 1 : 0);

/**
 * The loss of the gripper is an objective of its own, beside the regression that has its head: both are means over real elements, and
 * a robot may lack a gripper.
 */
export function gripperOf(
  { name: arm, reads, blocks }: Pick<Objective, 'name' | 'reads' | 'blocks'>,
  { actionDimension, horizon }: ModelConfiguration,
  weight: number,
  logits: (pass: Pass) => Tensor,
): Objective {
  const name = `${arm} gripper`;
  const columns = [actionDimension, actionDimension - 1, 1] as const;
  // The mean of numbers from -1 to 1 tells how probable each of them is.
  const baselineLoss = (action: number, mean: number) => {
    const open = Math.min(Math.max((1 + mean) / 2, LEAST), 1 - LEAST);
    return -Math.log(labelOf(action) === 1 ? open : 1 - open);
  };
  return {
    ...{ name, weight, reads, blocks, layers: [] },
    meaning: 'mean cross-entropy of the gripper, whose label is whether its normalised action is above 0',
    baseline: meanChunkLoss(baselineLoss, ...columns),
    inputs(batch) {
      const { actions, ...masks } = columnsOf(batch, ...columns);
      if (!actions) throw new InputError(`the ${name} loss needs actions`);
      return chunkInputs(name, { ...masks, actions: actions.map(labelOf) }, [batch.batch, horizon, 1]);
    },
    /** The loss is a mean over real elements. */
    count: (inputs) => countElements(name, inputs),
    loss(pass) {
      const prediction = logits(pass);
      const labels = inputNamed(pass.inputs, `${name}/actions`);
      return { loss: binaryCrossEntropyWithLogits(prediction, labels, masksOf(name, pass.inputs)), prediction };
    },
  };
}
