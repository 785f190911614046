/** Numbers predicted in one pass: chunks of actions (OpenVLA-OFT: Kim et al. 2025, arXiv 2502.19645), or numbers of each row. */
import { InputError } from '../../../engine/files/errors.ts';
import type { ParameterSet, Tensor } from '../../../engine/index.ts';
import { huber, l1, meanSquaredError, reshape } from '../../../kernels/index.ts';
import { type BlockSettings, type ModelConfiguration, windowOf } from '../configuration.ts';
import { PolicyHead, type Prediction } from '../heads/policy.ts';
import { ResidualHead } from '../heads/residual.ts';
import { trunkObstacle } from '../heads/trunk.ts';
import {
  floats,
  type Inputs,
  inputNamed,
  integers,
  type ObservationBatch,
  type TrainingBatch,
  tensorsOf,
} from '../inputs.ts';
import { Linear } from '../layers.ts';
import { blocksNamed, rowsBefore, trainingBlocks } from '../sequence.ts';
import { chunkInputs, columnsOf, countElements, masksOf, meanChunkLoss } from './chunk.ts';
import { Gripper } from './gripper.ts';
import { type Acting, countOf, type LossResult, type Objective, type Pass } from './objective.ts';
import { readBlocks, rowCount, rowsOfPass, rowWidth } from './rows.ts';
import { blocksRun, flowNeeded, notDecodable, targetsBefore } from './running.ts';
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

export class Regression implements Objective {
  readonly name: string;
  readonly weight: number;
  readonly meaning: string;
  readonly layers: readonly [Linear | ResidualHead | PolicyHead];
  /** The loss of the gripper, from the same head; null if the head makes none. */
  readonly gripper: Gripper | null;
  readonly reads: readonly string[];
  readonly blocks: readonly string[];
  readonly acts: 'chunk' | undefined;
  readonly obstacle: string | null;
  readonly makes: readonly string[];
  readonly baseline;
  /** Dimensions of the actions that are regressed: all but the gripper. */
  private readonly columns: number;
  private readonly predictions = new WeakMap<Pass, Prediction>();

  constructor(
    private readonly settings: RegressionSettings,
    private readonly configuration: ModelConfiguration,
  ) {
    const { name, weight, error, rows, dimension, before, gripper } = settings;
    const { actionDimension } = configuration;
    this.name = name;
    this.weight = weight;
    this.meaning = `mean ${words[error]} error of ${dimension === undefined ? 'normalised actions' : 'the numbers of each row'}`;
    this.layers = [headOf(settings, configuration)];
    this.columns = gripper ? actionDimension - 1 : actionDimension;
    const { reads, blocks } = readBlocks(configuration, rows, before);
    this.reads = reads;
    this.blocks = blocks;
    const ofActions = dimension === undefined;
    this.makes = ofActions ? reads : [];
    const targets = targetsBefore(configuration, this.makes);
    this.obstacle = flowNeeded(configuration, this.makes) ?? notDecodable(configuration, targets);
    this.acts = ofActions && !this.obstacle ? 'chunk' : undefined;
    const distance = (action: number, mean: number) => distances[error](action - mean);
    this.baseline = ofActions ? meanChunkLoss(distance, actionDimension, 0, this.columns) : undefined;
    const logits = (pass: Pass) => this.predicted(pass).gripper!;
    this.gripper = gripper ? new Gripper(this, configuration, weight * gripper.weight, logits) : null;
  }

  inputs(given: TrainingBatch): Inputs {
    const { batch, rowTargets } = given;
    const { dimension } = this.settings;
    const read = this.rowsRead(given, trainingBlocks(this.configuration));
    if (dimension === undefined) {
      const { horizon, actionDimension } = this.configuration;
      const { actions, ...masks } = columnsOf(given, actionDimension, 0, this.columns);
      if (!actions) throw new InputError(`the ${this.name} loss needs actions`);
      return { ...read, ...chunkInputs(this.name, { actions, ...masks }, [batch, horizon, this.columns]) };
    }
    const own = rowTargets?.[this.name];
    if (!own) throw new InputError(`the ${this.name} loss needs rowTargets of '${this.name}'`);
    const rows = rowCount(this.configuration, this.settings.rows) / (this.settings.rowsPerStep ?? 1);
    return {
      ...read,
      [`${this.name}/target`]: floats(Float32Array.from(own.data), [batch, rows, dimension]),
      [`${this.name}/valid`]: integers(own.valid, [batch, rows]),
    };
  }

  /** The loss is a mean over real elements. */
  count(inputs: Inputs): number {
    const { dimension } = this.settings;
    if (dimension === undefined) return countElements(this.name, inputs);
    const { data } = inputs[`${this.name}/valid`];
    return dimension * countOf(data, 0, data.length);
  }

  loss(pass: Pass): LossResult {
    const { inputs } = pass;
    const { error, dimension } = this.settings;
    const { actions } = this.predicted(pass);
    if (dimension === undefined) {
      const target = inputNamed(inputs, `${this.name}/actions`);
      return { loss: errors[error](actions, target, masksOf(this.name, inputs)), prediction: actions };
    }
    const target = inputNamed(inputs, `${this.name}/target`);
    const prediction = reshape(actions, target.shape);
    return { loss: errors[error](prediction, target, { valid: inputNamed(inputs, `${this.name}/valid`) }), prediction };
  }

  /** One pass over all that the rows read. */
  async act({ device, observation, open }: Acting): Promise<Float32Array> {
    const { rows } = this.settings;
    if (!('block' in rows)) throw new Error(`the ${this.name} loss reads a vision tower, and does not act`);
    const prefix = blocksRun(this.configuration, this.makes).map(({ name }) => name);
    using session = open({ prefix, suffix: [] });
    const inputs = this.rowsRead(observation, blocksNamed(this.configuration, prefix));
    const prediction = await session.prefix((own, values) => {
      const at = tensorsOf(device, inputs)[this.rowsName];
      return this.predict(values, own(rows.block, { layer: rows.layer, at }));
    });
    const [actions, logits] = [await prediction.actions.read(), await prediction.gripper?.read()];
    prediction.actions.dispose();
    prediction.gripper?.dispose();
    return logits ? withGripper(actions, logits, this.columns) : actions;
  }

  private get rowsName(): string {
    return `${this.name}/rows`;
  }

  /** The rows before those of its block, in a pass over these blocks, if it reads them. */
  private rowsRead(observation: ObservationBatch, blocks: readonly BlockSettings[]): Inputs {
    const { rows, before } = this.settings;
    if (!before || 'tower' in rows) return {};
    const read = rowsBefore(this.configuration, observation, blocks, rows.block);
    return { [this.rowsName]: integers(read, [observation.batch, read.length / observation.batch]) };
  }

  /** The head runs once in a pass, for the regression and for the gripper. */
  private predicted(pass: Pass): Prediction {
    const { rows } = this.settings;
    const known = this.predictions.get(pass);
    const made = known ?? this.predict(pass.values, rowsOfPass(pass, rows, pass.inputs[this.rowsName]));
    this.predictions.set(pass, made);
    return made;
  }

  /** hidden [samples, steps * rowsPerStep, width] -> [samples, steps, outputs] */
  private predict(values: ParameterSet, hidden: Tensor): Prediction {
    const [head] = this.layers;
    if (head instanceof PolicyHead) return head.run(values, hidden);
    const { rowsPerStep = 1 } = this.settings;
    const [samples, rows, width] = hidden.shape;
    const steps = rowsPerStep === 1 ? hidden : reshape(hidden, [samples, rows / rowsPerStep, rowsPerStep * width]);
    return { actions: head.run(values, steps), gripper: null };
  }
}

function headOf(settings: RegressionSettings, configuration: ModelConfiguration) {
  const { name, rows, rowsPerStep = 1, dimension, head, gripper } = settings;
  const { actionDimension, horizon } = configuration;
  const { width, group } = rowWidth(configuration, rows);
  const sizes = { outputs: dimension ?? actionDimension, inputs: rowsPerStep * width };
  if (!head) return new Linear(group, dimension === undefined ? 'action_out_proj' : `${name}_head`, sizes);
  if ('blocks' in head) return new ResidualHead(group, sizes, head);
  return new PolicyHead(group, head.trunk, {
    ...{ inputs: rowCount(configuration, rows) * width, window: windowOf(configuration) },
    ...{ horizon, dimension: actionDimension, gripper: gripper !== undefined },
  });
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
