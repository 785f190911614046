/** Chunks of actions in objectives: which of their elements count. */
import { floats, type Input, type Inputs, type InputTensors, integers, type TrainingBatch } from '../inputs.ts';
import { countOf } from './objective.ts';

/** Actions of this shape and their masks, as inputs of the named objective: another may have each chunk several times. */
export function chunkInputs(
  name: string,
  {
    actions,
    actionValid,
    realDimensions,
  }: Pick<TrainingBatch, 'actionValid' | 'realDimensions'> & { actions: Float32Array },
  shape: readonly number[],
): Inputs {
  return {
    [`${name}/actions`]: floats(actions, shape),
    ...maskInputs(name, { actionValid, realDimensions }, shape),
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
