/** The page's only device: opened once, lent to one piece of work at a time, opened again after it was lost. */
import { useEffect, useState } from 'preact/hooks';
import { type Device, openDevice } from '../../engine/index.ts';

export type Opening =
  | { readonly kind: 'opening' }
  | { readonly kind: 'open'; readonly adapter: Adapter }
  | { readonly kind: 'failed'; readonly reason: string };

/** An opened device. Steps of a device do not nest, so all work on it takes turns. */
export class Adapter {
  private last: Promise<unknown> = Promise.resolve();

  constructor(readonly device: Device) {}

  /** Runs `work` after all work that was given before; throws the reason of an aborted `signal` in place of running it. */
  turn<T>(work: (device: Device) => T | Promise<T>, signal?: AbortSignal): Promise<T> {
    const own = this.last.then(() => {
      signal?.throwIfAborted();
      return work(this.device);
    });
    this.last = own.catch(() => {});
    return own;
  }
}

async function open(): Promise<Adapter> {
  if (!navigator.gpu)
    throw new Error(
      'This browser has no WebGPU, with which everything here is computed. Chrome and Edge 113, Safari 26 and Firefox 141 have it, or newer ones.',
    );
  return new Adapter(await openDevice());
}

/** The device, and a function that opens it again. A device that is lost shows as a failure with the driver's reason. */
export function useDevice(): [Opening, () => void] {
  const [opening, setOpening] = useState<Opening>({ kind: 'opening' });
  const [attempt, setAttempt] = useState(0);
  useEffect(() => {
    let current = true;
    const fail = (reason: string) => current && setOpening({ kind: 'failed', reason });
    setOpening({ kind: 'opening' });
    open().then(
      (adapter) => {
        adapter.device.gpu.lost.then(({ message }) =>
          fail(`The adapter was lost${message && ` (${message.trim()})`}. What you set here is kept.`),
        );
        if (current) setOpening({ kind: 'open', adapter });
        else adapter.device.close();
      },
      (error: Error) => fail(error.message),
    );
    return () => {
      current = false;
    };
  }, [attempt]);
  return [opening, () => setAttempt(attempt + 1)];
}
