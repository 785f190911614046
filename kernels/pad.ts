import { emptyTensor, loadKernel, type Tensor } from '../engine/index.ts';
import { expectDtype, recordOne, rowsAndWidth, withLastAxis } from './operand.ts';
import { forEachItem } from './streaming.ts';

const kernel = await loadKernel(new URL('./pad.wgsl', import.meta.url));

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
  const bytes = 4 * rows * (Math.min(width, newWidth) + newWidth);
  const work = { bindings: { x, y }, uniform: { rows, width, newWidth }, bytes };
  forEachItem(x.device, kernel, 'forward', rows * newWidth, work);
  return y;
}
