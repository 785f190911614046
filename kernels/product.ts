/** The matrix product that matmul, linear and blockLinear are made of: operands, row maps, slices, and the kernel for a device. */
import {
  bytesPerElement,
  type DataType,
  type Dispatch,
  emptyTensor,
  gridFor,
  type Parameters,
  roundUp,
  type Tensor,
} from '../engine/index.ts';
import { cast, type FloatType } from './cast.ts';
import { accumulating, type Epilogue } from './epilogue.ts';
import { type MatmulVariant, matmulKernel, matmulLaunch, matmulSize } from './matmul-variants.ts';
import { expectDtype, storage } from './operand.ts';
import { pad } from './pad.ts';

/** Row r of a matrix is stored row floor(r / length) * stride + offset + r % length. */
interface RowMap {
  readonly length: number;
  readonly stride: number;
  readonly offset: number;
}

/** Matrices as they are stored: `tensor` [..., width], whose width is a multiple of four, holds their rows. */
export interface Matrix {
  readonly tensor: Tensor;
  /** Stored rows of one matrix. */
  readonly rows: number;
  /** Where they are; default: one after another from the first. */
  readonly map?: RowMap;
  /** Stored rows from one matrix of a batch to the next; 0 (default) when there is one for all. */
  readonly batchRows?: number;
}

export interface Product {
  readonly a: Matrix & { transposed?: boolean };
  readonly b: Matrix & { transposed?: boolean };
  readonly output: Matrix;
  /** Terms of each sum. */
  readonly depth: number;
  readonly batches?: number;
  /** The twin of b, for an epilogue that makes one output of both products. */
  readonly up?: Tensor;
  readonly epilogue?: Epilogue | null;
  /** Add to what `output` holds, in f32. Not together with an epilogue. */
  readonly accumulate?: boolean;
}

/** Throws unless the tensor holds fractions; how it stores them. */
export function expectStorage(op: string, argument: string, tensor: Tensor): FloatType {
  expectDtype(op, argument, tensor, 'f32', 'f16', 'bf16');
  return tensor.dtype as FloatType;
}

/** Tensors with their last axes widened with zeros to whole groups of four, in f32 where one of them was not: for rare widths. */
export function inGroups(...tensors: readonly Tensor[]): Tensor[] {
  const width = ({ shape }: Tensor) => shape.at(-1)!;
  if (tensors.every((tensor) => width(tensor) % 4 === 0)) return [...tensors];
  return tensors.map((tensor) => pad(cast(tensor, 'f32'), roundUp(width(tensor), 4)));
}

/** How a result of that width is stored before its last group is cut. */
export function groupStorage(width: number, dtype: FloatType): FloatType {
  return width % 4 === 0 ? dtype : 'f32';
}

/** Encodes `product`; the output is written whole, except for stored rows outside its row map. */
export function multiply(product: Product, op: string): void {
  const { a, b, up, output, depth, batches = 1, accumulate = false } = product;
  const { device } = output.tensor;
  const { rows } = output;
  const groups = groupsOf(output);
  const [transposeA, transposeB] = [a.transposed === true, b.transposed === true];
  const sides = up ? 2 : 1;
  const size = matmulSize(rows, groups * 4, batches);
  const key = { a: a.tensor.dtype, b: b.tensor.dtype, transposeA, transposeB, sides, size } as const;
  const variant = matmulLaunch(device, key);
  const sideColumns = variant.kernel === matmulKernel ? variant.tileColumns / sides : variant.tileColumns;
  const tiles = batches * Math.ceil(rows / variant.tileRows) * Math.ceil((groups * 4) / sideColumns);
  // Partial sums are of one side.
  const wanted = up ? 1 : Math.ceil(variant.workgroups / Math.max(tiles, 1));
  const walk = walkOf(product, wanted, variant);
  const shape = {
    ...{ rows, groups, depth, batches, ...walk },
    ...fieldsOf('a', a, transposeA, walk.runLength),
    ...fieldsOf('b', b, !transposeB, walk.runLength),
  };
  const epilogue = accumulate ? accumulating : product.epilogue;
  const outputs = batches * rows * groups * 4;
  const ending = epilogue ? endingOf(epilogue, outputs) : undefined;
  if (ending && accumulate) ending.bytes += bytesOf(output, batches);
  const whole = walk.slices === 1;
  const partial = whole ? null : emptyTensor(device, [batches * walk.slices, rows, groups * 4], 'f32', op);
  const target = partial ? { tensor: partial, rows: rows * walk.slices, batchRows: rows } : output;
  const now = whole ? ending : undefined;
  device.dispatch({
    kernel: variant.kernel,
    entry: 'product',
    parameters: {
      ...variant.parameters,
      ...(up && { SIDES: 2, readB: 'dual' }),
      ...orientation(transposeA, transposeB, variant),
      ...storageOf('A', key.a),
      ...storageOf('B', key.b),
      ...storage(target.tensor.dtype),
      ...now?.parameters,
    },
    bindings: { a: a.tensor, b: b.tensor, ...(up && { up }), output: target.tensor, ...now?.bindings },
    uniform: { ...shape, ...outputFields(target) },
    workgroups: gridFor(tiles * walk.slices, 1),
    flops: 2 * outputs * depth * sides + (now?.flops ?? 0),
    bytes: bytesOf(a, batches) + sides * bytesOf(b, batches) + bytesOf(target, batches) + (now?.bytes ?? 0),
  });
  if (!partial) return;
  sumSlices(partial, shape, output, batches, ending);
  device.currentStep(op).release(partial.buffer);
}

/** The epilogue alone, for sums [..., width] in f32 that are there already. */
export function finish(sums: Tensor, epilogue: Epilogue, op: string): Tensor {
  const [groups, rows] = [groupsOf({ tensor: sums, rows: 0 }), sums.size / sums.shape.at(-1)!];
  const output = emptyTensor(sums.device, sums.shape, 'f32', op);
  const unused = Object.fromEntries(matmulKernel.structs.get('Shape')!.map(({ name }) => [name, 0]));
  const shape = { ...unused, rows, groups, batches: 1, slices: 1 };
  sumSlices(sums, shape, { tensor: output, rows }, 1, endingOf(epilogue, sums.size));
  return output;
}

function sumSlices(
  partial: Tensor,
  shape: Record<string, number>,
  output: Matrix,
  batches: number,
  ending?: ReturnType<typeof endingOf>,
): void {
  const groups = batches * output.rows * groupsOf(output);
  partial.device.dispatch({
    kernel: matmulKernel,
    entry: 'sumSlices',
    parameters: { ...storage(output.tensor.dtype), ...ending?.parameters },
    bindings: { partial, output: output.tensor, ...ending?.bindings },
    uniform: { ...shape, ...outputFields(output) },
    workgroups: gridFor(groups, 64),
    flops: partial.size + (ending?.flops ?? 0),
    bytes: partial.byteLength + bytesOf(output, batches) + (ending?.bytes ?? 0),
  });
}

/** The additions of an epilogue to a dispatch. */
function endingOf(
  { finish, bindings, flops }: Epilogue,
  outputs: number,
): Required<Pick<Dispatch, 'parameters' | 'flops' | 'bytes'>> & { bindings: Readonly<Record<string, Tensor>> } {
  return {
    parameters: {
      finish: `fn finish(at: u32, group: u32, sum: vec4f, other: vec4f) -> vec4f { ${finish} }`,
      ...(bindings.bias && storageOf('B', bindings.bias.dtype)),
      ...storageOf('Kept', (bindings.keepInner ?? bindings.inner)?.dtype ?? 'f32'),
    },
    bindings,
    flops: flops * outputs,
    // All but the bias lie in the places of the output.
    bytes: Object.entries(bindings).reduce(
      (sum, [name, { dtype, size }]) => sum + bytesPerElement[dtype] * (name === 'bias' ? size : outputs),
      0,
    ),
  };
}

/** The alternatives `storage` of one operand: of WordA and unpackA, of Kept, unpackKept and packKept. */
function storageOf(operand: 'A' | 'B' | 'Kept', dtype: DataType): Parameters {
  if (dtype === 'f32') return {};
  if (operand === 'Kept') return { Kept: dtype, unpackKept: dtype, packKept: dtype };
  return { [`Word${operand}`]: dtype, [`unpack${operand}`]: dtype };
}

/** The depth in runs, and the runs in at most `wanted` slices. */
function walkOf(
  { a, b, depth }: Product,
  wanted: number,
  variant: MatmulVariant,
): { runLength: number; runs: number; sliceRuns: number; slices: number } {
  const most = Math.max(1, Math.min(wanted, Math.floor(depth / variant.sliceDepth)));
  const mapped = [...(a.transposed ? [a] : []), ...(b.transposed ? [] : [b])].filter((matrix) => !isOneRun(matrix));
  const piece = Math.max(roundUp(Math.ceil(depth / most), variant.step), variant.step);
  const runLength = mapped.length > 0 ? mapped[0].map!.length : piece;
  const bothByRows = a.transposed && !b.transposed;
  if (mapped.some(({ map }) => map!.length !== runLength) || (mapped.length > 0 && !bothByRows))
    throw new Error('multiply: a row map along the depth needs both operands stored by its rows, and one length');
  const runs = Math.ceil(depth / runLength);
  const sliceRuns = Math.max(1, Math.ceil(runs / most));
  return { runLength, runs, sliceRuns, slices: Math.max(1, Math.ceil(runs / sliceRuns)) };
}

function isOneRun({ rows, map }: Matrix): boolean {
  return !map || map.length >= rows || map.length === map.stride;
}

/** Bytes of the rows that a product touches, each once. */
function bytesOf({ tensor, rows, batchRows }: Matrix, batches: number): number {
  return bytesPerElement[tensor.dtype] * tensor.shape.at(-1)! * rows * (batchRows ? batches : 1);
}

function groupsOf({ tensor }: Matrix): number {
  return tensor.shape.at(-1)! / 4;
}

/** A matrix without a map is one long run of rows. */
function mapOf({ rows, map }: Pick<Matrix, 'rows' | 'map'>): RowMap {
  return map ?? { length: Math.max(rows, 1), stride: 0, offset: 0 };
}

/** The uniform's fields of an operand; where its rows are the terms of the sums, its map has to follow the runs. */
function fieldsOf(name: 'a' | 'b', matrix: Matrix, alongDepth: boolean, runLength: number): Record<string, number> {
  const given = mapOf(matrix);
  const map = alongDepth && isOneRun(matrix) ? { ...given, length: runLength, stride: runLength } : given;
  const groups = groupsOf(matrix);
  return {
    [`${name}Groups`]: groups,
    [`${name}Batch`]: (matrix.batchRows ?? 0) * groups,
    [`${name}Length`]: map.length,
    [`${name}Stride`]: map.stride,
    [`${name}Offset`]: map.offset,
  };
}

function outputFields(matrix: Matrix): Record<string, number> {
  const { length, stride, offset } = mapOf(matrix);
  const outputBatch = (matrix.batchRows ?? 0) * groupsOf(matrix);
  return { outputBatch, outputLength: length, outputStride: stride, outputOffset: offset };
}

/** Which way the blocks of 4 x 4 lie in memory; matmul.wgsl also hands them to its threads accordingly. */
function orientation(transposeA: boolean, transposeB: boolean, { kernel }: MatmulVariant): Parameters {
  const base = kernel === matmulKernel;
  const transposed = 'transposed';
  return {
    ...(transposeA && { blockOfA: transposed, ...(base && { placeInA: transposed }) }),
    ...(transposeB && { blockOfB: transposed, ...(base && { placeInB: transposed }) }),
  };
}
