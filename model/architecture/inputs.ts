/** The numbers that a pass takes from the host: those of an example, and the named contents of tensors made of them. */
import { InputError } from '../../engine/files/errors.ts';
import { type Device, elementCount, type Shape, type Tensor, type TensorData, tensor } from '../../engine/index.ts';

/** Token ids of one block, padded on the right: both [batch, length]. */
export interface Ids {
  readonly ids: ArrayLike<number>;
  readonly valid: ArrayLike<number>;
}

/** A batch of observations, encoded for the model. */
export interface ObservationBatch {
  /** Control steps: examples, or with history those of each example's window one after another, oldest first. */
  readonly batch: number;
  /** [batch, cameras, height, width, 3] in [-1, 1]; null if the model has no image block. */
  readonly images: Float32Array | null;
  /** [batch, cameras], 0 if the camera is absent. */
  readonly cameraValid: ArrayLike<number> | null;
  /** Prompts and targets by the source of their block. */
  readonly ids: Readonly<Record<string, Ids>>;
  /** [batch, length, dimension] by the source of their block: `state`, normalised, or `numbers`, features of places and state. */
  readonly numbers?: Readonly<Record<string, Float32Array>>;
  /** By block name, [batch, length]: 0 for rows that are padding, of blocks that hold neither images nor ids. */
  readonly rowValid?: Readonly<Record<string, ArrayLike<number>>>;
}

/** A batch of observations with the targets of the losses. */
export interface TrainingBatch extends ObservationBatch {
  /** [batch, rows of the backbone]: the id that each row is to predict, and the number of its target, from 1 on, if the row has a loss. */
  readonly lossTarget: ArrayLike<number> | null;
  readonly lossMask: ArrayLike<number> | null;
  /** [batch, horizon, actionDimension], normalised. */
  readonly actions: Float32Array | null;
  /** Standard normal, [batch, horizon, actionDimension], or [batch, repeats, horizon, actionDimension]. */
  readonly noise: Float32Array | null;
  /** Flow time [batch], or [batch, repeats]; 1 is pure noise. Of diffusion, (level + 1) / 100. */
  readonly time: ArrayLike<number> | null;
  /** Clean first actions of each chunk, of the shape of `time`; for a flow with a `maximumDelay`. */
  readonly delays?: ArrayLike<number>;
  /** [batch, horizon], 0 for the padded tail of a chunk, and for samples without actions. */
  readonly actionValid: ArrayLike<number> | null;
  /** [actionDimension], or [batch, actionDimension] for data of several robots: 0 for padded dimensions; null if all are real. */
  readonly realDimensions: ArrayLike<number> | null;
  /** Targets by objective: classes, or numbers [batch, rows, dimension], of rows; `valid` [batch, rows] says which rows count. */
  readonly rowTargets?: Readonly<
    Record<string, { readonly data: ArrayLike<number>; readonly valid: ArrayLike<number> }>
  >;
}

/** Pads sequences on the right with id 0 to [sequences, length]. */
export function padIds(
  sequences: readonly ArrayLike<number>[],
  length: number,
): Ids & { ids: Int32Array; valid: Uint8Array } {
  const ids = new Int32Array(sequences.length * length);
  const valid = new Uint8Array(sequences.length * length);
  sequences.forEach((sequence, row) => {
    ids.set(sequence, row * length);
    valid.fill(1, row * length, row * length + sequence.length);
  });
  return { ids, valid };
}

/** The contents of a tensor, on the host. */
export interface Input {
  readonly data: TensorData;
  readonly shape: Shape;
  readonly dtype: 'f32' | 'u32';
}

/** Inputs by name. Blocks and objectives declare their own, so that nothing else changes between two runs of a captured step. */
export type Inputs = Readonly<Record<string, Input>>;
export type InputTensors = Readonly<Record<string, Tensor>>;

/** @throws InputError if an input has too many or too few numbers, or one that is not finite */
export function expectInputs(inputs: Inputs): void {
  for (const [name, { data, shape, dtype }] of Object.entries(inputs)) {
    const size = elementCount(shape);
    expectLength(name, data, size, shape);
    if (dtype !== 'f32') continue;
    for (let i = 0; i < size; i++)
      if (!Number.isFinite(data[i])) throw new InputError(`the batch has ${data[i]} in '${name}', at number ${i}`);
  }
}

/** @throws InputError if these numbers of a batch are not as many as their shape says */
export function expectLength(name: string, { length }: ArrayLike<unknown>, size: number, shape: Shape = [size]): void {
  if (length !== size)
    throw new InputError(
      `the batch has ${length} numbers of '${name}'; expected ${shape.length > 1 ? `${shape.join(' x ')} = ` : ''}${size}`,
    );
}

/** @throws InputError if a number that counts is not a whole one below `limit` */
export function expectBelow(name: string, data: ArrayLike<number>, valid: ArrayLike<number>, limit: number): void {
  for (let i = 0; i < data.length; i++)
    if (valid[i] && !(Number.isInteger(data[i]) && data[i] >= 0 && data[i] < limit))
      throw new InputError(
        `the batch has ${data[i]} in '${name}', at number ${i}; expected a whole number below ${limit}`,
      );
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
    throw new InputError(`the model needs '${name}', and the batch has none; it has ${Object.keys(inputs).join(', ')}`);
  return found;
}

/** Repeats each of `batch` equal parts `copies` times in a row. */
export function repeated(data: ArrayLike<number>, batch: number, copies: number): Float32Array {
  if (copies === 1 && data instanceof Float32Array) return data;
  const size = data.length / batch;
  const source = (i: number) => Math.floor(i / (size * copies)) * size + (i % size);
  return Float32Array.from({ length: data.length * copies }, (_, i) => data[source(i)]);
}

export function floats(data: Float32Array, shape: Shape): Input {
  return { data, shape, dtype: 'f32' };
}

export function integers(data: ArrayLike<number>, shape: Shape): Input {
  return { data: Uint32Array.from(data), shape, dtype: 'u32' };
}
