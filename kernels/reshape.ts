import { elementCount, formatShape, type Shape, type Tensor, viewTensor } from '../engine/index.ts';
import { recordOne } from './operand.ts';

/** The same numbers in another shape: a view, nothing is copied. `shape` holds as many elements. */
export function reshape(x: Tensor, shape: Shape): Tensor {
  if (elementCount(shape) !== x.size)
    throw new Error(
      `reshape: ${formatShape(x.shape)} holds ${x.size} elements, ${formatShape(shape)} ${elementCount(shape)}`,
    );
  const y = viewTensor(x, shape, 0, 'reshape');
  recordOne('reshape', [x], y, (dy) => [viewTensor(dy, x.shape, 0, 'reshape backward')]);
  return y;
}
