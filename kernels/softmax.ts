import { emptyTensor, gridFor, loadKernel, record, type Tensor } from '../engine/index.ts';
import { groupsOf, valueAlias } from './groups.ts';
import { expectDtype, rowsAndWidth } from './operand.ts';

const kernel = await loadKernel(new URL('./softmax.wgsl', import.meta.url));
const THREADS = 64;
const oneElement = {
  total: 'fn total(value: Value) -> f32 { return value; }',
  largest: 'fn largest(value: Value) -> f32 { return value; }',
};

/** exp(x) / sum(exp(x)) over the last axis: x [..., width] f32 -> [..., width] f32. A row of equal numbers gives 1 / width each. */
export function softmax(x: Tensor): Tensor {
  const { rows, width } = rowsAndWidth('softmax', 'x', x);
  expectDtype('softmax', 'x', x, 'f32');
  const { device } = x;
  const grouping = groupsOf('softmax', 'x', x, width);
  const run = (entry: 'forward' | 'backward', bindings: Record<string, Tensor>) =>
    device.dispatch({
      kernel,
      entry,
      parameters: { THREADS, ...valueAlias(grouping), ...(grouping.size === 1 && oneElement) },
      bindings,
      uniform: { rows, groups: width / grouping.size },
      workgroups: gridFor(rows, 1),
    });

  const y = emptyTensor(device, x.shape, 'f32', 'softmax');
  run('forward', { x, y });
  record('softmax', [x], [y], ([dy]) => {
    if (!dy) return [null];
    const dx = emptyTensor(device, x.shape, 'f32', 'softmax backward');
    run('backward', { forwardY: y, dy, dx });
    return [dx];
  });
  return y;
}

/** FLOPs and bytes of one forward or backward over `rows` rows; bytes count each array once. */
export function softmaxCost(
  rows: number,
  width: number,
): Record<'forward' | 'backward', { flops: number; bytes: number }> {
  const elements = rows * width;
  return {
    forward: { flops: 5 * elements, bytes: 8 * elements },
    backward: { flops: 4 * elements, bytes: 12 * elements },
  };
}
