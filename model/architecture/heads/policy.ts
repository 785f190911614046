/**
 * The policy head of RoboVLMs (Li et al. 2024, arXiv 2412.14058; base_policy.py): a trunk, an MLP from its features to the chunk, with tanh
 * at its end, and an MLP to the logits of the gripper. The hidden layers of an MLP have the trunk's width, a half and a quarter of it.
 */
import type { ParameterSet, Tensor } from '../../../engine/index.ts';
import { reshape, tanh } from '../../../kernels/index.ts';
import { type Layer, parametersOfLayers } from '../layers.ts';
import type { TrunkSettings } from './settings.ts';
import { mlp, trunkOf } from './trunk.ts';

/** Actions [control steps, horizon, columns], and the logits [control steps, horizon, 1] of a gripper. */
export interface Prediction {
  readonly actions: Tensor;
  readonly gripper: Tensor | null;
}

/** A head that makes chunks of the rows of control steps [examples * window, rows, width]. */
export interface PredictionHead extends Layer {
  run(values: ParameterSet, x: Tensor): Prediction;
}

/** `inputs`: numbers that the rows of a control step have together. `dimension`: that of the actions, with the gripper. */
interface PolicySizes extends Readonly<Record<'inputs' | 'window' | 'horizon' | 'dimension', number>> {
  /** The last dimension is a gripper, which has an MLP of its own. */
  readonly gripper: boolean;
}

/** It reads the rows of a control step side by side; its actions are in [-1, 1]. */
export function policyHead(
  group: string,
  settings: TrunkSettings,
  { inputs, window, horizon, dimension, gripper }: PolicySizes,
): PredictionHead {
  const { width = inputs } = settings;
  const trunk = trunkOf(group, settings, inputs, window);
  const mlpOf = (name: string, columns: number) =>
    mlp(group, `policy_head.${name}.mlp`, [trunk.outputs, width, width / 2, width / 4, horizon * columns]);
  const arm = mlpOf('actions', gripper ? dimension - 1 : dimension);
  const ofGripper = gripper ? mlpOf('gripper', 1) : null;
  return {
    parameters: parametersOfLayers([trunk, arm, ...(ofGripper ? [ofGripper] : [])]),
    run(values, x) {
      const [steps] = x.shape;
      const features = trunk.run(values, reshape(x, [steps / window, window, inputs]));
      const chunks = (made: Tensor) => reshape(made, [steps, horizon, made.size / (steps * horizon)]);
      const logits = ofGripper?.run(values, features);
      return { actions: chunks(tanh(arm.run(values, features))), gripper: logits ? chunks(logits) : null };
    },
  };
}
