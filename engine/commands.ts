/** Operations of the GPU: what a device hands to its sink, and how a list of them is encoded. */
import type { Kernel, Parameters, UniformData } from './kernel.ts';
import { ALIGNMENT, type BufferRange, roundUp } from './memory.ts';
import type { Pipeline } from './pipelines.ts';
import type { Profiler } from './profile.ts';

/** What an op asks for. */
export interface Dispatch {
  kernel: Kernel;
  entry: string;
  parameters?: Parameters;
  /** By their names in the `.wgsl` file; every storage binding that the entry point uses. */
  bindings: Readonly<Record<string, BufferRange>>;
  uniform?: Readonly<Record<string, number>>;
  workgroups: readonly [number, number?, number?];
  /** Cost model: arithmetic operations, an exponential or a division counted as one; default 0, for work that only moves bytes. */
  flops?: number;
  /** Cost model: bytes that have to move; default every binding once. */
  bytes?: number;
}

export interface Binding<Range> {
  readonly name: string;
  readonly index: number;
  readonly access: 'read' | 'read_write';
  readonly range: Range;
}

export interface DispatchOperation<Range> {
  readonly kind: 'dispatch';
  /** Kernel and entry point. */
  readonly label: string;
  readonly parameters: Parameters;
  readonly pipeline: Pipeline;
  readonly bindings: readonly Binding<Range>[];
  /** The op parameters: one of these, or neither. */
  readonly uniform: UniformData | null;
  readonly immediates: ArrayBuffer | null;
  readonly grid: readonly [number, number, number];
  readonly cost: { readonly flops: number; readonly bytes: number };
}

/** An operation over ranges of memory: of buffers, or of what a recorder has in place of them. */
export type Operation<Range> =
  | DispatchOperation<Range>
  | { readonly kind: 'copy'; readonly source: Range; readonly target: Range; readonly bytes: number }
  | { readonly kind: 'clear'; readonly target: Range };

/** Where the operations of a device go: to the queue (encoder.ts), or into the list of a captured step (recorder.ts). */
export interface CommandSink {
  add(operation: Operation<BufferRange>): void;
  /** Writes from the host, in order with the operations. */
  write(target: BufferRange, data: Uint8Array<ArrayBuffer>): void;
}

export function withRanges<From, To>(operation: Operation<From>, change: (range: From) => To): Operation<To> {
  if (operation.kind === 'clear') return { kind: 'clear', target: change(operation.target) };
  if (operation.kind === 'copy')
    return { ...operation, source: change(operation.source), target: change(operation.target) };
  return { ...operation, bindings: operation.bindings.map((own) => ({ ...own, range: change(own.range) })) };
}

/** The bind group of a dispatch whose op parameters lie at `offset` of `uniforms`. */
export function bindGroup(
  gpu: GPUDevice,
  { label, pipeline, bindings, uniform }: DispatchOperation<BufferRange>,
  uniforms: GPUBuffer,
  offset: number,
): GPUBindGroup {
  const entries = bindings.map(({ index, range: { buffer, offset, byteLength } }): GPUBindGroupEntry => {
    return { binding: index, resource: { buffer, offset, size: byteLength } };
  });
  if (uniform) {
    const resource = { buffer: uniforms, offset, size: uniform.bytes.byteLength };
    entries.push({ binding: uniform.index, resource });
  }
  return gpu.createBindGroup({ label, layout: pipeline.groupLayout, entries });
}

/** The room of a dispatch's op parameters in a uniform buffer. */
export function slotBytes({ uniform }: DispatchOperation<unknown>): number {
  return uniform ? roundUp(uniform.bytes.byteLength, ALIGNMENT) : 0;
}

/**
 * Encodes in one pass between copies; a profiled dispatch has a pass of its own. `groupOf` gives the bind group of each dispatch, in
 * their order. No list holds those of an eager op, which are made here one by one: the collector then finds them while they are young,
 * before they use up the driver's memory mappings.
 */
export function encode(
  encoder: GPUCommandEncoder,
  operations: readonly Operation<BufferRange>[],
  groupOf: (dispatch: DispatchOperation<BufferRange>) => GPUBindGroup,
  profiler: Profiler | null,
): void {
  let pass: GPUComputePassEncoder | null = null;
  let current: Pipeline | null = null;
  const endPass = () => {
    pass?.end();
    pass = null;
    current = null;
  };
  for (const operation of operations) {
    if (operation.kind === 'dispatch') {
      const { label, pipeline, immediates, grid, cost } = operation;
      const [x, y, z] = grid;
      if (profiler) endPass();
      pass ??= encoder.beginComputePass(
        profiler ? { timestampWrites: profiler.next({ label, workgroups: x * y * z, ...cost }) } : undefined,
      );
      if (pipeline !== current) pass.setPipeline(pipeline.compiled);
      current = pipeline;
      pass.setBindGroup(0, groupOf(operation));
      if (immediates) pass.setImmediates(0, immediates);
      pass.dispatchWorkgroups(x, y, z);
      continue;
    }
    endPass();
    const { target } = operation;
    if (operation.kind === 'clear') encoder.clearBuffer(target.buffer, target.offset, target.byteLength);
    else {
      const { source, bytes } = operation;
      encoder.copyBufferToBuffer(source.buffer, source.offset, target.buffer, target.offset, bytes);
    }
  }
  endPass();
}
