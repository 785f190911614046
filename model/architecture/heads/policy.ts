/**
 * The policy head of RoboVLMs (Li et al. 2024, arXiv 2412.14058; base_policy.py): a trunk, an MLP from its features to the chunk, with tanh
 * at its end, and an MLP to the logits of the gripper. The hidden layers of an MLP have the trunk's width, a half and a quarter of it.
 */
import type { ParameterSet, Tensor } from '../../../engine/index.ts';
import { reshape, tanh } from '../../../kernels/index.ts';
import { type Layer, parametersOfLayers } from '../layers.ts';
import type { TrunkSettings } from './settings.ts';
import { Mlp, type Trunk, trunkOf } from './trunk.ts';

/** Actions [control steps, horizon, columns], and the logits [control steps, horizon, 1] of a gripper. */
export interface Prediction {
  readonly actions: Tensor;
  readonly gripper: Tensor | null;
}

/** `inputs`: numbers that the rows of a control step have together. `dimension`: that of the actions, with the gripper. */
interface PolicySizes extends Readonly<Record<'inputs' | 'window' | 'horizon' | 'dimension', number>> {
  /** The last dimension is a gripper, which has an MLP of its own. */
  readonly gripper: boolean;
}

export class PolicyHead implements Layer {
  readonly parameters;
  private readonly trunk: Trunk;
  private readonly arm: Mlp;
  private readonly gripper: Mlp | null;

  constructor(
    group: string,
    trunk: TrunkSettings,
    private readonly sizes: PolicySizes,
  ) {
    const { inputs, window, horizon, dimension, gripper } = sizes;
    const { width = inputs } = trunk;
    this.trunk = trunkOf(group, trunk, inputs, window);
    const mlp = (name: string, columns: number) =>
      new Mlp(group, `policy_head.${name}.mlp`, [this.trunk.outputs, width, width / 2, width / 4, horizon * columns]);
    this.arm = mlp('actions', gripper ? dimension - 1 : dimension);
    this.gripper = gripper ? mlp('gripper', 1) : null;
    this.parameters = parametersOfLayers([this.trunk, this.arm, ...(this.gripper ? [this.gripper] : [])]);
  }

  /** Chunks from the rows of control steps [examples * window, rows, width], which are read side by side; actions are in [-1, 1]. */
  run(values: ParameterSet, x: Tensor): Prediction {
    const { inputs, window, horizon } = this.sizes;
    const [steps] = x.shape;
    const features = this.trunk.run(values, reshape(x, [steps / window, window, inputs]));
    const chunks = (made: Tensor) => reshape(made, [steps, horizon, made.size / (steps * horizon)]);
    const gripper = this.gripper?.run(values, features);
    return { actions: chunks(tanh(this.arm.run(values, features))), gripper: gripper ? chunks(gripper) : null };
  }
}
