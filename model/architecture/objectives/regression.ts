/** Numbers predicted in one pass: chunks of actions (OpenVLA-OFT: Kim et al. 2025, arXiv 2502.19645), or numbers of each row. */
import { InputError } from '../../../engine/files/errors.ts';
import type { ParameterSet, Tensor } from '../../../engine/index.ts';
import { add, huber, l1, meanSquaredError, relu, reshape } from '../../../kernels/index.ts';
import type { BlockSettings, ModelConfiguration } from '../configuration.ts';
import {
  floats,
  type Inputs,
  inputNamed,
  integers,
  type ObservationBatch,
  type TrainingBatch,
  tensorsOf,
} from '../inputs.ts';
import { type Layer, LayerNorm, Linear, parametersOfLayers } from '../layers.ts';
import { blocksNamed, rowsBefore, trainingBlocks } from '../sequence.ts';
import { chunkInputs, countElements, isReal, masksOf } from './chunk.ts';
import { type Acting, countOf, type LossResult, type Objective, type Pass, type Reference } from './objective.ts';
import { readBlocks, rowCount, rowsOfPass, rowWidth } from './rows.ts';
import { blocksRun, flowNeeded, notDecodable, targetsBefore } from './running.ts';
import type { RegressionSettings } from './settings.ts';

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
const TORCH_EPSILON = 1e-5;

interface Head extends Layer {
  run(values: ParameterSet, x: Tensor): Tensor;
}

export class Regression implements Objective {
  readonly name: string;
  readonly weight: number;
  readonly meaning: string;
  readonly layers: readonly Head[];
  readonly reads: readonly string[];
  readonly blocks: readonly string[];
  readonly acts: 'chunk' | undefined;
  readonly obstacle: string | null;
  readonly makes: readonly string[];
  readonly baseline;

  constructor(
    private readonly settings: RegressionSettings,
    private readonly configuration: ModelConfiguration,
  ) {
    const { name, weight, error, rows, head, rowsPerStep = 1, dimension, before } = settings;
    this.name = name;
    this.weight = weight;
    this.meaning = `mean ${words[error]} error of ${dimension === undefined ? 'normalised actions' : 'the numbers of each row'}`;
    const { width, group } = rowWidth(configuration, rows);
    const sizes = { outputs: dimension ?? configuration.actionDimension, inputs: rowsPerStep * width };
    const linear = dimension === undefined ? 'action_out_proj' : `${name}_head`;
    this.layers = [head ? new ResidualHead(group, sizes, head) : new Linear(group, linear, sizes)];
    const { reads, blocks } = readBlocks(configuration, rows, before);
    this.reads = reads;
    this.blocks = blocks;
    const ofActions = dimension === undefined;
    this.makes = ofActions ? reads : [];
    const targets = targetsBefore(configuration, this.makes);
    this.obstacle = flowNeeded(configuration, this.makes) ?? notDecodable(configuration, targets);
    this.acts = ofActions && !this.obstacle ? 'chunk' : undefined;
    const measure = (reference: Reference, batch: TrainingBatch) => meanChunkLoss(distances[error], reference, batch);
    this.baseline = ofActions ? { name: 'mean chunk', measure } : undefined;
  }

  inputs(given: TrainingBatch): Inputs {
    const { batch, actions, actionValid, realDimensions, rowTargets } = given;
    const { dimension } = this.settings;
    const read = this.rowsRead(given, trainingBlocks(this.configuration));
    if (dimension === undefined) {
      if (!actions) throw new InputError(`the ${this.name} loss needs actions`);
      const { horizon, actionDimension } = this.configuration;
      const shape = [batch, horizon, actionDimension];
      return { ...read, ...chunkInputs(this.name, { actions, actionValid, realDimensions }, shape) };
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

  loss({ inputs, values, ...pass }: Pass): LossResult {
    const { rows, error, dimension } = this.settings;
    const hidden = rowsOfPass(pass, rows, inputs[this.rowsName]);
    if (dimension === undefined) {
      const prediction = this.predict(values, hidden);
      const actions = inputNamed(inputs, `${this.name}/actions`);
      return { loss: errors[error](prediction, actions, masksOf(this.name, inputs)), prediction };
    }
    const target = inputNamed(inputs, `${this.name}/target`);
    const prediction = reshape(this.predict(values, hidden), target.shape);
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
    const actions = await prediction.read();
    prediction.dispose();
    return actions;
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

  /** hidden [samples, steps * rowsPerStep, width] -> [samples, steps, outputs] */
  private predict(values: ParameterSet, hidden: Tensor): Tensor {
    const { rowsPerStep = 1 } = this.settings;
    const [samples, rows, width] = hidden.shape;
    const steps = rowsPerStep === 1 ? hidden : reshape(hidden, [samples, rows / rowsPerStep, rowsPerStep * width]);
    return this.layers[0].run(values, steps);
  }
}

/** MLPResNet of OpenVLA-OFT (action_heads.py), under its public names. */
class ResidualHead implements Head {
  readonly parameters;
  private readonly first: readonly [LayerNorm, Linear];
  private readonly blocks: readonly (readonly [LayerNorm, Linear])[];
  private readonly last: readonly [LayerNorm, Linear];

  constructor(
    group: string,
    { outputs, inputs }: { outputs: number; inputs: number },
    { width, blocks }: NonNullable<RegressionSettings['head']>,
  ) {
    const at = 'action_head.model';
    const norm = (name: string, size: number) => new LayerNorm(group, `${at}.${name}`, size, TORCH_EPSILON);
    const linear = (name: string, sizes: { outputs: number; inputs: number }) =>
      new Linear(group, `${at}.${name}`, sizes);
    this.first = [norm('layer_norm1', inputs), linear('fc1', { outputs: width, inputs })];
    this.blocks = Array.from({ length: blocks }, (_, i) => [
      norm(`mlp_resnet_blocks.${i}.ffn.0`, width),
      linear(`mlp_resnet_blocks.${i}.ffn.1`, { outputs: width, inputs: width }),
    ]);
    this.last = [norm('layer_norm2', width), linear('fc2', { outputs, inputs: width })];
    this.parameters = parametersOfLayers([...this.first, ...this.blocks.flat(), ...this.last]);
  }

  run(values: ParameterSet, x: Tensor): Tensor {
    const through = ([norm, linear]: readonly [LayerNorm, Linear], own: Tensor) =>
      linear.run(values, norm.run(values, own));
    let hidden = relu(through(this.first, x));
    for (const block of this.blocks) hidden = add(hidden, relu(through(block, hidden)));
    return through(this.last, hidden);
  }
}

function meanChunkLoss(distance: (difference: number) => number, { meanChunk }: Reference, batch: TrainingBatch) {
  let [sum, count] = [0, 0];
  batch.actions!.forEach((action, i) => {
    if (!isReal(batch, i)) return;
    sum += distance(action - meanChunk[i % meanChunk.length]);
    count += 1;
  });
  return { loss: sum / count, count };
}
