/** Numbers predicted in one pass: chunks of actions (OpenVLA-OFT: Kim et al. 2025, arXiv 2502.19645), or numbers of each row. */
import { InputError } from '../../../engine/files/errors.ts';
import { huber, l1, meanSquaredError, reshape } from '../../../kernels/index.ts';
import { type BlockSettings, type ModelConfiguration, windowOf } from '../configuration.ts';
import { type Prediction, type PredictionHead, policyHead } from '../heads/policy.ts';
import { residualHead } from '../heads/residual.ts';
import { trunkObstacle } from '../heads/trunk.ts';
import { floats, type Inputs, inputNamed, integers, type ObservationBatch, tensorsOf } from '../inputs.ts';
import { Linear } from '../layers.ts';
import { blocksNamed, rowsBefore, trainingBlocks } from '../sequence.ts';
import { type Columns, chunkInputs, countElements, masksOf, meanChunkLoss } from './chunk.ts';
import { gripperOf } from './gripper.ts';
import { countOf, type Objective, type Pass } from './objective.ts';
import { readBlocks, rowCount, rowsOfPass, rowWidth } from './rows.ts';
import { blocksRun, chunkMaker, flowNeeded } from './running.ts';
import type { RegressionSettings } from './settings.ts';

/** The errors of a regression; Huber's delta is 1. */
const errors = { l1, squared: meanSquaredError, huber } as const;
const distances = {
  l1: (difference: number) => Math.abs(difference),
  squared: (difference: number) => difference ** 2,
  huber: (difference: number) => {
    const size = Math.abs(difference);
    return size <= 1 ? 0.5 * size ** 2 : size - 0.5;
  },
} as const;
const words = { l1: 'absolute', squared: 'squared', huber: 'Huber' } as const;

/** The objective, and behind it that of the gripper if its head makes one. */
export function regression(settings: RegressionSettings, configuration: ModelConfiguration): Objective[] {
  const { name, weight, error, rows, dimension, before, gripper, rowsPerStep = 1 } = settings;
  const { actionDimension, horizon } = configuration;
  const head = headOf(settings, configuration);
  const ofActions = dimension === undefined;
  /** Dimensions of the actions that are regressed: all but the gripper. */
  const columns: Columns = [actionDimension, 0, gripper ? actionDimension - 1 : actionDimension];
  const read = readBlocks(configuration, rows, before);
  const makes = ofActions ? read.reads : [];
  const maker = chunkMaker(configuration, makes, flowNeeded(configuration, makes));
  const distance = (action: number, mean: number) => distances[error](action - mean);
  const rowsName = `${name}/rows`;

  /** The rows before those of its block, in a pass over these blocks, if it reads them. */
  const rowsRead = (observation: ObservationBatch, blocks: readonly BlockSettings[]): Inputs => {
    if (!before || 'tower' in rows) return {};
    const own = rowsBefore(configuration, observation, blocks, rows.block);
    return { [rowsName]: integers(own, [observation.batch, own.length / observation.batch]) };
  };
  const predictions = new WeakMap<Pass, Prediction>();
  /** The head runs once in a pass, for the regression and for the gripper. */
  const predicted = (pass: Pass): Prediction => {
    const made = predictions.get(pass) ?? head.run(pass.values, rowsOfPass(pass, rows, pass.inputs[rowsName]));
    predictions.set(pass, made);
    return made;
  };

  const objective: Objective = {
    ...{ name, weight, layers: [head] },
    ...read,
    ...{ ...maker, acts: ofActions ? maker.acts : undefined },
    meaning: `mean ${words[error]} error of ${ofActions ? 'normalised actions' : 'the numbers of each row'}`,
    baseline: ofActions ? meanChunkLoss(distance, columns) : undefined,
    inputs(given) {
      const { batch, rowTargets } = given;
      const read = rowsRead(given, trainingBlocks(configuration));
      if (ofActions) return { ...read, ...chunkInputs(name, given, horizon, columns) };
      const own = rowTargets?.[name];
      if (!own) throw new InputError(`the ${name} loss needs rowTargets of '${name}'`);
      const each = rowCount(configuration, rows) / rowsPerStep;
      return {
        ...read,
        [`${name}/target`]: floats(Float32Array.from(own.data), [batch, each, dimension]),
        [`${name}/valid`]: integers(own.valid, [batch, each]),
      };
    },
    /** The loss is a mean over real elements. */
    count(inputs) {
      if (ofActions) return countElements(name, inputs);
      const { data } = inputs[`${name}/valid`];
      return dimension * countOf(data, 0, data.length);
    },
    loss(pass) {
      const { inputs } = pass;
      const target = inputNamed(inputs, `${name}/${ofActions ? 'actions' : 'target'}`);
      const prediction = reshape(predicted(pass).actions, target.shape);
      const masks = ofActions ? masksOf(name, inputs) : { valid: inputNamed(inputs, `${name}/valid`) };
      return { loss: errors[error](prediction, target, masks), prediction };
    },
    /** One pass over all that the rows read. */
    async act({ device, observation, open }) {
      const prefix = blocksRun(configuration, makes).map(({ name }) => name);
      using session = open({ prefix, suffix: [] });
      const inputs = rowsRead(observation, blocksNamed(configuration, prefix));
      const prediction = await session.prefix((own, values) =>
        head.run(values, rowsOfPass({ rows: own }, rows, tensorsOf(device, inputs)[rowsName])),
      );
      const [actions, logits] = [await prediction.actions.read(), await prediction.gripper?.read()];
      prediction.actions.dispose();
      prediction.gripper?.dispose();
      return logits ? withGripper(actions, logits, columns[2]) : actions;
    },
  };
  if (!gripper) return [objective];
  const logits = (pass: Pass) => predicted(pass).gripper!;
  return [objective, gripperOf(objective, configuration, weight * gripper.weight, logits)];
}

function headOf(settings: RegressionSettings, configuration: ModelConfiguration): PredictionHead {
  const { name, rows, rowsPerStep = 1, dimension, head, gripper } = settings;
  const { actionDimension, horizon } = configuration;
  const { width, group } = rowWidth(configuration, rows);
  if (head && 'trunk' in head)
    return policyHead(group, head.trunk, {
      ...{ inputs: rowCount(configuration, rows) * width, window: windowOf(configuration) },
      ...{ horizon, dimension: actionDimension, gripper: gripper !== undefined },
    });
  const sizes = { outputs: dimension ?? actionDimension, inputs: rowsPerStep * width };
  const ofSteps = head
    ? residualHead(group, sizes, head)
    : new Linear(group, dimension === undefined ? 'action_out_proj' : `${name}_head`, sizes);
  return {
    parameters: ofSteps.parameters,
    /** hidden [samples, steps * rowsPerStep, width] -> [samples, steps, outputs] */
    run(values, hidden) {
      const [samples, count] = hidden.shape;
      const steps = rowsPerStep === 1 ? hidden : reshape(hidden, [samples, count / rowsPerStep, sizes.inputs]);
      return { actions: ofSteps.run(values, steps), gripper: null };
    },
  };
}

/** Why a regression cannot have its head; null if it can. Its block is not looked for. */
export function headObstacle(settings: RegressionSettings, configuration: ModelConfiguration): string | null {
  const { head, rows, rowsPerStep, dimension, gripper } = settings;
  if (!head || 'blocks' in head) return gripper ? 'has a gripper, whose logits only a policy head makes' : null;
  if (dimension !== undefined)
    return 'has a policy head, which predicts chunks of actions, and a dimension of its rows';
  if (rowsPerStep !== undefined) return 'has a policy head, which reads all rows of its block, and rowsPerStep';
  if (gripper && configuration.actionDimension < 2) return 'has a gripper, and the actions have no other dimension';
  const block = 'block' in rows && configuration.blocks.find(({ name }) => name === rows.block);
  return block ? trunkObstacle(head.trunk, block.length * configuration.experts[block.weights].width) : null;
}

/** Actions [steps, columns] with a last column of 1 or -1, by the sign of a logit. */
function withGripper(actions: Float32Array, logits: Float32Array, columns: number): Float32Array {
  return Float32Array.from({ length: actions.length + logits.length }, (_, i) => {
    const [step, column] = [Math.floor(i / (columns + 1)), i % (columns + 1)];
    return column < columns ? actions[step * columns + column] : logits[step] > 0 ? 1 : -1;
  });
}
