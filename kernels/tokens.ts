import {
  bytesPerElement,
  type DataType,
  elementCount,
  emptyTensor,
  formatShape,
  loadKernel,
  type Shape,
  type Tensor,
} from '../engine/index.ts';
import { expectLike, recordOne, sharedDevice } from './operand.ts';
import { streaming } from './streaming.ts';

const kernel = await loadKernel(new URL('./tokens.wgsl', import.meta.url));
const THREADS = 64;

/**
 * Sequences laid one after another along the token axis.
 *
 * parts [B, Ta, ...], [B, Tb, ...] ..., alike but for the token axis and in one storage (ids and masks too) -> [B, Ta + Tb + ..., ...].
 * In f16 and bf16 a token has an even number of elements.
 */
export function concatenateTokens(parts: readonly Tensor[]): Tensor {
  const op = 'concatenateTokens';
  if (parts.length === 0) throw new Error(`${op}: no parts; expected at least one`);
  const [first] = parts;
  expectTokens(op, 'parts[0]', first);
  const [batch, , ...token] = first.shape;
  parts.forEach((part, i) => {
    expectLike(op, `parts[${i}]`, part, first.dtype, [batch, null, ...token]);
  });
  const device = sharedDevice(op, ...parts);
  const total = parts.reduce((sum, part) => sum + part.shape[1], 0);
  const y = emptyTensor(device, [batch, total, ...token], first.dtype, op);
  const starts: number[] = [];
  let start = 0;
  for (const part of parts) {
    starts.push(start);
    run('put', part.shape, y.shape, start, first.dtype, { inner: part, outerOut: y });
    start += part.shape[1];
  }
  recordOne(op, parts, y, (dy, wants) =>
    parts.map((part, i) => (wants[i] ? take(`${op} backward`, dy, part.shape, starts[i], 'f32') : null)),
  );
  return y;
}

/**
 * The tokens `start` to `start + length - 1` of each sample.
 *
 * x [B, T, ...] in any storage -> [B, length, ...]. In f16 and bf16 a token has an even number of elements.
 */
export function sliceTokens(x: Tensor, start: number, length: number): Tensor {
  const op = 'sliceTokens';
  expectTokens(op, 'x', x);
  const [batch, tokens, ...token] = x.shape;
  if (!Number.isInteger(start) || !Number.isInteger(length) || start < 0 || length < 0 || start + length > tokens)
    throw new Error(
      `${op}: start ${start} and length ${length} for x ${formatShape(x.shape)}; expected integers within its ${tokens} tokens`,
    );
  const y = take(op, x, [batch, length, ...token], start, x.dtype);
  recordOne(op, [x], y, (dy) => {
    const dx = emptyTensor(x.device, x.shape, 'f32', `${op} backward`);
    run('putAmongZeros', y.shape, x.shape, start, 'f32', { inner: dy, outerOut: dx });
    return [dx];
  });
  return y;
}

function take(op: string, outer: Tensor, shape: Shape, start: number, dtype: DataType): Tensor {
  const piece = emptyTensor(outer.device, shape, dtype, op);
  run('take', shape, outer.shape, start, dtype, { outer, innerOut: piece });
  return piece;
}

/** `start` counts tokens; the grid covers the piece, or the whole where what lies around the piece is written too. */
function run(
  entry: 'put' | 'take' | 'putAmongZeros',
  inner: Shape,
  outer: Shape,
  start: number,
  dtype: DataType,
  bindings: Record<string, Tensor>,
): void {
  const words = wordsOfToken(inner, dtype);
  const size = words % 4 === 0 ? 4 : 1;
  const groups = words / size;
  const [samples] = inner;
  const covered = entry === 'putAmongZeros' ? outer[1] : inner[1];
  const [{ device }] = Object.values(bindings);
  const { fields, workgroups } = streaming(device, covered * groups, THREADS);
  device.dispatch({
    kernel,
    entry,
    parameters: { THREADS, ...(size === 1 && { Word: 'single' }) },
    bindings,
    uniform: { ...fields, outerGroups: outer[1] * groups, innerGroups: inner[1] * groups, start: start * groups },
    workgroups: [workgroups[0], samples],
    bytes: 4 * words * samples * (inner[1] + covered),
  });
}

function wordsOfToken([, , ...token]: Shape, dtype: DataType): number {
  return (elementCount(token) * bytesPerElement[dtype]) / 4;
}

function expectTokens(op: string, argument: string, x: Tensor): void {
  x.assertAlive(op);
  if (x.shape.length < 2)
    throw new Error(`${op}: ${argument} has shape ${formatShape(x.shape)}; expected [batch, tokens, ...]`);
  if (!Number.isInteger(wordsOfToken(x.shape, x.dtype)))
    throw new Error(
      `${op}: ${argument} is ${x.dtype} ${formatShape(x.shape)}; tokens of an odd number of elements are taken in f32 only: cast it`,
    );
}
