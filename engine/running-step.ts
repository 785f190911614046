/** The step that is running, the span in which ops may run: its activations and gradients disappear together when it ends. */

/** A thing that a step owns: a tensor, or anything else that lives in step memory. */
export interface StepResource {
  readonly buffer: GPUBuffer;
  /** Told that its memory is gone, so that a later use can say so. */
  expire(): void;
  /** Told that the step's function returned it: from now on its owner disposes of it; the last holder frees the buffer. */
  keep(holders: Holders): void;
}

/** How many tensors own one buffer together, and where it goes when the last is disposed of. */
export interface Holders {
  count: number;
  readonly release: (buffer: GPUBuffer) => void;
}

/** Where the buffers of a step come from, and go when it is over. */
export interface BufferSource {
  take(bytes: number, label: string): GPUBuffer;
  give(buffer: GPUBuffer): void;
}

/** The memory of a step, and all else that belongs to it. */
export class Step {
  /** Every buffer of this step with what lies in it. */
  private readonly buffers = new Map<GPUBuffer, StepResource[]>();
  /** One set for each `track` that is under way, innermost last. */
  private readonly tracked: Set<GPUBuffer>[] = [];
  /** By their classes. */
  private readonly parts = new Map<new () => object, object>();

  constructor(private readonly source: BufferSource) {}

  /** Things that a module keeps for every step, by their class: made at its first use in the step. */
  part<T extends object>(kind: new () => T): T {
    const part = this.parts.get(kind) ?? new kind();
    this.parts.set(kind, part);
    return part as T;
  }

  take(bytes: number, label: string): GPUBuffer {
    const buffer = this.source.take(bytes, label);
    this.buffers.set(buffer, []);
    for (const set of this.tracked) set.add(buffer);
    return buffer;
  }

  holds(buffer: GPUBuffer): boolean {
    return this.buffers.has(buffer);
  }

  adopt(resource: StepResource): void {
    this.buffers.get(resource.buffer)?.push(resource);
  }

  /** Gives a buffer back before the step ends: what is encoded from now on may overwrite it, what is encoded already runs first. */
  release(buffer: GPUBuffer): void {
    const resources = this.buffers.get(buffer);
    if (!resources) return;
    this.buffers.delete(buffer);
    for (const resource of resources) resource.expire();
    this.source.give(buffer);
  }

  /** Runs `work` to its end, with the set of buffers taken meanwhile; releases those that are still in the set afterwards. */
  track<T>(work: (taken: Set<GPUBuffer>) => T): T {
    const taken = new Set<GPUBuffer>();
    this.tracked.push(taken);
    try {
      return work(taken);
    } finally {
      this.tracked.pop();
      for (const buffer of taken) this.release(buffer);
    }
  }

  /** Memory that `work` takes stays until the step ends, whatever is being tracked. */
  untracked<T>(work: () => T): T {
    const tracked = this.tracked.splice(0);
    try {
      return work();
    } finally {
      this.tracked.push(...tracked);
    }
  }

  /** Ends the step: what `returned` holds (a tensor, or arrays, maps and records of tensors) survives, the rest is gone. */
  end(returned: unknown): void {
    const kept = new Set([...this.heldBy(returned)]);
    for (const [buffer, resources] of this.buffers) {
      const survivors = resources.filter((resource) => kept.has(resource));
      const holders = { count: survivors.length, release: (buffer: GPUBuffer) => this.source.give(buffer) };
      for (const resource of survivors) resource.keep(holders);
      for (const resource of resources) if (!kept.has(resource)) resource.expire();
      if (survivors.length === 0) this.source.give(buffer);
    }
    this.buffers.clear();
  }

  private *heldBy(value: unknown): Generator<StepResource> {
    if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value)) return;
    // A tensor in pieces has no buffer of its own.
    if ('buffer' in value && 'pieces' in value && (value.pieces as unknown[]).length > 1)
      yield* this.heldBy(value.pieces);
    else if ('buffer' in value && this.buffers.get(value.buffer as GPUBuffer)?.includes(value as StepResource))
      yield value as StepResource;
    else if (Array.isArray(value)) for (const item of value) yield* this.heldBy(item);
    else if (value instanceof Map) for (const item of value.values()) yield* this.heldBy(item);
    else if (Object.getPrototypeOf(value) === Object.prototype)
      for (const item of Object.values(value)) yield* this.heldBy(item);
  }
}

/** Runs `fn`, which may be asynchronous, and then `end` with what it gave: nothing where it threw. */
export function runThenEnd<T>(fn: () => T, end: (result: unknown) => void): T {
  let result: T;
  try {
    result = fn();
  } catch (error) {
    end(undefined);
    throw error;
  }
  if (!(result instanceof Promise)) {
    end(result);
    return result;
  }
  return result.then(
    (value) => {
      end(value);
      return value;
    },
    (error) => {
      end(undefined);
      throw error;
    },
  ) as T;
}
