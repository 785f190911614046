/**
 * A step's commands, recorded instead of encoded: a flat list of operations over allocations. Memory that the step takes is an
 * allocation, in no buffer yet; a buffer that it did not take outlives it and stands for itself.
 */
import { type CommandSink, type DispatchOperation, type Operation, withRanges } from './commands.ts';
import type { BufferRange } from './memory.ts';
import type { BufferSource } from './running-step.ts';

/** Step memory from one `take` on. */
export class Allocation {
  constructor(
    readonly label: string,
    readonly bytes: number,
  ) {}
}

/** Part of an allocation, or of a buffer that outlives the step. */
export interface RecordedRange {
  readonly memory: Allocation | GPUBuffer;
  readonly offset: number;
  readonly byteLength: number;
}

/** The part of training that an operation belongs to; `recompute` is forward work that backward does again (recompute.ts). */
export type Phase = 'forward' | 'backward' | 'recompute' | 'update';

export type RecordedDispatch = DispatchOperation<RecordedRange>;
export type RecordedOperation = { readonly phase: Phase } & (
  | Operation<RecordedRange>
  | { readonly kind: 'write'; readonly target: RecordedRange; readonly data: Uint8Array<ArrayBuffer> }
);

/** Numbers that the host computes anew for every run, and their place. */
interface HostComputed {
  readonly allocation: Allocation;
  /** Computes the numbers and writes them to where the allocation lies. */
  readonly write: (place: BufferRange) => void;
}

export class Recorder implements BufferSource, CommandSink {
  readonly operations: RecordedOperation[] = [];
  readonly hostComputed: HostComputed[] = [];
  /** The phase of the operations to come. */
  phase: Phase = 'forward';
  private readonly allocations = new Map<GPUBuffer, Allocation>();
  /** Allocations that hold what the host wrote, the same in every run. */
  private readonly constants = new Set<Allocation>();

  constructor(
    /** The captured step, in error messages. */
    readonly name: string,
    /** Buffers made since the recording began: what is written to them first is their beginning, and not part of the step. */
    private readonly made: ReadonlySet<GPUBuffer>,
    private readonly encoder: CommandSink,
  ) {}

  /**
   * Step memory without any, which is never given back: nothing runs while a step is recorded, so all that is asked of a buffer is
   * which one it is.
   */
  take(bytes: number, label: string): GPUBuffer {
    const buffer = { label, size: bytes } as GPUBuffer;
    this.allocations.set(buffer, new Allocation(label, bytes));
    return buffer;
  }

  give(): void {}

  add(operation: Operation<BufferRange>): void {
    this.operations.push({ phase: this.phase, ...withRanges(operation, (range) => this.range(range)) });
  }

  /**
   * Numbers for step memory are part of the step; those of a buffer that it makes are written at once.
   *
   * Throws where they would outlive the step: it is not run again for new ones.
   */
  write(target: BufferRange, data: Uint8Array<ArrayBuffer>): void {
    const allocation = this.allocations.get(target.buffer);
    if (allocation) {
      this.constants.add(allocation);
      this.operations.push({ phase: this.phase, kind: 'write', target: this.range(target), data: data.slice() });
    } else if (this.made.has(target.buffer)) this.encoder.write(target, data);
    else
      throw new Error(
        `write: '${target.buffer.label}' outlives ${this.name}, which would write the numbers of its first run for ever; give them to run as an input`,
      );
  }

  /** The numbers just written to `buffer` are computed and written before every run. */
  hostComputes(buffer: GPUBuffer, write: (place: BufferRange) => void): void {
    const allocation = this.allocations.get(buffer)!;
    this.operations.pop();
    this.constants.delete(allocation);
    this.hostComputed.push({ allocation, write });
  }

  /** Throws where the host data of a tensor may be others in the next run. */
  assertConstant(tensor: { readonly buffer: GPUBuffer; readonly name: string }): void {
    const allocation = this.allocations.get(tensor.buffer);
    if (allocation && this.constants.has(allocation)) return;
    throw new Error(
      `hostData of '${tensor.name}' is read while ${this.name} is captured, whose later runs would go on with the numbers of the first; compute what depends on them in hostTensor`,
    );
  }

  /** The allocation that a buffer stands for; one that outlives the step stands for itself. */
  memory(buffer: GPUBuffer): Allocation | GPUBuffer {
    return this.allocations.get(buffer) ?? buffer;
  }

  private range({ buffer, offset, byteLength }: BufferRange): RecordedRange {
    return { memory: this.memory(buffer), offset, byteLength };
  }
}
