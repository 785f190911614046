/** The matrix product that matmul, linear and blockLinear are made of: operands, row maps, slices, and the kernel for a device. */
import {
  bytesPerElement,
  type Device,
  emptyTensor,
  gridFor,
  type Kernel,
  loadKernel,
  type Parameters,
  roundUp,
  type Tensor,
} from '../engine/index.ts';

/** Row r of a matrix is stored row floor(r / length) * stride + offset + r % length. */
export interface RowMap {
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
  /** Added to every row of the output, [width of the output]. */
  readonly bias?: Tensor | null;
  /** Add to what `output` holds. Not together with a bias. */
  readonly accumulate?: boolean;
}

/** A kernel file, and the tile of the output that one of its workgroups makes. */
interface Variant {
  readonly name: string;
  /** Whether the kernel runs on the device and is the one to take there. */
  readonly suits: (device: Device) => boolean;
  readonly kernel: Kernel;
  readonly parameters: Parameters;
  readonly rows: number;
  readonly columns: number;
  /** Terms at a time. */
  readonly step: number;
  /** Workgroups worth having: a product with fewer tiles is cut into slices of at least `sliceDepth` terms. */
  readonly workgroups: number;
  readonly sliceDepth: number;
}

const base: Variant = {
  name: 'base',
  suits: () => true,
  kernel: await loadKernel(new URL('./matmul.wgsl', import.meta.url)),
  parameters: {},
  rows: 64,
  columns: 64,
  step: 16,
  workgroups: 128,
  sliceDepth: 128,
};

const softwareKernel = await loadKernel(new URL('./matmul.software.wgsl', import.meta.url));

function softwareVariant(lanes: number): Variant {
  return {
    name: `software-${lanes}`,
    suits: ({ software, features, subgroupSizes: [least, most] }) =>
      software && features.has('subgroups') && least === lanes && most === lanes,
    kernel: softwareKernel,
    parameters: { LANES: lanes },
    rows: 4 * lanes,
    columns: 4 * lanes,
    step: 4,
    workgroups: 8,
    sliceDepth: 128,
  };
}

/** The first that suits the device is taken. */
const variants: readonly Variant[] = [softwareVariant(8), softwareVariant(4), base];
const chosen = new WeakMap<Device, Variant>();

function variantOf(device: Device): Variant {
  const variant = chosen.get(device) ?? variants.find(({ suits }) => suits(device))!;
  chosen.set(device, variant);
  return variant;
}

/** The names of the kernels for matrix products that suit a device; the first is the one in use unless another was chosen. */
export function matmulVariants(device: Device): string[] {
  return variants.filter(({ suits }) => suits(device)).map(({ name }) => name);
}

/** Takes another kernel for the matrix products of a device: for a tuning file, before the first step, and for comparisons. */
export function useMatmulVariant(device: Device, name: string): void {
  const variant = variants.find((candidate) => candidate.name === name && candidate.suits(device));
  if (!variant)
    throw new Error(
      `useMatmulVariant: no variant '${name}' suits this device; it has ${matmulVariants(device).join(', ')}`,
    );
  chosen.set(device, variant);
}

/** Encodes `product`; the output is written whole, except for stored rows outside its row map. */
export function multiply(product: Product, op: string): void {
  const { a, b, output, depth, batches = 1, accumulate } = product;
  const { device } = output.tensor;
  const variant = variantOf(device);
  const { rows } = output;
  const groups = groupsOf(output);
  const tiles = batches * Math.ceil(rows / variant.rows) * Math.ceil((groups * 4) / variant.columns);
  const walk = walkOf(product, Math.ceil(variant.workgroups / Math.max(tiles, 1)), variant);
  const shape = {
    ...{ rows, groups, depth, batches, ...walk },
    ...fieldsOf('a', a, a.transposed === true, walk.runLength),
    ...fieldsOf('b', b, b.transposed !== true, walk.runLength),
  };
  const { start, bindings } = startOf(product);
  const run = (target: Matrix, start: Parameters, bindings: Record<string, Tensor>) =>
    device.dispatch({
      kernel: variant.kernel,
      entry: 'product',
      parameters: { ...variant.parameters, ...orientation(product), ...start },
      bindings: { a: a.tensor, b: b.tensor, output: target.tensor, ...bindings },
      uniform: { ...shape, ...outputFields(target) },
      workgroups: gridFor(tiles * walk.slices, 1),
      flops: 2 * batches * rows * groups * 4 * depth,
      bytes: [a, b, target, ...(accumulate && target === output ? [output] : [])].reduce(
        (sum, matrix) => sum + bytesOf(matrix, batches),
        0,
      ),
    });

  if (walk.slices === 1) {
    run(output, start, bindings);
    return;
  }
  const partial = emptyTensor(device, [batches * walk.slices, rows, groups * 4], 'f32', op);
  run({ tensor: partial, rows: rows * walk.slices, batchRows: rows }, {}, {});
  device.dispatch({
    kernel: base.kernel,
    entry: 'sumSlices',
    parameters: start,
    bindings: { partial, output: output.tensor, ...bindings },
    uniform: { ...shape, ...outputFields(output) },
    workgroups: gridFor(batches * rows * groups, 64),
    flops: partial.size,
    bytes: partial.byteLength + (accumulate ? 2 : 1) * bytesOf(output, batches),
  });
  device.currentStep(op).release(partial.buffer);
}

/** The depth in runs, and the runs in at most `wanted` slices. */
function walkOf(
  { a, b, depth }: Product,
  wanted: number,
  variant: Variant,
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
export function mapOf({ rows, map }: Pick<Matrix, 'rows' | 'map'>): RowMap {
  return map ?? { length: Math.max(rows, 1), stride: 0, offset: 0 };
}

/** Of an operand; where its rows are the terms of the sums, its map has to follow the runs. */
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

/** The parameters blockOfA and blockOfB, the same in all kernel files. */
function orientation({ a, b }: Product): Parameters {
  const blockOfA =
    'fn blockOfA(rows: vec4u, m: u32, at: Term) -> mat4x4f { return transpose(loadA(termsOfA(at) + m / 4u, eachInRun(at))); }';
  const blockOfB =
    'fn blockOfB(rows: vec4u, n: u32, at: Term) -> mat4x4f { return transpose(loadB(rows + groupOf(at), inRun(at))); }';
  return { ...(a.transposed && { blockOfA }), ...(b.transposed && { blockOfB }) };
}

function startOf({ bias, accumulate }: Product): { start: Parameters; bindings: Record<string, Tensor> } {
  const starting = (value: string) => ({ start: `fn start(at: u32, group: u32) -> vec4f { return ${value}; }` });
  if (bias) return { start: starting('bias[group]'), bindings: { bias } };
  return { start: accumulate ? starting('output[at]') : {}, bindings: {} };
}
