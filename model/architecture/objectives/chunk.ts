/** Chunks of actions in objectives: which of their elements count. */
import { InputError } from '../../../engine/files/errors.ts';
import { floats, type Input, type Inputs, type InputTensors, integers, type TrainingBatch } from '../inputs.ts';
import { type Counted, countOf, type Reference } from './objective.ts';

/** Columns of a chunk: `count` of its `width` dimensions, from number `first` on. */
export type Columns = readonly [width: number, first: number, count: number];

/** The actions in these columns, as `change` gives them, and their masks, as inputs [batch, horizon, columns] of the named objective. */
export function chunkInputs(
  name: string,
  batch: TrainingBatch,
  horizon: number,
  columns: Columns,
  change?: (action: number) => number,
): Inputs {
  const { actions, ...masks } = columnsOf(batch, columns);
  if (!actions) throw new InputError(`the ${name} loss needs actions`);
  const shape = [batch.batch, horizon, columns[2]];
  return {
    [`${name}/actions`]: floats(change ? actions.map(change) : actions, shape),
    ...maskInputs(name, masks, shape),
  };
}

/** The masks of chunks of this shape [chunks, horizon, actionDimension]. */
export function maskInputs(
  name: string,
  { actionValid, realDimensions }: Pick<TrainingBatch, 'actionValid' | 'realDimensions'>,
  [chunks, horizon, width]: readonly number[],
): Inputs {
  const dimensions = (real: ArrayLike<number>): Input =>
    integers(real, real.length === width ? [width] : [chunks, width]);
  return {
    ...(actionValid && { [`${name}/actionValid`]: integers(actionValid, [chunks, horizon]) }),
    ...(realDimensions && { [`${name}/realDimensions`]: dimensions(realDimensions) }),
  };
}

/** The masks as a loss takes them. */
export const masksOf = (name: string, inputs: InputTensors) => ({
  valid: inputs[`${name}/actionValid`],
  dimensions: inputs[`${name}/realDimensions`],
});

/** Elements of the chunks in the input `chunk` that count: real dimensions of demonstrated steps. */
export function countElements(name: string, inputs: Inputs, chunk = 'actions'): number {
  const [elements, actionValid, realDimensions] = [chunk, 'actionValid', 'realDimensions'].map(
    (own): Input | undefined => inputs[`${name}/${own}`],
  );
  const [chunks, horizon, width] = elements!.shape;
  const dimensions = (sample: number) => {
    if (!realDimensions) return width;
    return countOf(realDimensions.data, realDimensions.shape.length === 1 ? 0 : sample * width, width);
  };
  let count = 0;
  for (let sample = 0; sample < chunks; sample++)
    count += dimensions(sample) * (actionValid ? countOf(actionValid.data, sample * horizon, horizon) : horizon);
  return count;
}

/** Whether element `i` of the actions is robot data, and not padding at an episode's end or in a padded dimension. */
export function isReal({ batch, actions, actionValid, realDimensions }: TrainingBatch, i: number): boolean {
  const size = actions!.length / batch;
  const width = actionValid ? actions!.length / actionValid.length : (realDimensions?.length ?? 1);
  const row = realDimensions && realDimensions.length > width ? Math.floor(i / size) * width : 0;
  const real = realDimensions?.[row + (i % width)] ?? 1;
  return (actionValid?.[Math.floor(i / width)] ?? 1) === 1 && real === 1;
}

/** A batch with these columns of its actions alone. */
function columnsOf(batch: TrainingBatch, columns: Columns): TrainingBatch {
  if (columns[2] === columns[0]) return batch;
  const { actions, realDimensions } = batch;
  const own = (rows: ArrayLike<number>) => cut(rows, columns);
  return { ...batch, actions: actions && own(actions), realDimensions: realDimensions && own(realDimensions) };
}

const cut = (rows: ArrayLike<number>, [width, first, count]: Columns): Float32Array =>
  Float32Array.from(
    { length: (rows.length / width) * count },
    (_, i) => rows[Math.floor(i / count) * width + first + (i % count)],
  );

/** The mean over real elements of the loss of a constant chunk, the mean of the training data, in these columns. */
export function meanChunkLoss(loss: (action: number, mean: number) => number, columns: Columns) {
  const measure = ({ meanChunk }: Reference, whole: TrainingBatch): Counted => {
    const [batch, means] = [columnsOf(whole, columns), cut(meanChunk, columns)];
    let [sum, count] = [0, 0];
    batch.actions!.forEach((action, i) => {
      if (!isReal(batch, i)) return;
      sum += loss(action, means[i % means.length]);
      count += 1;
    });
    return { loss: sum / count, count };
  };
  return { name: 'mean chunk', measure };
}
