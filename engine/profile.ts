/** GPU time of each dispatch. Timestamps exist at the borders of passes only, so every dispatch gets a pass of its own. */
import type { BufferRange } from './memory.ts';

/** WebGPU's limit for one query set. */
const QUERIES = 4096;

/** The work of a dispatch, by its cost model. */
export interface DispatchWork {
  readonly label: string;
  readonly workgroups: number;
  readonly flops: number;
  readonly bytes: number;
}

export interface DispatchTime extends DispatchWork {
  /** Nanoseconds from the beginning of the first dispatch. */
  readonly begin: number;
  /** Browsers round timestamps to 100 microseconds; under node they are as the driver gives them. */
  readonly nanoseconds: number;
}

/** The query sets of one profiled run. */
export class Profiler {
  private readonly dispatches: DispatchWork[] = [];
  private readonly sets: GPUQuerySet[] = [];
  private resolved: GPUBuffer | null = null;

  constructor(private readonly gpu: GPUDevice) {}

  /** The timestamps that the pass of the next dispatch writes. */
  next(work: DispatchWork): GPUComputePassTimestampWrites {
    const first = (2 * this.dispatches.length) % QUERIES;
    if (first === 0) this.sets.push(this.gpu.createQuerySet({ type: 'timestamp', count: QUERIES }));
    this.dispatches.push(work);
    return { querySet: this.sets.at(-1)!, beginningOfPassWriteIndex: first, endOfPassWriteIndex: first + 1 };
  }

  /** Encodes the copy of all timestamps into a buffer, 8 bytes each; null where nothing was dispatched. */
  resolve(encoder: GPUCommandEncoder): BufferRange | null {
    const size = 16 * this.dispatches.length;
    if (size === 0) return null;
    const usage = GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC;
    const buffer = this.gpu.createBuffer({ size, usage, label: 'timestamps' });
    this.resolved = buffer;
    this.sets.forEach((set, index) => {
      const first = index * QUERIES;
      encoder.resolveQuerySet(set, 0, Math.min(QUERIES, size / 8 - first), buffer, first * 8);
    });
    return { buffer, offset: 0, byteLength: size };
  }

  /** One entry a dispatch, in order, from what `resolve` copied. */
  times(data: ArrayBuffer): DispatchTime[] {
    const stamps = new BigUint64Array(data);
    return this.dispatches.map((dispatch, i) => ({
      ...dispatch,
      begin: Number(stamps[2 * i] - stamps[0]),
      nanoseconds: Number(stamps[2 * i + 1] - stamps[2 * i]),
    }));
  }

  destroy(): void {
    for (const set of this.sets) set.destroy();
    this.resolved?.destroy();
  }
}

/** The parts of a device that a profile needs. */
interface ProfiledDevice {
  readonly gpu: GPUDevice;
  readonly features: ReadonlySet<string>;
  readonly description: string;
  readonly encoder: { profiler: Profiler | null };
  flush(): void;
  submit<T>(what: string, encode: (encoder: GPUCommandEncoder) => T): T;
  read(range: BufferRange, bytes: number): Promise<ArrayBuffer>;
}

/** `Device.profile`. */
export async function profiled(device: ProfiledDevice, fn: () => unknown): Promise<DispatchTime[]> {
  const { encoder, gpu } = device;
  if (!device.features.has('timestamp-query'))
    throw new Error(`profile: ${device.description} was opened without timestamps ('timestamp-query')`);
  if (encoder.profiler) throw new Error('profile: profiles do not nest');
  device.flush();
  const profiler = new Profiler(gpu);
  encoder.profiler = profiler;
  try {
    await fn();
    const stamps = device.submit('timestamps', (commands) => profiler.resolve(commands));
    return stamps ? profiler.times(await device.read(stamps, stamps.byteLength)) : [];
  } finally {
    device.flush();
    encoder.profiler = null;
    profiler.destroy();
  }
}
