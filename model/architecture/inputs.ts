/**
 * What a pass takes from the host, as named numbers. Whatever the host can work out before a step begins is worked out here, so
 * that a captured step gets new numbers and nothing else about it changes.
 */
import { type Device, type Shape, type Tensor, type TensorData, tensor } from '../../engine/index.ts';
import { rotaryTable, timeEmbedding } from '../../kernels/index.ts';
import {
  jointPositions,
  jointValidity,
  type ModelConfiguration,
  tableOf,
  tokensPerImage,
  type ValidityByBlock,
} from './configuration.ts';

/** Token ids of one block, padded on the right: both [batch, length]. */
export interface Ids {
  readonly ids: ArrayLike<number>;
  readonly valid: ArrayLike<number>;
}

/** What a policy sees, for a batch. */
export interface Observation {
  readonly batch: number;
  /** [batch, cameras, height, width, 3] in [-1, 1]; null where the model has no image block. */
  readonly images: Float32Array | null;
  /** [batch, cameras], 0 where the camera is absent. */
  readonly cameraValid: ArrayLike<number> | null;
  /** By block name. */
  readonly ids: Readonly<Record<string, Ids>>;
  /** [batch, stateDimension], normalised; for systems whose state is a token of the expert. */
  readonly state: Float32Array | null;
}

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
  /** [actionDimension], or [batch, actionDimension] for a mixture of robots: 0 for padded dimensions; null where all are real. */
  readonly realDimensions: ArrayLike<number> | null;
}

/** Numbers on their way to a tensor. */
export interface Input {
  readonly data: TensorData;
  readonly shape: Shape;
  readonly dtype: 'f32' | 'u32';
}

/** By name: `images`, `ids/<block>`, `state`, `validity`, `rotaryTable`, `timeEmbedding`, and those of training. */
export type Inputs = Readonly<Record<string, Input>>;
export type InputTensors = Readonly<Record<string, Tensor>>;

/** Of the input blocks of the backbone and the state, as far as they are among `blocks`. */
export function observationInputs(
  { blocks, vision, stateDimension }: ModelConfiguration,
  { batch, images, ids, state }: Observation,
  names: readonly string[],
): Inputs {
  const inputs: Record<string, Input> = {};
  for (const { name, input, length } of blocks) {
    if (!names.includes(name)) continue;
    if (input === 'images' && images && vision)
      inputs.images = floats(images, [batch, vision.cameras, vision.imageHeight, vision.imageWidth, 3]);
    if (input === 'ids' && ids[name]) inputs[`ids/${name}`] = integers(ids[name].ids, [batch, length]);
    if (input === 'state' && state) inputs.state = floats(state, [batch, length, stateDimension]);
  }
  return inputs;
}

/** Of the rows of `blocks`, which attend to themselves and to the blocks of `cached` before them. */
export function sequenceInputs(
  configuration: ModelConfiguration,
  observation: Observation,
  blocks: readonly string[],
  cached: readonly string[] = [],
): Inputs {
  const { batch } = observation;
  const { headDimension } = configuration;
  const byBlock = validityByBlock(configuration, observation);
  const { blocks: keys } = tableOf(configuration, [...cached, ...blocks]).layout;
  const joint = jointValidity(keys, batch, byBlock);
  const positions = jointPositions(configuration, blocks, batch, byBlock);
  return {
    validity: integers(joint, [batch, joint.length / batch]),
    rotaryTable: floats(rotaryTable(positions, headDimension), [batch, positions.length / batch, headDimension / 2, 2]),
  };
}

/** phi of the times [batch]: a row for each sample, or for each of its actions where time is concatenated to them. */
export function timeInputs({ expert, horizon }: ModelConfiguration, times: ArrayLike<number>): Inputs {
  const { width, time } = expert!;
  if (time === 'adaptive') return { timeEmbedding: floats(timeEmbedding(times, width), [times.length, width]) };
  const rows = Float64Array.from({ length: times.length * horizon }, (_, row) => times[Math.floor(row / horizon)]);
  return { timeEmbedding: floats(timeEmbedding(rows, width), [rows.length, 1, width]) };
}

/** Everything that `trainingPass` takes. */
export function trainingInputs(configuration: ModelConfiguration, batch: TrainingBatch): Inputs {
  const { losses, blocks, horizon, actionDimension } = configuration;
  const names = blocks.map((block) => block.name);
  const { batch: size, actions, noise, time, actionValid, realDimensions, lossTarget, lossMask } = batch;
  const chunk = [size, horizon, actionDimension];
  const rows = blocks.reduce((sum, { weights, length }) => sum + (weights === 'backbone' ? length : 0), 0);
  if (losses.flow && !(actions && noise && time)) throw new Error('the flow loss needs actions, noise and time');
  if (losses.token && !(lossTarget && lossMask)) throw new Error('the token loss needs lossTarget and lossMask');
  return {
    ...observationInputs(configuration, batch, names),
    ...sequenceInputs(configuration, batch, names),
    ...(losses.flow && {
      actions: floats(actions!, chunk),
      noise: floats(noise!, chunk),
      time: floats(Float32Array.from(time!), [size]),
      ...timeInputs(configuration, time!),
      ...(actionValid && { actionValid: integers(actionValid, [size, horizon]) }),
      ...(realDimensions && {
        realDimensions: integers(
          realDimensions,
          realDimensions.length === actionDimension ? [actionDimension] : [size, actionDimension],
        ),
      }),
    }),
    ...(losses.token && {
      lossTarget: integers(lossTarget!, [size, rows]),
      lossMask: integers(lossMask!, [size, rows]),
    }),
  };
}

/** The inputs as tensors of the current step. */
export function tensorsOf(device: Device, inputs: Inputs): InputTensors {
  const made = Object.entries(inputs).map(([name, { data, shape, dtype }]) => [
    name,
    tensor(device, data, shape, { dtype }),
  ]);
  return Object.fromEntries(made);
}

/** An input by name; throws where the batch came without. */
export function inputNamed(inputs: InputTensors, name: string): Tensor {
  const found = inputs[name];
  if (!found)
    throw new Error(`the model needs '${name}', and the batch has none; it has ${Object.keys(inputs).join(', ')}`);
  return found;
}

function validityByBlock(
  { blocks, vision }: ModelConfiguration,
  { batch, cameraValid, ids }: Observation,
): ValidityByBlock {
  const byBlock: Record<string, ArrayLike<number>> = {};
  for (const { name, input, length } of blocks) {
    if (input === 'ids' && ids[name]) byBlock[name] = ids[name].valid;
    if (input !== 'images' || !cameraValid) continue;
    const perImage = tokensPerImage(vision!);
    byBlock[name] = Uint8Array.from({ length: batch * length }, (_, i) => cameraValid[Math.floor(i / perImage)]);
  }
  return byBlock;
}

function floats(data: Float32Array, shape: Shape): Input {
  return { data, shape, dtype: 'f32' };
}

function integers(data: ArrayLike<number>, shape: Shape): Input {
  return { data: Uint32Array.from(data), shape, dtype: 'u32' };
}
