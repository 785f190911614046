import { emptyTensor, formatShape, gradientSum, loadKernel, type Tensor } from '../engine/index.ts';
import { fours, type Groups, groupsOf } from './groups.ts';
import { expectDtype, recordOne, sharedDevice } from './operand.ts';
import { sumOfRows } from './reduce.ts';
import { streaming } from './streaming.ts';

const kernel = await loadKernel(new URL('./elementwise.wgsl', import.meta.url));
const THREADS = 64;

/**
 * a + b. b has the shape of a, or a trailing part of it: a bias [width], positions [T, width], one number [].
 *
 * f32, f16 or bf16, the same for both; the result has the shape and storage of a.
 */
export function add(a: Tensor, b: Tensor): Tensor {
  const { y, rows } = combine('add', a, b);
  recordOne('add', [a, b], y, (dy, [, wantsB]) => [dy, wantsB ? overRows('add backward', dy, rows, b) : null]);
  return y;
}

/** a - b, with b as in add. */
export function subtract(a: Tensor, b: Tensor): Tensor {
  const { y, rows } = combine('subtract', a, b);
  recordOne('subtract', [a, b], y, (dy, [, wantsB]) => {
    if (!wantsB) return [dy, null];
    return [dy, overRows('subtract backward', scaled('subtract backward', dy, -1), rows, b)];
  });
  return y;
}

/** a * b, element by element, with b as in add. */
export function multiply(a: Tensor, b: Tensor): Tensor {
  const { y, rows, groups } = combine('multiply', a, b);
  recordOne('multiply', [a, b], y, (dy, [wantsA, wantsB]) => {
    const op = 'multiply backward';
    const dA = wantsA ? emptyTensor(a.device, a.shape, 'f32', op) : null;
    if (dA) run('multiplyBackwardA', a, { dy, b, dA }, groups, b.size);
    if (!wantsB) return [dA, null];
    const dB = emptyTensor(a.device, a.shape, 'f32', op);
    run('multiplyBackwardB', a, { dy, a, dB }, groups, b.size);
    return [dA, overRows(op, dB, rows, b)];
  });
  return y;
}

/** factor * x, for a number that is known on the host. f32, f16 or bf16; the result has the storage of x. */
export function scale(x: Tensor, factor: number): Tensor {
  expectDtype('scale', 'x', x, 'f32', 'f16', 'bf16');
  const y = scaled('scale', x, factor);
  recordOne('scale', [x], y, (dy) => [scaled('scale backward', dy, factor)]);
  return y;
}

function combine(op: string, a: Tensor, b: Tensor): { y: Tensor; rows: number; groups: Groups } {
  expectDtype(op, 'a', a, 'f32', 'f16', 'bf16');
  expectDtype(op, 'b', b, a.dtype);
  const device = sharedDevice(op, a, b);
  const trailing = a.shape.slice(a.shape.length - b.shape.length);
  if (b.shape.length > a.shape.length || b.shape.some((size, i) => size !== trailing[i]))
    throw new Error(
      `${op}: b has shape ${formatShape(b.shape)}; expected the shape ${formatShape(a.shape)} of a or a trailing part of it`,
    );
  const rows = a.size === 0 ? 0 : a.size / b.size;
  const groups = rows === 1 ? fours(a.dtype) : groupsOf(op, 'b', b, b.size);
  const y = emptyTensor(device, a.shape, a.dtype, op);
  run(op, a, { a, b, y }, groups, b.size);
  return { y, rows, groups };
}

function scaled(op: string, x: Tensor, factor: number): Tensor {
  const y = emptyTensor(x.device, x.shape, x.dtype, op);
  run('scale', x, { a: x, y }, fours(x.dtype), x.size, factor);
  return y;
}

/** `gradient`, a stack of `rows` tensors of the shape of `like`, added up. */
function overRows(op: string, gradient: Tensor, rows: number, like: Tensor): Tensor {
  return rows === 1 && gradient.shape.length === like.shape.length
    ? gradient
    : sumOfRows(op, gradient, rows, gradientSum(like, op));
}

function run(
  entry: string,
  like: Tensor,
  bindings: Record<string, Tensor>,
  { size, parameters }: Groups,
  columns: number,
  factor = 1,
): void {
  const { fields, workgroups } = streaming(like.device, Math.ceil(like.size / size), THREADS);
  const columnGroups = Math.ceil(columns / size) || 1;
  like.device.dispatch({
    kernel,
    entry,
    parameters: { THREADS, ...parameters },
    bindings,
    uniform: { ...fields, columns: columnGroups, columnStep: fields.near % columnGroups, factor },
    workgroups,
    flops: like.size,
  });
}
