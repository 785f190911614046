/** The matrix product that matmul, linear and blockLinear are made of: operands, row maps, slices and the choice of the kernel. */
import {
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

/** A kernel file and the tile of the output that one of its workgroups makes. */
interface Variant {
  readonly kernel: Kernel;
  readonly parameters: Parameters;
  readonly rows: number;
  readonly columns: number;
  readonly step: number;
  /** Workgroups worth having: a product with fewer tiles cuts its sums into slices of at least `sliceDepth` terms. */
  readonly workgroups: number;
  readonly sliceDepth: number;
}

const base: Variant = {
  kernel: await loadKernel(new URL('./matmul.wgsl', import.meta.url)),
  parameters: {},
  rows: 64,
  columns: 64,
  step: 16,
  workgroups: 128,
  sliceDepth: 128,
};

function variantOf(_device: Device): Variant {
  return base;
}

/** Encodes `product`; the output is written whole, except for stored rows outside its row map. */
export function multiply(product: Product, op: string): void {
  const { a, b, output, depth, batches = 1 } = product;
  const { device } = output.tensor;
  const variant = variantOf(device);
  const { rows } = output;
  const groups = groupsOf(output);
  const tiles = batches * Math.ceil(rows / variant.rows) * Math.ceil((groups * 4) / variant.columns);
  const wanted = Math.min(Math.ceil(variant.workgroups / tiles), Math.floor(depth / variant.sliceDepth));
  const sliceDepth = roundUp(Math.ceil(depth / Math.max(wanted, 1)), variant.step);
  const slices = Math.max(Math.ceil(depth / sliceDepth) || 0, 1);
  const shape = { rows, groups, depth, batches, slices, sliceDepth, ...fieldsOf('a', a), ...fieldsOf('b', b) };
  const wholeOutput = outputFields(output);
  const { start, bindings } = startOf(product);
  const run = (target: Tensor, place: Record<string, number>, start: Parameters, bindings: Record<string, Tensor>) =>
    device.dispatch({
      kernel: variant.kernel,
      entry: 'product',
      parameters: { ...variant.parameters, ...orientation(product), ...start },
      bindings: { a: a.tensor, b: b.tensor, output: target, ...bindings },
      uniform: { ...shape, ...place },
      workgroups: gridFor(tiles * slices, 1),
    });

  if (slices === 1) {
    run(output.tensor, wholeOutput, start, bindings);
    return;
  }
  const partial = emptyTensor(device, [batches * slices, rows, groups * 4], 'f32', op);
  run(partial, outputFields({ tensor: partial, rows, batchRows: rows }), {}, {});
  device.dispatch({
    kernel: base.kernel,
    entry: 'sumSlices',
    parameters: start,
    bindings: { partial, output: output.tensor, ...bindings },
    uniform: { ...shape, ...wholeOutput },
    workgroups: gridFor(batches * rows * groups, 64),
  });
  device.currentStep(op).release(partial.buffer);
}

function groupsOf({ tensor }: Matrix): number {
  return tensor.shape.at(-1)! / 4;
}

/** A matrix without a map is one long run of rows. */
export function mapOf({ rows, map }: Pick<Matrix, 'rows' | 'map'>): RowMap {
  return map ?? { length: Math.max(rows, 1), stride: 0, offset: 0 };
}

function fieldsOf(name: 'a' | 'b', matrix: Matrix): Record<string, number> {
  const { length, stride, offset } = mapOf(matrix);
  const groups = groupsOf(matrix);
  return {
    [`${name}Rows`]: matrix.rows,
    [`${name}Groups`]: groups,
    [`${name}Batch`]: (matrix.batchRows ?? 0) * groups,
    [`${name}Length`]: length,
    [`${name}Stride`]: stride,
    [`${name}Offset`]: offset,
  };
}

function outputFields(matrix: Matrix): Record<string, number> {
  const { length, stride, offset } = mapOf(matrix);
  const outputBatch = (matrix.batchRows ?? 0) * groupsOf(matrix);
  return { outputBatch, outputLength: length, outputStride: stride, outputOffset: offset };
}

function orientation({ a, b }: Product): Parameters {
  const blockOfA =
    'fn blockOfA(batch: u32, m: u32, k: u32) -> mat4x4f { return transpose(storedA(batch, k, m / 4u)); }';
  const blockOfB =
    'fn blockOfB(batch: u32, k: u32, n: u32) -> mat4x4f { return transpose(storedB(batch, n, k / 4u)); }';
  return { ...(a.transposed && { blockOfA }), ...(b.transposed && { blockOfB }) };
}

function startOf({ bias, accumulate }: Product): { start: Parameters; bindings: Record<string, Tensor> } {
  const starting = (value: string) => ({ start: `fn start(at: u32, group: u32) -> vec4f { return ${value}; }` });
  if (bias) return { start: starting('bias[group]'), bindings: { bias } };
  return { start: accumulate ? starting('output[at]') : {}, bindings: {} };
}
