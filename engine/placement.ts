/** Which operations of a recorded step run, and where their memory lies. */
import { type ArenaPlan, type Place, planArenas } from './arena.ts';
import type { Binding, Operation } from './commands.ts';
import type { Device } from './device.ts';
import { ARENA_BYTES, type BufferRange } from './memory.ts';
import { Allocation, type Phase, type RecordedOperation, type RecordedRange, type Recorder } from './recorder.ts';

/** An operation that every run does again, which a write of the host is not. */
export type ReplayedOperation = { readonly phase: Phase } & Operation<RecordedRange>;

type Access = Omit<Binding<RecordedRange>, 'index'>;

/**
 * Most allocations lie in arenas. Those that the step returns keep the buffers of the first run, and what the host writes has
 * buffers of its own: constants, written here once, and what is computed for every run.
 */
export class Placement {
  readonly operations: readonly ReplayedOperation[];
  readonly plan: ArenaPlan;
  readonly arenas: readonly GPUBuffer[];
  /** Bytes of numbers that the host wrote in the first run. */
  constantBytes = 0;
  private readonly homes: Map<Allocation, GPUBuffer>;
  private readonly indices = new Map<Allocation, number>();
  private readonly owned: GPUBuffer[] = [];

  constructor(
    private readonly device: Device,
    recorder: Recorder,
    kept: ReadonlyMap<Allocation, GPUBuffer>,
  ) {
    this.homes = new Map(kept);
    for (const { allocation } of recorder.hostComputed) this.home(allocation);
    this.operations = needed(this.withoutWrites(recorder.operations), new Set(kept.keys()));
    const uses = this.operations.map((operation) => {
      const accesses = accessesOf(operation);
      const inArenas = (wanted: Access['access']) =>
        accesses.flatMap(({ access, range: { memory } }) => {
          if (access !== wanted || !(memory instanceof Allocation) || this.homes.has(memory)) return [];
          const index = this.indices.get(memory) ?? this.indices.size;
          this.indices.set(memory, index);
          return [index];
        });
      return { reads: inArenas('read'), writes: inArenas('read_write') };
    });
    const sizes = [...this.indices.keys()].map(({ bytes }) => Math.max(bytes, 1));
    this.plan = planArenas(sizes, uses, Math.min(ARENA_BYTES, device.limits.maxBufferSize));
    this.arenas = this.plan.arenaBytes.map((bytes, i) => this.allocate(bytes, `${recorder.name}, arena ${i}`));
  }

  /** Where part of an allocation lies; a buffer that outlives the step is where it was. */
  range({ memory, offset, byteLength }: RecordedRange): BufferRange {
    if (!(memory instanceof Allocation)) return { buffer: memory, offset, byteLength };
    const home = this.homes.get(memory);
    if (home) return { buffer: home, offset, byteLength };
    const place = this.place(memory)!;
    return { buffer: this.arenas[place.arena], offset: place.offset + offset, byteLength };
  }

  /** The place in an arena, and which of all allocations in arenas lies there; null for what lies in none. */
  place(memory: RecordedRange['memory']): (Place & { readonly allocation: number }) | null {
    const index = memory instanceof Allocation ? this.indices.get(memory) : undefined;
    const place = index === undefined ? null : this.plan.places[index];
    return place && { ...place, allocation: index! };
  }

  /** The buffer of its own that holds an allocation, made on first use. */
  home(allocation: Allocation): GPUBuffer {
    const home = this.homes.get(allocation) ?? this.allocate(allocation.bytes, allocation.label);
    this.homes.set(allocation, home);
    return home;
  }

  dispose(): void {
    for (const buffer of this.owned) this.device.memory.free(buffer);
    this.owned.length = 0;
  }

  /** A constant that nothing else is written over lies ready in its buffer; any other is copied to its place at its turn. */
  private withoutWrites(operations: readonly RecordedOperation[]): ReplayedOperation[] {
    const writers = new Map<RecordedRange['memory'], number>();
    for (const operation of operations)
      for (const { access, range } of accessesOf(operation))
        if (access === 'read_write') writers.set(range.memory, (writers.get(range.memory) ?? 0) + 1);
    return operations.flatMap((operation): ReplayedOperation[] => {
      if (operation.kind !== 'write') return [operation];
      const { phase, target, data } = operation;
      const { memory, offset } = target;
      this.constantBytes += data.byteLength;
      if (memory instanceof Allocation && writers.get(memory) === 1) {
        this.device.write({ buffer: this.home(memory), offset, byteLength: data.byteLength }, data);
        return [];
      }
      const buffer = this.allocate(data.byteLength, memory.label);
      const source = { memory: buffer, offset: 0, byteLength: buffer.size };
      this.device.write({ ...source, buffer }, data);
      return [{ phase, kind: 'copy', source, target, bytes: Math.ceil(data.byteLength / 4) * 4 }];
    });
  }

  private allocate(bytes: number, label: string): GPUBuffer {
    const buffer = this.device.memory.persistent(bytes, label);
    this.owned.push(buffer);
    return buffer;
  }
}

/** Without operations whose results nothing reads: what outlives the step, `kept` among it, is read. */
function needed(operations: readonly ReplayedOperation[], kept: ReadonlySet<Allocation>): ReplayedOperation[] {
  const read = new Set<Allocation>(kept);
  const backwards = operations.toReversed().filter((operation) => {
    const accesses = accessesOf(operation);
    const used = accesses.some(
      ({ access, range: { memory } }) =>
        access === 'read_write' && (!(memory instanceof Allocation) || read.has(memory)),
    );
    if (used) for (const { range } of accesses) if (range.memory instanceof Allocation) read.add(range.memory);
    return used;
  });
  return backwards.toReversed();
}

export function accessesOf(operation: RecordedOperation): Access[] {
  if (operation.kind === 'dispatch') return [...operation.bindings];
  const target: Access = { name: 'target', access: 'read_write', range: operation.target };
  return operation.kind === 'copy' ? [{ name: 'source', access: 'read', range: operation.source }, target] : [target];
}
