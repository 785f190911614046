import { emptyTensor, formatShape, type GradientSum, loadKernel, type Shape, type Tensor } from '../engine/index.ts';
import { fours, ones, valueAlias } from './groups.ts';
import { expectDtype, recordOne, rowsAndWidth, storage } from './operand.ts';
import { forEachItem } from './streaming.ts';

const kernel = await loadKernel(new URL('./reduce.wgsl', import.meta.url));
const THREADS = 64;
/** The sum of everything is first cut into at most this many parts of at least 8 groups to a thread. */
const MOST_PARTS = 256;
const ELEMENTS_OF_A_PART = THREADS * 8 * 4;
const unused = { count: 0, rows: 0, groups: 0, slices: 0, accumulate: 0, scale: 1 };

/** The sum of all elements of x [...] in f32, f16 or bf16: a scalar (shape []) in f32; 0 for no elements. */
export function sum(x: Tensor): Tensor {
  return sumAll('sum', x, 1);
}

/** The mean of all elements of x [...] in f32, f16 or bf16: a scalar (shape []) in f32. */
export function mean(x: Tensor): Tensor {
  if (x.size === 0) throw new Error(`mean: x has shape ${formatShape(x.shape)}; it has no elements`);
  return sumAll('mean', x, 1 / x.size);
}

function sumAll(op: string, x: Tensor, scale: number): Tensor {
  expectDtype(op, 'x', x, 'f32', 'f16', 'bf16');
  const { device } = x;
  const count = x.size;
  const threads = device.software ? 8 : THREADS;
  const stage = (source: Tensor, parts: number, factor: number, shape: Shape) => {
    const { pack: _, ...reading } = storage(source.dtype);
    const y = emptyTensor(device, shape, 'f32', op);
    device.dispatch({
      kernel,
      entry: 'sumAll',
      parameters: { THREADS: threads, ...reading },
      bindings: { x: source, y },
      uniform: { ...unused, count: source.size, scale: factor },
      workgroups: [parts],
      // Beside the elements, each thread adds up its four columns, and they their sums.
      flops: source.size + 9 * parts * threads,
    });
    return y;
  };
  const parts = Math.min(Math.max(Math.ceil(count / ELEMENTS_OF_A_PART), 1), MOST_PARTS);
  const partial = parts === 1 ? null : stage(x, parts, 1, [parts]);
  const y = stage(partial ?? x, 1, scale, []);
  if (partial) device.currentStep(op).release(partial.buffer);
  recordOne(op, [x], y, (dy) => {
    const dx = emptyTensor(device, x.shape, 'f32', `${op} backward`);
    const work = { bindings: { dy, dx }, uniform: { ...unused, count, scale }, flops: count / 4 };
    forEachItem(device, kernel, 'sumAllBackward', Math.ceil(count / 4), work);
    return [dx];
  });
  return y;
}

/** x [..., width] f32 -> [width]: the sum over all axes but the last. */
export function sumRows(x: Tensor): Tensor {
  const { rows, width } = rowsAndWidth('sumRows', 'x', x);
  expectDtype('sumRows', 'x', x, 'f32');
  const y = emptyTensor(x.device, [width], 'f32', 'sumRows');
  sumOfRows('sumRows', x, rows, { gradient: y, accumulate: false });
  recordOne('sumRows', [x], y, (dy) => {
    const dx = emptyTensor(x.device, x.shape, 'f32', 'sumRows backward');
    runOnRows('sumRowsBackward', { dSums: dy, dMatrix: dx }, { rows, width, slices: rows }, 0);
    return [dx];
  });
  return y;
}

/**
 * The rows of `matrix`, any f32 tensor cut into `rows` equal runs of elements, added up and written to a gradient, or added to it. It
 * is returned. Leaves no tape entry.
 */
export function sumOfRows(op: string, matrix: Tensor, rows: number, target: GradientSum): Tensor {
  const { device } = matrix;
  const { gradient: sums } = target;
  const width = sums.size;
  const accumulate = target.accumulate ? 1 : 0;
  // About 32 rows to a partial sum, so that tall matrices keep a large adapter busy. A function of the shape alone.
  const slices = rows <= (device.software ? 512 : 64) ? 1 : Math.min(Math.ceil(rows / 32), 128);
  if (slices === 1) {
    runOnRows('sumRows', { matrix, sums }, { rows, width, accumulate });
    return sums;
  }
  const partial = emptyTensor(device, [slices, width], 'f32', op);
  runOnRows('sumRows', { matrix, sums: partial }, { rows, width, slices });
  runOnRows('sumRows', { matrix: partial, sums }, { rows: slices, width, accumulate });
  device.currentStep(op).release(partial.buffer);
  return sums;
}

/** One thread for each group of columns of each slice. */
function runOnRows(
  entry: string,
  bindings: Record<string, Tensor>,
  { rows, width, slices = 1, accumulate = 0 }: { rows: number; width: number; slices?: number; accumulate?: number },
  flops = (rows + accumulate) * width,
): void {
  const { device } = Object.values(bindings)[0];
  const grouping = width % 4 === 0 ? fours('f32') : ones;
  const groups = width / grouping.size;
  forEachItem(device, kernel, entry, slices * groups, {
    parameters: valueAlias(grouping),
    bindings,
    uniform: { ...unused, rows, groups, slices, accumulate },
    flops,
    bytes: Object.values(bindings).reduce((sum, { byteLength }) => sum + byteLength, 4 * accumulate * width),
  });
}
