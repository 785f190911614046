/**
 * A recorded step made ready to run again and again: every allocation has its place, every dispatch its bind group. A run goes down
 * one list; WebGPU objects made for it are an encoder, its passes and a command buffer.
 */
import { bindGroup, encode, type Operation, slotBytes, withRanges } from './commands.ts';
import type { Device } from './device.ts';
import { ALIGNMENT, type BufferRange } from './memory.ts';
import type { Pace } from './pace.ts';
import { accessesOf, Placement, type ReplayedOperation } from './placement.ts';
import type { Allocation, Phase, RecordedDispatch, Recorder } from './recorder.ts';

/** One operation of a captured step, for people and files. */
export interface ListedOperation {
  readonly phase: Phase;
  /** Kernel and entry point, 'copy' or 'clear'. */
  readonly operation: string;
  /** The values that the kernel was specialised with. */
  readonly parameters?: RecordedDispatch['parameters'];
  readonly grid?: readonly number[];
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
  /** Which allocation of the arenas: others may lie in the same bytes before and after. */
  readonly allocation?: number;
  /** Bytes from the start of the arena or buffer. */
  readonly offset: number;
}

export interface StepStatistics {
  readonly dispatches: number;
  readonly submits: number;
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

/** The operations of one submit. */
interface Batch {
  readonly what: string;
  readonly operations: readonly Operation<BufferRange>[];
}

export class Replay {
  private readonly placement: Placement;
  private readonly uniforms: GPUBuffer;
  private readonly placed: readonly Operation<BufferRange>[];
  private batches: readonly Batch[];
  private measured = false;
  /** One for each dispatch. */
  private readonly groups: readonly GPUBindGroup[];
  private readonly workgroups: number;
  private readonly flops: number;
  private readonly bytes: number;
  private encodingMilliseconds = 0;

  /** `kept`: the buffers of what outlives the step. */
  constructor(
    private readonly device: Device,
    private readonly recorder: Recorder,
    kept: ReadonlyMap<Allocation, GPUBuffer>,
  ) {
    this.placement = new Placement(device, recorder, kept);
    const dispatches = this.placement.operations.filter((operation) => operation.kind === 'dispatch');
    this.workgroups = dispatches.reduce((sum, { grid: [x, y, z] }) => sum + x * y * z, 0);
    this.flops = dispatches.reduce((sum, { cost }) => sum + cost.flops, 0);
    this.bytes = dispatches.reduce((sum, { cost }) => sum + cost.bytes, 0);
    const uniformBytes = dispatches.reduce((sum, dispatch) => sum + slotBytes(dispatch), 0);
    this.uniforms = device.memory.uniform(Math.max(uniformBytes, ALIGNMENT), `${recorder.name}, op parameters`);
    const slots = new Uint8Array(this.uniforms.size);
    this.placed = this.placement.operations.map((operation) =>
      withRanges(operation, (range) => this.placement.range(range)),
    );
    this.groups = device.errors.checked(`${recorder.name}: bind groups`, () => this.prepare(this.placed, slots));
    device.write({ buffer: this.uniforms, offset: 0, byteLength: slots.byteLength }, slots);
    this.batches = inBatches(recorder.name, this.placed, device.pace, 1);
  }

  run(): void {
    const { device } = this;
    for (const { allocation, write } of this.recorder.hostComputed)
      write({ buffer: this.placement.home(allocation), offset: 0, byteLength: allocation.bytes });
    const start = performance.now();
    let next = 0;
    const groupOf = () => this.groups[next++];
    for (const { what, operations } of this.batches)
      device.submit(what, (encoder) => encode(encoder, operations, groupOf, device.encoder.profiler));
    this.encodingMilliseconds = performance.now() - start;
    // Whoever waits for the run gets the error.
    if (!this.measured && Number.isFinite(device.pace.limit)) void this.measure(start).catch(() => {});
    device.dispatches += this.groups.length;
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
          ...(place && { arena: place.arena, allocation: place.allocation }),
          offset: this.placement.range(range).offset,
        };
      });
      const { phase } = operation;
      if (operation.kind === 'copy') return { phase, operation: 'copy', bytes: 2 * operation.bytes, bindings };
      if (operation.kind === 'clear')
        return { phase, operation: 'clear', bytes: operation.target.byteLength, bindings };
      const { label, parameters, grid, cost } = operation;
      return { phase, operation: label, parameters, grid, ...cost, bindings };
    });
  }

  statistics(): Omit<StepStatistics, 'hostMilliseconds'> {
    const { plan, constantBytes } = this.placement;
    return {
      dispatches: this.groups.length,
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

  /** The first run, cut by an estimate of its time, says how long it really takes, and later runs are cut by that. */
  private async measure(start: number): Promise<void> {
    this.measured = true;
    const { device, recorder, flops, bytes } = this;
    await device.errors.settle(device.gpu.queue.onSubmittedWorkDone());
    const seconds = (performance.now() - start) / 1000;
    this.batches = inBatches(recorder.name, this.placed, device.pace, seconds / device.pace.estimate({ flops, bytes }));
  }

  /** Makes the bind groups and puts the op parameters into `slots`, which is to be written to `uniforms`. */
  private prepare(operations: readonly Operation<BufferRange>[], slots: Uint8Array): GPUBindGroup[] {
    let offset = 0;
    return operations.flatMap((operation) => {
      if (operation.kind !== 'dispatch') return [];
      const group = bindGroup(this.device.gpu, operation, this.uniforms, offset);
      if (operation.uniform) slots.set(new Uint8Array(operation.uniform.bytes), offset);
      offset += slotBytes(operation);
      return [group];
    });
  }
}

/** Cuts the list before each dispatch that would take too long with those before it, `slowness` times as long as by the estimate. */
function inBatches(name: string, operations: readonly Operation<BufferRange>[], pace: Pace, slowness: number): Batch[] {
  const batches: Batch[] = [];
  let batch: Operation<BufferRange>[] = [];
  let first = 1;
  let dispatches = 0;
  let seconds = 0;
  const finish = () => {
    const last = batch.findLast((operation) => operation.kind === 'dispatch');
    const range = `dispatches ${first} to ${first + dispatches - 1}`;
    const what = last ? `${name}, ${range}, the last ${last.label}` : name;
    batches.push({ what, operations: batch });
    batch = [];
    first += dispatches;
    dispatches = 0;
    seconds = 0;
  };
  for (const operation of operations) {
    if (operation.kind === 'dispatch') {
      const own = slowness * pace.estimate(operation.cost);
      if (dispatches > 0 && seconds + own > pace.limit) finish();
      dispatches += 1;
      seconds += own;
    }
    batch.push(operation);
  }
  finish();
  return batches;
}
