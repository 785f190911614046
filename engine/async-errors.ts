/** The errors that WebGPU reports later, at an await: of what was submitted, of results, of a lost device. */
import { sleepUntil } from './wait.ts';

export class AsyncErrors {
  private readonly errors: Promise<string | null>[] = [];
  private lostReason: string | null = null;
  private closed = false;

  constructor(
    private readonly gpu: GPUDevice,
    /** The adapter needs the processor that waits for it. */
    private readonly software: boolean,
  ) {
    gpu.lost.then((info) => {
      if (this.closed) return;
      this.lostReason = `the device was lost (${info.reason}): ${info.message}; open it again and resume from the last checkpoint`;
    });
  }

  assertOpen(): void {
    if (this.lostReason) throw new Error(this.lostReason);
    if (this.closed) throw new Error('the device is closed');
  }

  /** If WebGPU refuses something in `work`, the next `check` throws its message, behind `what`. */
  checked<T>(what: string, work: () => T): T {
    this.assertOpen();
    return this.scoped(what, work);
  }

  /** As checked, also on a device that is closed or lost, where nothing comes of it. */
  scoped<T>(what: string, work: () => T): T {
    this.gpu.pushErrorScope('validation');
    try {
      return work();
    } finally {
      this.expectNoError(this.gpu.popErrorScope(), what);
    }
  }

  expectNoError(error: Promise<GPUError | null>, what: string): void {
    this.errors.push(
      error.then(
        (found) => (found ? `${what}: ${found.message}` : null),
        (reason) => (this.closed ? null : `${what}: ${reason}`),
      ),
    );
  }

  /** Rejects with the first error since the last check. Does not wait until what was submitted has run. */
  async check(): Promise<void> {
    const first = (await Promise.all(this.errors.splice(0))).find((message) => message !== null);
    if (this.lostReason) throw new Error(this.lostReason);
    if (first) throw new Error(first);
  }

  /** The result of `promise`; a rejection says where the device was closed or lost. */
  async settle<T>(promise: Promise<T>): Promise<T> {
    const described = promise.catch((reason) => {
      this.assertOpen();
      throw reason;
    });
    return this.software && typeof process === 'object' ? sleepUntil(described) : described;
  }

  /** From now on every use throws. */
  close(): void {
    this.closed = true;
  }
}
