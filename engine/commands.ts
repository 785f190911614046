/** Commands for the GPU: what a device hands to its sink, and how a list of them is encoded. */
import type { Parameters, UniformData } from './kernel.ts';
import { ALIGNMENT, type BufferRange, roundUp } from './memory.ts';
import type { DispatchWork, Profiler } from './profile.ts';

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
  readonly pipeline: GPUComputePipeline;
  readonly bindings: readonly Binding<Range>[];
  readonly uniform: UniformData | null;
  readonly grid: readonly [number, number, number];
  readonly cost: { readonly flops: number; readonly bytes: number };
}

/** A command over ranges of memory: of buffers, or of what a recorder has in place of them. */
export type Operation<Range> =
  | DispatchOperation<Range>
  | { readonly kind: 'copy'; readonly source: Range; readonly target: Range; readonly bytes: number }
  | { readonly kind: 'clear'; readonly target: Range };

/** Where the commands of a device go: to the queue (encoder.ts), or into the list of a captured step (recorder.ts). */
export interface CommandSink {
  dispatch(operation: DispatchOperation<BufferRange>): void;
  copy(source: BufferRange, target: BufferRange, bytes: number): void;
  clear(target: BufferRange): void;
  write(target: BufferRange, data: Uint8Array<ArrayBuffer>): void;
}

/** An operation with its bind group, as often as it is encoded. */
export type Command =
  | {
      readonly kind: 'dispatch';
      readonly work: DispatchWork;
      readonly pipeline: GPUComputePipeline;
      readonly group: GPUBindGroup;
      readonly grid: readonly [number, number, number];
    }
  | Exclude<Operation<BufferRange>, { kind: 'dispatch' }>;

/** Makes the bind groups of `operations` and puts their op parameters into `slots`, which is to be written to `uniforms`. */
export function prepare<Range>(
  gpu: GPUDevice,
  operations: readonly Operation<Range>[],
  place: (range: Range) => BufferRange,
  uniforms: GPUBuffer,
  slots: Uint8Array,
): Command[] {
  let used = 0;
  return operations.map((operation): Command => {
    if (operation.kind === 'clear') return { kind: 'clear', target: place(operation.target) };
    if (operation.kind === 'copy') {
      const { source, target, bytes } = operation;
      return { kind: 'copy', source: place(source), target: place(target), bytes };
    }
    const { label, pipeline, uniform, grid, cost } = operation;
    const group = bindGroup(gpu, operation, place, uniforms, used);
    if (uniform) slots.set(new Uint8Array(uniform.bytes), used);
    used += slotBytes(uniform);
    return {
      kind: 'dispatch',
      work: { label, workgroups: grid[0] * grid[1] * grid[2], ...cost },
      pipeline,
      group,
      grid,
    };
  });
}

/** The bind group of a dispatch whose op parameters lie at `offset` of `uniforms`. */
export function bindGroup<Range>(
  gpu: GPUDevice,
  { label, pipeline, bindings, uniform }: DispatchOperation<Range>,
  place: (range: Range, binding: number) => BufferRange,
  uniforms: GPUBuffer,
  offset: number,
): GPUBindGroup {
  const entries = bindings.map(({ index, range }, i): GPUBindGroupEntry => {
    const { buffer, offset, byteLength } = place(range, i);
    return { binding: index, resource: { buffer, offset, size: byteLength } };
  });
  if (uniform) {
    const resource = { buffer: uniforms, offset, size: uniform.bytes.byteLength };
    entries.push({ binding: uniform.index, resource });
  }
  return gpu.createBindGroup({ label, layout: pipeline.getBindGroupLayout(0), entries });
}

/** The room of a dispatch's op parameters. */
export function slotBytes(uniform: UniformData | null): number {
  return uniform ? roundUp(uniform.bytes.byteLength, ALIGNMENT) : 0;
}

/** Encodes in one pass between copies; a profiled dispatch has a pass of its own. */
export function encode(encoder: GPUCommandEncoder, commands: readonly Command[], profiler: Profiler | null): void {
  let pass: GPUComputePassEncoder | null = null;
  let current: GPUComputePipeline | null = null;
  const endPass = () => {
    pass?.end();
    pass = null;
    current = null;
  };
  for (const command of commands) {
    if (command.kind === 'dispatch') {
      const { pipeline, group, grid } = command;
      const [x, y, z] = grid;
      if (profiler) endPass();
      pass ??= encoder.beginComputePass(profiler ? { timestampWrites: profiler.next(command.work) } : undefined);
      if (pipeline !== current) pass.setPipeline(pipeline);
      current = pipeline;
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(x, y, z);
      continue;
    }
    endPass();
    const { target } = command;
    if (command.kind === 'clear') encoder.clearBuffer(target.buffer, target.offset, target.byteLength);
    else {
      const { source, bytes } = command;
      encoder.copyBufferToBuffer(source.buffer, source.offset, target.buffer, target.offset, bytes);
    }
  }
  endPass();
}
