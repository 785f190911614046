/** Some rows of an expert, by their numbers: those that are read after the last layer. */
import { hostTensor, type Tensor } from '../../engine/index.ts';
import { type BlockLayout, embedding, reshape } from '../../kernels/index.ts';

/** The rows of x [batch, rows, width] with these numbers [count], counted through the batch: [1, count, width]. */
export function rowsAt(numbers: Tensor, x: Tensor): Tensor {
  const [batch, rows, width] = x.shape;
  return reshape(embedding(numbers, reshape(x, [batch * rows, width])), [1, numbers.size, width]);
}

/** Takes numbers of rows of one input of a layout, and returns the numbers of the same rows in the joint sequence. */
export function jointRowNumbers(own: Tensor, layout: BlockLayout, input: number, batch: number): Tensor {
  const inputs = layout.flatMap((block) => Array<number>(block.length).fill(block.input));
  const places = [...inputs.keys()].filter((place) => inputs[place] === input);
  const joint = (row: number) => Math.floor(row / places.length) * inputs.length + places[row % places.length];
  const none = batch * inputs.length;
  const numbers = (rows: ArrayLike<number>) =>
    Array.from(rows, (row) => (row < batch * places.length ? joint(row) : none));
  return hostTensor(own.device, [own], numbers, own.shape, { dtype: 'u32' });
}
