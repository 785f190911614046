/**
 * Buffers by lifetime.
 *
 * persistent: parameters, optimizer state, inputs made outside a step; freed by dispose.
 * step: activations and gradients; taken from a pool, given back when the step ends (or earlier, by whoever knows it is dead).
 * host: staging buffers for reading back; a pool, so that reading one result does not wait for another.
 *
 * Pools keep what they are given until they are trimmed or the device closes; a tensor that outlives its step takes its buffer out of the pool.
 */

import { type AsyncErrors, OutOfMemoryError } from './async-errors.ts';
import type { MachineMemory } from './machine-memory.ts';
import type { BufferSource } from './running-step.ts';

export interface BufferRange {
  readonly buffer: GPUBuffer;
  /** Bytes, a multiple of 256. */
  readonly offset: number;
  /** Bytes, as bound: at least 16, so that one vec4 can always be read. */
  readonly byteLength: number;
}

export const ALIGNMENT = 256;
/** Most bytes of one arena of a step: WebGPU's default limit for a storage binding. */
export const ARENA_BYTES = 128 * 1024 * 1024;
/** The machine is asked again for its free memory after so many bytes of buffers: others take some meanwhile. */
const LOOK_AGAIN_BYTES = 64 * 1024 * 1024;

/** The smallest multiple of `unit` that is at least `value`. */
export function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}

/** Sizes of pooled buffers: multiples of 256 bytes, above 2 KiB with three significant bits, so that at most a fifth is wasted. */
function sizeClass(bytes: number): number {
  let unit = ALIGNMENT;
  while (unit * 8 < bytes) unit *= 2;
  return roundUp(Math.max(bytes, ALIGNMENT), unit);
}

class Pool {
  private readonly free = new Map<number, GPUBuffer[]>();

  constructor(private readonly create: (bytes: number, label: string) => GPUBuffer) {}

  take(bytes: number, label: string): GPUBuffer {
    const size = sizeClass(bytes);
    const buffer = this.free.get(size)?.pop();
    if (!buffer) return this.create(size, label);
    buffer.label = label;
    return buffer;
  }

  give(buffer: GPUBuffer): void {
    const list = this.free.get(buffer.size);
    if (list) list.push(buffer);
    else this.free.set(buffer.size, [buffer]);
  }

  /** Everything that it holds, for someone else to destroy. */
  drain(): GPUBuffer[] {
    const buffers = [...this.free.values()].flat();
    this.free.clear();
    return buffers;
  }
}

export class Memory implements BufferSource {
  /** Bytes of all buffers that exist now, whatever their lifetime; and their largest sum since it was last set. */
  bytes = 0;
  peakBytes = 0;
  /** Bytes that the step under way has taken from the pool and not given back; and their largest sum since it was last set. */
  stepBytes = 0;
  peakStepBytes = 0;
  /** Where buffers are noted as they are made, while someone wants to know. */
  made: Set<GPUBuffer> | null = null;
  /** Buffers that exist; those of the device before it was opened again are none of them. */
  private readonly own = new WeakSet<GPUBuffer>();
  /** The bytes up to which there is room, as the machine said last. */
  private room = 0;
  /** An allocation failed in the step under way. */
  private full = false;
  private readonly step: Pool;
  private readonly staging: Pool;

  constructor(
    private readonly gpu: GPUDevice,
    private readonly expectNoError: AsyncErrors['expectNoError'],
    /** Submits what is encoded: a buffer that it reads must not be gone before. */
    private readonly submit: () => void,
    /** The memory that the buffers of a software adapter lie in. */
    private readonly machine: MachineMemory | null = null,
  ) {
    this.step = new Pool((bytes, label) => this.persistent(bytes, label));
    this.staging = new Pool((bytes, label) =>
      this.create(bytes, GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST, label),
    );
  }

  persistent(bytes: number, label: string): GPUBuffer {
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
    return this.create(roundUp(Math.max(bytes, ALIGNMENT), ALIGNMENT), usage, label);
  }

  uniform(bytes: number, label: string): GPUBuffer {
    return this.create(bytes, GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST, label);
  }

  /** Memory for the step under way. */
  take(bytes: number, label: string): GPUBuffer {
    const buffer = this.step.take(bytes, label);
    this.stepBytes += buffer.size;
    this.peakStepBytes = Math.max(this.peakStepBytes, this.stepBytes);
    return buffer;
  }

  give(buffer: GPUBuffer): void {
    this.stepBytes -= buffer.size;
    this.step.give(buffer);
  }

  takeStaging(bytes: number): GPUBuffer {
    return this.staging.take(bytes, 'staging');
  }

  giveStaging(buffer: GPUBuffer): void {
    this.staging.give(buffer);
  }

  /** Frees what waits in the pool of step memory. */
  trim(): void {
    for (const buffer of this.step.drain()) this.free(buffer);
  }

  /** The result of `work`; where it throws, the buffers that it made are freed. */
  allOrNothing<T>(work: () => T): T {
    const before = this.made;
    const made = new Set<GPUBuffer>();
    this.made = made;
    try {
      return work();
    } catch (error) {
      this.trim(); // some of them may wait in the pool
      for (const buffer of made) this.free(buffer);
      throw error;
    } finally {
      this.made = before;
    }
  }

  /** An allocation failed: what is spare is freed, because others lack it and some of it may be no memory at all. */
  runsOut(): void {
    this.full = true;
    this.trim();
    for (const buffer of this.staging.drain()) this.free(buffer);
  }

  /** Frees what the step that ran out of memory has given back. */
  trimIfFull(): void {
    if (this.full) this.trim();
    this.full = false;
  }

  /** Frees a buffer, once. */
  free(buffer: GPUBuffer): void {
    if (!this.own.delete(buffer)) return;
    this.submit();
    this.bytes -= buffer.size;
    buffer.destroy();
  }

  destroy(): void {
    for (const buffer of [...this.step.drain(), ...this.staging.drain()]) buffer.destroy();
  }

  private create(bytes: number, usage: GPUBufferUsageFlags, label: string): GPUBuffer {
    const limit = this.gpu.limits.maxBufferSize;
    if (bytes > limit) throw new Error(`${label}: a buffer of ${bytes} bytes is above this device's limit of ${limit}`);
    if (this.machine && this.bytes + bytes > this.room) this.expectRoom(this.machine, bytes, label);
    this.gpu.pushErrorScope('out-of-memory');
    const buffer = this.gpu.createBuffer({ size: bytes, usage, label });
    this.expectNoError(this.gpu.popErrorScope(), `${label}: allocating ${bytes} bytes`, OutOfMemoryError);
    this.own.add(buffer);
    this.made?.add(buffer);
    this.bytes += bytes;
    this.peakBytes = Math.max(this.peakBytes, this.bytes);
    return buffer;
  }

  /** A system ends the process that writes more than there is, so it is refused before. */
  private expectRoom(machine: MachineMemory, bytes: number, label: string): void {
    if (this.bytes + bytes > machine.most(this.bytes)) this.runsOut();
    const most = machine.most(this.bytes);
    if (this.bytes + bytes > most) {
      const left = Math.max(0, most - this.bytes);
      throw new OutOfMemoryError(
        `${label}: ${megabytes(bytes)} of memory are more than the ${megabytes(left)} that this machine has left`,
      );
    }
    this.room = Math.min(most, this.bytes + bytes + LOOK_AGAIN_BYTES);
  }
}

const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`;
