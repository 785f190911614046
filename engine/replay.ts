/**
 * A recorded step made ready to run again and again: every allocation has its place, every dispatch its bind group. A run goes down
 * one list; WebGPU objects made for it are an encoder, its passes and a command buffer.
 */
import type { Device } from './device.ts';
import type { UniformData } from './kernel.ts';
import { ALIGNMENT, type BufferRange, roundUp } from './memory.ts';
import { accessesOf, Placement, type ReplayedOperation } from './placement.ts';
import type { DispatchWork } from './profile.ts';
import type { Allocation, RecordedDispatch, Recorder } from './recorder.ts';

type Command =
  | {
      readonly kind: 'dispatch';
      readonly work: DispatchWork;
      readonly pipeline: GPUComputePipeline;
      readonly group: GPUBindGroup;
      readonly grid: readonly [number, number, number];
    }
  | { readonly kind: 'copy'; readonly source: BufferRange; readonly target: BufferRange; readonly bytes: number }
  | { readonly kind: 'clear'; readonly target: BufferRange };

/** One operation of a captured step, for people and files. */
export interface ListedOperation {
  /** Kernel and entry point, 'copy' or 'clear'. */
  readonly operation: string;
  /** The values that the kernel was specialised with. */
  readonly parameters?: RecordedDispatch['parameters'];
  /** Workgroups on three axes. */
  readonly grid?: readonly number[];
  /** By the kernel's cost model. */
  readonly flops?: number;
  /** By the kernel's cost model; of copies and clears, what they move. */
  readonly bytes: number;
  readonly bindings: readonly ListedBinding[];
}

export interface ListedBinding {
  readonly name: string;
  readonly access: 'read' | 'read_write';
  readonly bytes: number;
  /** The op that made the tensor, or the label of a buffer that outlives the step. */
  readonly tensor: string;
  /** The arena it lies in; without, a buffer of its own. */
  readonly arena?: number;
  /** Bytes from the start of the arena or buffer. */
  readonly offset: number;
}

export interface StepStatistics {
  readonly dispatches: number;
  readonly submits: number;
  /** The size of each arena. */
  readonly arenaBytes: readonly number[];
  /** The largest sum of bytes in arenas that are in use at one operation: no plan takes less. */
  readonly lowerBoundBytes: number;
  /** Numbers that the host wrote in the first run, the same in all others. */
  readonly constantBytes: number;
  /** The host's time for the last run: to compute and write its numbers, to encode and to submit. */
  readonly hostMilliseconds: number;
  /** The part of it to encode and to submit. */
  readonly encodingMilliseconds: number;
}

/** The commands of one submit. */
interface Batch {
  /** In error messages. */
  readonly what: string;
  readonly commands: readonly Command[];
}

export class Replay implements Disposable {
  private readonly placement: Placement;
  private readonly uniforms: GPUBuffer;
  private readonly batches: readonly Batch[];
  private readonly dispatches: number;
  private readonly workgroups: number;
  private readonly flops: number;
  private readonly bytes: number;
  private encodingMilliseconds = 0;

  /** `kept`: the buffers of what outlives the step. A submit takes at most `most` dispatches. */
  constructor(
    private readonly device: Device,
    private readonly recorder: Recorder,
    kept: ReadonlyMap<Allocation, GPUBuffer>,
    most: number,
  ) {
    this.placement = new Placement(device, recorder, kept);
    const dispatches = this.placement.operations.filter((operation) => operation.kind === 'dispatch');
    this.dispatches = dispatches.length;
    this.workgroups = dispatches.reduce((sum, { grid: [x, y, z] }) => sum + x * y * z, 0);
    this.flops = dispatches.reduce((sum, { cost }) => sum + cost.flops, 0);
    this.bytes = dispatches.reduce((sum, { cost }) => sum + cost.bytes, 0);
    const uniformBytes = dispatches.reduce((sum, { uniform }) => sum + slotBytes(uniform), 0);
    this.uniforms = device.memory.uniform(Math.max(uniformBytes, ALIGNMENT), `${recorder.name}, op parameters`);
    const slots = new Uint8Array(this.uniforms.size);
    const commands = device.answers.checked(`${recorder.name}: bind groups`, () => this.prepare(slots));
    device.write({ buffer: this.uniforms, offset: 0, byteLength: slots.byteLength }, slots);
    this.batches = inBatches(recorder.name, commands, most);
  }

  /** Encodes and submits one run. */
  run(): void {
    const { device } = this;
    for (const { allocation, write } of this.recorder.hostComputed)
      write({ buffer: this.placement.home(allocation), offset: 0, byteLength: allocation.bytes });
    const start = performance.now();
    for (const { what, commands } of this.batches) device.submit(what, (encoder) => this.encode(encoder, commands));
    this.encodingMilliseconds = performance.now() - start;
    device.dispatches += this.dispatches;
    device.workgroups += this.workgroups;
    device.flops += this.flops;
    device.bytes += this.bytes;
  }

  get operations(): readonly ReplayedOperation[] {
    return this.placement.operations;
  }

  list(): ListedOperation[] {
    return this.placement.operations.map((operation) => {
      const bindings = accessesOf(operation).map(({ name, access, range }): ListedBinding => {
        const place = this.placement.place(range.memory);
        return {
          ...{ name, access, bytes: range.byteLength, tensor: range.memory.label },
          ...(place && { arena: place.arena }),
          offset: this.placement.range(range).offset,
        };
      });
      if (operation.kind === 'copy') return { operation: 'copy', bytes: 2 * operation.bytes, bindings };
      if (operation.kind === 'clear') return { operation: 'clear', bytes: operation.target.byteLength, bindings };
      const { parameters, grid, cost } = operation;
      return { operation: labelOf(operation), parameters, grid, ...cost, bindings };
    });
  }

  statistics(): Omit<StepStatistics, 'hostMilliseconds'> {
    const { plan, constantBytes } = this.placement;
    return {
      dispatches: this.dispatches,
      submits: this.batches.length,
      arenaBytes: plan.arenaBytes,
      lowerBoundBytes: plan.lowerBoundBytes,
      constantBytes,
      encodingMilliseconds: this.encodingMilliseconds,
    };
  }

  dispose(): void {
    this.placement.dispose();
    this.device.memory.free(this.uniforms);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** Makes the bind groups and puts the op parameters into `slots`. */
  private prepare(slots: Uint8Array): Command[] {
    const { device, placement, uniforms } = this;
    let used = 0;
    return placement.operations.map((operation): Command => {
      if (operation.kind === 'clear') return { kind: 'clear', target: placement.range(operation.target) };
      if (operation.kind === 'copy') {
        const { source, target, bytes } = operation;
        return { kind: 'copy', source: placement.range(source), target: placement.range(target), bytes };
      }
      const { pipeline, bindings, uniform, grid } = operation;
      const entries: GPUBindGroupEntry[] = bindings.map(({ index, range }) => {
        const { buffer, offset, byteLength } = placement.range(range);
        return { binding: index, resource: { buffer, offset, size: byteLength } };
      });
      if (uniform) {
        slots.set(new Uint8Array(uniform.bytes), used);
        const resource = { buffer: uniforms, offset: used, size: uniform.bytes.byteLength };
        entries.push({ binding: uniform.index, resource });
        used += slotBytes(uniform);
      }
      const label = labelOf(operation);
      const group = device.gpu.createBindGroup({ label, layout: pipeline.getBindGroupLayout(0), entries });
      const work = { label, workgroups: grid[0] * grid[1] * grid[2], ...operation.cost };
      return { kind: 'dispatch', work, pipeline, group, grid };
    });
  }

  private encode(encoder: GPUCommandEncoder, commands: readonly Command[]): void {
    const { profiler } = this.device;
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
}

function labelOf({ kernel, entry }: RecordedDispatch): string {
  return `${kernel.name} ${entry}`;
}

function slotBytes(uniform: UniformData | null): number {
  return uniform ? roundUp(uniform.bytes.byteLength, ALIGNMENT) : 0;
}

/** Cuts the list before each dispatch that would be one too many. */
function inBatches(name: string, commands: readonly Command[], most: number): Batch[] {
  const batches: Batch[] = [];
  let batch: Command[] = [];
  let first = 1;
  let dispatches = 0;
  const finish = () => {
    const last = batch.findLast((command) => command.kind === 'dispatch');
    const range = `dispatches ${first} to ${first + dispatches - 1}`;
    const what = last ? `${name}, ${range}, the last ${last.work.label}` : name;
    batches.push({ what, commands: batch });
    batch = [];
    first += dispatches;
    dispatches = 0;
  };
  for (const command of commands) {
    if (command.kind === 'dispatch' && dispatches === most) finish();
    if (command.kind === 'dispatch') dispatches += 1;
    batch.push(command);
  }
  finish();
  return batches;
}
