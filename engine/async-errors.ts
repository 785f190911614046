/** The errors that WebGPU reports later, at an await: of what was submitted, of results, of a lost device. */
import { InputError } from './files/errors.ts';
import { sleepUntil } from './wait.ts';

/** The device was lost: by a reset of its driver, a watchdog, or `destroy`. All that was on it is gone, and `Device.reopen` opens it again. */
export class DeviceLostError extends InputError {
  constructor(readonly reason: string) {
    super(`${reason}; open it again and resume from the last checkpoint`);
  }
}

/** Memory that the adapter, or the machine of a software adapter, does not have. */
export class OutOfMemoryError extends InputError {
  /** `what` was to be allocated, and how much; of several lines the first says it. */
  constructor(what: string) {
    super(`${firstLine(what)}; make the batch or the model smaller`);
  }
}

/** Dawn appends where it noticed. */
const firstLine = (message: string) => message.split('\n')[0].trim().replace(/\.$/, '');

/** How long a driver may take to report that it is gone, in milliseconds, after something failed that it would explain. */
const LOSS_REPORT_MILLISECONDS = 1000;

export class AsyncErrors {
  private readonly errors: Promise<Error | null>[] = [];
  private lostReason: string | null = null;
  private closed = false;

  constructor(
    private readonly gpu: GPUDevice,
    /** The adapter needs the processor that waits for it. */
    private readonly software: boolean,
    /** Told before an error of memory is thrown. */
    private readonly onOutOfMemory: () => void = () => {},
  ) {
    gpu.lost.then((info) => {
      if (this.closed) return;
      this.lostReason = `the device was lost (${info.reason}): ${firstLine(info.message)}`;
    });
  }

  assertOpen(): void {
    if (this.lostReason) throw new DeviceLostError(this.lostReason);
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

  expectNoError(error: Promise<GPUError | null>, what: string, Kind: new (message: string) => Error = Error): void {
    this.errors.push(
      error.then(
        (found) => (found ? new Kind(`${what}: ${found.message}`) : null),
        (reason) => (this.closed ? null : new Error(`${what}: ${reason}`)),
      ),
    );
  }

  /** Rejects with the first error since the last check. Does not wait until what was submitted has run. */
  async check(): Promise<void> {
    const found = (await Promise.all(this.errors.splice(0))).filter((error) => error !== null);
    if (this.lostReason) throw new DeviceLostError(this.lostReason);
    // What lacks memory is no longer valid, and every use of it is an error too.
    const first = found.find((error) => error instanceof OutOfMemoryError) ?? found[0];
    if (first instanceof OutOfMemoryError) this.onOutOfMemory();
    if (first) throw first;
  }

  /** The result of `promise`; a rejection says where the device was closed or lost. */
  async settle<T>(promise: Promise<T>): Promise<T> {
    const described = promise.catch(async (reason) => {
      throw await this.explained(reason);
    });
    return this.software && typeof process === 'object' ? sleepUntil(described) : described;
  }

  /**
   * Why something failed: the loss of the device, where it was lost meanwhile, or the first error since the last check; else `error`.
   * After these anything may fail, before their report comes: what is mapped is taken away, and what lacks memory is refused everywhere.
   */
  async explained(error: unknown): Promise<unknown> {
    if (!this.lostReason && !this.closed) {
      // Dawn reports nothing while nothing is pending.
      const report = this.gpu.queue.onSubmittedWorkDone().catch(() => {});
      let timer: ReturnType<typeof setTimeout> | undefined;
      const patience = new Promise((resolve) => {
        timer = setTimeout(resolve, LOSS_REPORT_MILLISECONDS);
      });
      await Promise.race([report, this.gpu.lost, patience]);
      clearTimeout(timer);
    }
    try {
      this.assertOpen();
      await this.check();
    } catch (cause) {
      return error instanceof OutOfMemoryError && !(cause instanceof DeviceLostError) ? error : cause;
    }
    return error;
  }

  /** From now on every use throws. */
  close(): void {
    this.closed = true;
  }
}
