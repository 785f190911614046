import { emptyTensor, gridFor, loadKernel, type Tensor } from '../engine/index.ts';
import { groupsOf, valueAlias } from './groups.ts';
import { expectDtype, recordOne, rowsAndWidth } from './operand.ts';
import { rowParameters } from './rows.ts';

const kernel = await loadKernel(new URL('./softmax.wgsl', import.meta.url));
const oneElement = { total: 'single', largest: 'single' };

/** exp(x) / sum(exp(x)) over the last axis: x [..., width] f32 -> [..., width] f32. A row of equal numbers gives 1 / width each. */
export function softmax(x: Tensor): Tensor {
  const { rows, width } = rowsAndWidth('softmax', 'x', x);
  expectDtype('softmax', 'x', x, 'f32');
  const { device } = x;
  const grouping = groupsOf('softmax', 'x', x, width);
  const groups = width / grouping.size;
  const reduction = rowParameters(device, groups);
  const { THREADS } = reduction;
  const run = (entry: 'forward' | 'backward', bindings: Record<string, Tensor>) =>
    device.dispatch({
      kernel,
      entry,
      parameters: {
        ...reduction,
        ...(reduction.sumOfThreads && { joinedOfThreads: reduction.sumOfThreads }),
        ...valueAlias(grouping),
        ...(grouping.size === 1 && oneElement),
      },
      bindings,
      uniform: { rows, groups },
      workgroups: gridFor(rows, 1),
      // The first term is of the elements, the second of the sums that the threads join.
      flops: entry === 'forward' ? 9 * x.size + 11 * THREADS * rows : 5 * x.size + 2 * THREADS * rows,
    });

  const y = emptyTensor(device, x.shape, 'f32', 'softmax');
  run('forward', { x, y });
  recordOne('softmax', [x], y, (dy) => {
    const dx = emptyTensor(device, x.shape, 'f32', 'softmax backward');
    run('backward', { forwardY: y, dy, dx });
    return [dx];
  });
  return y;
}
