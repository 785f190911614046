/**
 * The numbers that a pass takes from the host, by name. Everything that the host can compute before a step begins is
 * computed here, so that nothing but these numbers changes between two runs of a captured step.
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

/** A batch of observations, encoded for the model. */
export interface ObservationBatch {
  readonly batch: number;
  /** [batch, cameras, height, width, 3] in [-1, 1]; null if the model has no image block. */
  readonly images: Float32Array | null;
  /** [batch, cameras], 0 if the camera is absent. */
  readonly cameraValid: ArrayLike<number> | null;
  /** By block name. */
  readonly ids: Readonly<Record<string, Ids>>;
  /** [batch, stateDimension], normalised; null unless the state is a token of the action expert. */
  readonly state: Float32Array | null;
}

/** A batch of observations with the targets of the losses. */
export interface TrainingBatch extends ObservationBatch {
  /** [batch, rows of the backbone]: the id that each row is to predict, and 1 if the row has a loss. */
  readonly lossTarget: ArrayLike<number> | null;
  readonly lossMask: ArrayLike<number> | null;
  /** [batch, horizon, actionDimension], normalised; for the flow loss. */
  readonly actions: Float32Array | null;
  /** Standard normal, of the same shape as `actions`. */
  readonly noise: Float32Array | null;
  /** Flow time [batch]; 1 is pure noise. */
  readonly time: ArrayLike<number> | null;
  /** [batch, horizon], 0 for the padded tail of a chunk, and for samples without actions. */
  readonly actionValid: ArrayLike<number> | null;
  /** [actionDimension], or [batch, actionDimension] for data of several robots: 0 for padded dimensions; null if all are real. */
  readonly realDimensions: ArrayLike<number> | null;
}

/** The contents of a tensor, on the host. */
export interface Input {
  readonly data: TensorData;
  readonly shape: Shape;
  readonly dtype: 'f32' | 'u32';
}

/** Inputs by name: `images`, `ids/<block>`, `state`, `validity` (padding mask), `rotaryTable`, `timeEmbedding`, targets. */
export type Inputs = Readonly<Record<string, Input>>;
export type InputTensors = Readonly<Record<string, Tensor>>;

/** Images, ids and state of the named blocks. */
export function observationInputs(
  { blocks, vision, stateDimension }: ModelConfiguration,
  { batch, images, ids, state }: ObservationBatch,
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

/** Padding mask and rotary table for the rows of `blocks`, which attend to themselves and to the `cached` blocks before them. */
export function sequenceInputs(
  configuration: ModelConfiguration,
  observation: ObservationBatch,
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

/** Embedding of the flow times [batch]: a row for each sample, or for each of its actions if time is concatenated to them. */
export function timeInputs({ expert, horizon }: ModelConfiguration, times: ArrayLike<number>): Inputs {
  const { width, time } = expert!;
  if (time === 'adaptive') return { timeEmbedding: floats(timeEmbedding(times, width), [times.length, width]) };
  const rows = Float64Array.from({ length: times.length * horizon }, (_, row) => times[Math.floor(row / horizon)]);
  return { timeEmbedding: floats(timeEmbedding(rows, width), [rows.length, 1, width]) };
}

/** All inputs of `trainingPass`. */
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

/** The shares of one part of a batch in the losses of the whole batch. */
export interface LossShares {
  readonly tokenLoss: number;
  readonly flowLoss: number;
}

/**
 * The shares of the parts of a batch, whose gradients are added up one after the other. Each loss keeps its definition over the whole
 * batch: the token loss is a mean over examples, so a part counts by its examples; the flow loss is a mean over the real elements of
 * the actions, so a part counts by these.
 */
export function lossShares(parts: readonly Inputs[]): LossShares[] {
  const sharesOf = (counts: readonly number[]) => {
    const total = counts.reduce((sum, count) => sum + count, 0);
    return counts.map((count) => (total === 0 ? 0 : count / total));
  };
  const token = sharesOf(parts.map(({ lossMask }) => lossMask?.shape[0] ?? 0));
  const flow = sharesOf(parts.map(realElements));
  return parts.map((_, i) => ({ tokenLoss: token[i], flowLoss: flow[i] }));
}

/** A part of a batch with its shares, which `trainingPass` multiplies its losses by. */
export function withShares(inputs: Inputs, { tokenLoss, flowLoss }: LossShares): Inputs {
  const scalar = (value: number) => floats(Float32Array.of(value), []);
  return { ...inputs, 'share/tokenLoss': scalar(tokenLoss), 'share/flowLoss': scalar(flowLoss) };
}

/** Elements of the actions that the flow loss counts: real dimensions of demonstrated steps. */
function realElements({ actions, actionValid, realDimensions }: Inputs): number {
  if (!actions) return 0;
  const [batch, horizon, width] = actions.shape;
  const dimensions = (sample: number) => {
    if (!realDimensions) return width;
    const first = realDimensions.shape.length === 1 ? 0 : sample * width;
    return countOf(realDimensions.data, first, width);
  };
  let count = 0;
  for (let sample = 0; sample < batch; sample++)
    count += dimensions(sample) * (actionValid ? countOf(actionValid.data, sample * horizon, horizon) : horizon);
  return count;
}

/** How many of `length` numbers from `first` on are not 0. */
function countOf(data: ArrayLike<number>, first: number, length: number): number {
  let count = 0;
  for (let i = first; i < first + length; i++) if (data[i] !== 0) count += 1;
  return count;
}

/** The inputs as tensors of the current step. */
export function tensorsOf(device: Device, inputs: Inputs): InputTensors {
  const made = Object.entries(inputs).map(([name, { data, shape, dtype }]) => [
    name,
    tensor(device, data, shape, { dtype }),
  ]);
  return Object.fromEntries(made);
}

/** An input by name; throws if there is none. */
export function inputNamed(inputs: InputTensors, name: string): Tensor {
  const found = inputs[name];
  if (!found)
    throw new Error(`the model needs '${name}', and the batch has none; it has ${Object.keys(inputs).join(', ')}`);
  return found;
}

function validityByBlock(
  { blocks, vision }: ModelConfiguration,
  { batch, cameraValid, ids }: ObservationBatch,
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
