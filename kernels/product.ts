/** The matrix product that matmul, linear and blockLinear are made of: operands, row maps, splits, and the kernel for a device. */
import {
  bytesPerElement,
  type DataType,
  type Dispatch,
  emptyTensor,
  type GradientSum,
  gradientSum,
  gridFor,
  type Kernel,
  type Parameters,
  roundUp,
  type Tensor,
} from '../engine/index.ts';
import { cast, type FloatType } from './cast.ts';
import { accumulating, type Epilogue } from './epilogue.ts';
import { type MatmulVariant, matmulKernel, matmulLaunch, matmulSize, splitsOf } from './matmul-variants.ts';
import { expectDtype, storage } from './operand.ts';
import { pad } from './pad.ts';

/** Row r of a matrix is stored row floor(r / length) * stride + offset + r % length. */
type RowMap = Readonly<Record<'length' | 'stride' | 'offset', number>>;

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
  readonly depth: number;
  readonly batches?: number;
  /** The second matrix of a dual product, whose epilogue makes one output of both sums. */
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

type Operands = readonly (Tensor | null | undefined)[];

/** Tensors with their last axes widened with zeros to whole groups of four, in f32 if one of them was not: for rare widths. */
export function wholeGroups<const T extends Operands>(tensors: T): T {
  const width = ({ shape }: Tensor) => shape.at(-1)!;
  if (tensors.every((tensor) => !tensor || width(tensor) % 4 === 0)) return tensors;
  return tensors.map((tensor) => tensor && pad(cast(tensor, 'f32'), roundUp(width(tensor), 4))) as unknown as T;
}

/**
 * Runs an op on operands whose last axes are whole groups of four: `run` gets them widened with zeros, and its results are cut to
 * their widths. A result that is cut is f32 until then. Operands that share a storage come in one list, and still share it.
 */
export function withWholeGroups<const Lists extends readonly Operands[]>(
  lists: Lists,
  results: readonly { readonly width: number; readonly dtype: FloatType }[],
  run: (lists: Lists, dtypes: FloatType[]) => readonly Tensor[],
): Tensor[] {
  const stored = results.map(({ width, dtype }) => (width % 4 === 0 ? dtype : 'f32'));
  const outputs = run(lists.map(wholeGroups) as unknown as Lists, stored);
  return outputs.map((output, i) => cast(pad(output, results[i].width), results[i].dtype));
}

/**
 * The gradient of a weight [out, in] whose rows met the rows of x: the sum of dOutput^T x over all pairs, in order. Each pair is some
 * rows of the gradient of the output with the same rows of x. The sum goes to the gradient of the weight or to the target given.
 */
export function weightGradient(
  pairs: readonly (readonly [dOutput: Matrix, x: Matrix])[],
  weight: Tensor,
  op: string,
  { gradient, accumulate }: GradientSum = gradientSum(weight, op),
): Tensor {
  const output = { tensor: gradient, rows: weight.shape[0] };
  pairs.forEach(([dOutput, x], i) => {
    const a = { ...dOutput, transposed: true };
    encodeProduct({ a, b: x, output, depth: dOutput.rows, accumulate: accumulate || i > 0 }, op);
  });
  return gradient;
}

/** Encodes `product`; the output is written whole, except for stored rows outside its row map. */
export function encodeProduct(product: Product, op: string): void {
  const { a, b, up, output, depth, batches = 1, accumulate = false } = product;
  const { device } = output.tensor;
  const { rows } = output;
  const groups = groupsOf(output);
  const [transposeA, transposeB] = [a.transposed === true, b.transposed === true];
  const sides = up ? 2 : 1;
  const size = matmulSize(rows, groups * 4, batches);
  const key = { a: a.tensor.dtype, b: b.tensor.dtype, transposeA, transposeB, sides, size } as const;
  const variant = matmulLaunch(device, key);
  const sideColumns = sharesTile(variant.kernel) ? variant.tileColumns / sides : variant.tileColumns;
  const tiles = batches * Math.ceil(rows / variant.tileRows) * Math.ceil((groups * 4) / sideColumns);
  // Partial sums are of one product.
  const most = up ? 1 : splitsOf(variant, Math.max(tiles, 1), depth);
  const walk = walkOf(product, most, variant.step);
  const shape = {
    ...{ rows, groups, depth, batches, ...walk },
    ...fieldsOf('a', a, transposeA, walk.runLength),
    ...fieldsOf('b', b, !transposeB, walk.runLength),
  };
  const epilogue = accumulate ? accumulating : product.epilogue;
  const outputs = batches * rows * groups * 4;
  const whole = walk.splits === 1;
  const addition = epilogue ? additionOf(epilogue, outputs, whole ? variant.kernel : matmulKernel) : undefined;
  if (addition && accumulate) addition.bytes += bytesOf(output, batches);
  const partial = whole ? null : emptyTensor(device, [batches * walk.splits, rows, groups * 4], 'f32', op);
  const target = partial ? { tensor: partial, rows: rows * walk.splits, batchRows: rows } : output;
  const now = whole ? addition : undefined;
  device.dispatch({
    kernel: variant.kernel,
    entry: 'product',
    parameters: {
      ...variant.parameters,
      ...(up && { PRODUCTS: 2, readB: 'dual' }),
      ...orientation(transposeA, transposeB, variant),
      ...storageOf(variant.kernel, 'A', key.a),
      ...storageOf(variant.kernel, 'B', key.b),
      ...storage(target.tensor.dtype),
      ...now?.parameters,
    },
    bindings: { a: a.tensor, b: b.tensor, ...(up && { up }), output: target.tensor, ...now?.bindings },
    uniform: { ...shape, ...outputFields(target) },
    workgroups: gridFor(tiles * walk.splits, 1),
    flops: 2 * outputs * depth * sides + (now?.flops ?? 0),
    bytes: bytesOf(a, batches) + sides * bytesOf(b, batches) + bytesOf(target, batches) + (now?.bytes ?? 0),
  });
  if (!partial) return;
  reduceSplits(partial, shape, output, batches, addition);
  device.currentStep(op).release(partial.buffer);
}

/** The epilogue alone, for sums [..., width] in f32 that are there already. */
export function applyEpilogue(sums: Tensor, epilogue: Epilogue, op: string): Tensor {
  const [groups, rows] = [groupsOf({ tensor: sums, rows: 0 }), sums.size / sums.shape.at(-1)!];
  const output = emptyTensor(sums.device, sums.shape, 'f32', op);
  const unused = Object.fromEntries(matmulKernel.structs.get('Shape')!.map(({ name }) => [name, 0]));
  const shape = { ...unused, rows, groups, batches: 1, splits: 1 };
  reduceSplits(sums, shape, { tensor: output, rows }, 1, additionOf(epilogue, sums.size, matmulKernel));
  return output;
}

function reduceSplits(
  partial: Tensor,
  shape: Record<string, number>,
  output: Matrix,
  batches: number,
  addition?: ReturnType<typeof additionOf>,
): void {
  const groups = batches * output.rows * groupsOf(output);
  partial.device.dispatch({
    kernel: matmulKernel,
    entry: 'reduceSplits',
    parameters: { ...storage(output.tensor.dtype), ...addition?.parameters },
    bindings: { partial, output: output.tensor, ...addition?.bindings },
    uniform: { ...shape, ...outputFields(output) },
    workgroups: gridFor(groups, 64),
    flops: partial.size + (addition?.flops ?? 0),
    bytes: partial.byteLength + bytesOf(output, batches) + (addition?.bytes ?? 0),
  });
}

function additionOf(
  { parameters, bindings, flops }: Epilogue,
  outputs: number,
  kernel: Kernel,
): Required<Pick<Dispatch, 'parameters' | 'flops' | 'bytes'>> & { bindings: Readonly<Record<string, Tensor>> } {
  const kept = bindings.preActivation ?? bindings.forwardPreActivation;
  return {
    parameters: {
      ...parameters,
      ...(kept && storageOf(kernel, 'Kept', kept.dtype)),
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

/** The alternatives `storage` of one operand, without those that a kernel made for one storage does not leave open. */
function storageOf({ parameters }: Kernel, operand: 'A' | 'B' | 'Kept', dtype: DataType): Parameters {
  if (dtype === 'f32') return {};
  const open = [operand === 'Kept' ? operand : `Word${operand}`, `unpack${operand}`, `pack${operand}`];
  return Object.fromEntries(open.filter((name) => parameters.includes(name)).map((name) => [name, dtype]));
}

/** The depth in runs, and the runs in at most `most` splits. */
function walkOf(
  { a, b, depth }: Product,
  most: number,
  step: number,
): { runLength: number; runs: number; splitRuns: number; splits: number } {
  const mapped = [...(a.transposed ? [a] : []), ...(b.transposed ? [] : [b])].filter((matrix) => !isOneRun(matrix));
  const piece = Math.max(roundUp(Math.ceil(depth / most), step), step);
  const runLength = mapped.length > 0 ? mapped[0].map!.length : piece;
  const bothByRows = a.transposed && !b.transposed;
  if (mapped.some(({ map }) => map!.length !== runLength) || (mapped.length > 0 && !bothByRows))
    throw new Error('product: a row map along the depth needs both operands stored by its rows, and one length');
  const runs = Math.ceil(depth / runLength);
  const splitRuns = Math.max(1, Math.ceil(runs / most));
  return { runLength, runs, splitRuns, splits: Math.max(1, Math.ceil(runs / splitRuns)) };
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

/** Whether the kernel's threads share a tile in workgroup memory, whose halves are the two sides of a dual product. */
function sharesTile({ parameters }: Kernel): boolean {
  return parameters.includes('placeInA');
}

/** Which way the blocks of 4 x 4 lie in memory; a kernel that shares a tile also hands them to its threads accordingly. */
function orientation(transposeA: boolean, transposeB: boolean, { kernel }: MatmulVariant): Parameters {
  const shared = sharesTile(kernel);
  const transposed = 'transposed';
  return {
    ...(transposeA && { blockOfA: transposed, ...(shared && { placeInA: transposed }) }),
    ...(transposeB && { blockOfB: transposed, ...(shared && { placeInB: transposed }) }),
  };
}
