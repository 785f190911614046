import { emptyTensor, gridFor, loadKernel, type Tensor } from '../engine/index.ts';
import { expectDtype, recordOne, rowsAndWidth, withLastAxis } from './operand.ts';

const kernel = await loadKernel(new URL('./pad.wgsl', import.meta.url));
const THREADS = 64;

/** x [..., width] f32 -> [..., newWidth]: widened with zeros or cut. The same tensor where the width is right already. */
export function pad(x: Tensor, newWidth: number): Tensor {
  const { width } = rowsAndWidth('pad', 'x', x);
  if (width === newWidth) return x;
  expectDtype('pad', 'x', x, 'f32');
  const y = resized(x, newWidth);
  recordOne('pad', [x], y, (dy) => [resized(dy, width)]);
  return y;
}

function resized(x: Tensor, newWidth: number): Tensor {
  const { rows, width } = rowsAndWidth('pad', 'x', x);
  const y = emptyTensor(x.device, withLastAxis(x.shape, newWidth), 'f32', 'pad');
  x.device.dispatch({
    kernel,
    entry: 'forward',
    bindings: { x, y },
    uniform: { rows, width, newWidth },
    workgroups: gridFor(rows * newWidth, THREADS),
    bytes: 4 * rows * (Math.min(width, newWidth) + newWidth),
  });
  return y;
}
