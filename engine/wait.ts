/**
 * Waiting for the GPU without taking its processor.
 *
 * Dawn's node binding polls for finished work once per turn of the event loop, from setImmediate, for as long as a promise is
 * pending: it busy-waits. On a real GPU that costs one idle core. A software adapter computes on the same cores, so there each
 * turn is ended by a short sleep. The loop still turns: timers, signals and messages of data workers are served between sleeps.
 */

const SPIN_MILLISECONDS = 0.15; // short reads (a loss) end within this; sleeping would only add latency
const FIRST_SLEEP_MILLISECONDS = 0.1;
const LONGEST_SLEEP_MILLISECONDS = 1;

/** Resolves as `promise` does, sleeping between turns of the event loop. Node only. */
export async function sleepUntil<T>(promise: Promise<T>): Promise<T> {
  let settled = false;
  const mark = () => {
    settled = true;
  };
  promise.then(mark, mark);
  const cell = new Int32Array(new SharedArrayBuffer(4));
  const start = performance.now();
  let sleep = FIRST_SLEEP_MILLISECONDS;
  while (!settled) {
    await new Promise<void>((resolve) => setImmediate(resolve));
    if (settled || performance.now() - start < SPIN_MILLISECONDS) continue;
    Atomics.wait(cell, 0, 0, sleep);
    sleep = Math.min(LONGEST_SLEEP_MILLISECONDS, sleep * 1.25);
  }
  return promise;
}
