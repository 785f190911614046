import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import { InputError } from '../../engine/files/errors.ts';
import type { Job, Results, WorkerMessage } from './jobs.ts';

// Node only; what also runs in a browser loads this file by a dynamic import.

/**
 * The results of a job for the indices from 0 on, in order, until `count` of them are not null, made in as many worker threads as
 * there are cores. They do not depend on the number of threads and their timing.
 */
export async function* inWorkers<J extends Job>(
  job: J,
  count: number,
  threads = availableParallelism(),
): AsyncGenerator<Results[J['name']]> {
  const file = import.meta.url.endsWith('.ts') ? './worker.mjs' : './worker.js';
  const results = new Map<number, Results[J['name']]>();
  const idle: Worker[] = [];
  let [begun, failed, yielded] = [0, 0, 0];
  let failure: Error | undefined;
  let wake = () => {};
  const fail = (message: string, input = false) => {
    failure ??= input ? new InputError(message) : new Error(`a worker of the tabletop world: ${message}`);
    wake();
  };
  const beginMore = () => {
    while (idle.length > 0 && begun - failed < count) idle.pop()?.postMessage(begun++);
  };
  const workers = Array.from({ length: Math.min(threads, count) }, () => {
    const worker = new Worker(new URL(file, import.meta.url), { workerData: job });
    worker.on('message', (message: WorkerMessage) => {
      if ('error' in message) return fail(message.error, message.input);
      results.set(message.index, message.result as Results[J['name']]);
      if (message.result === null) failed++;
      idle.push(worker);
      beginMore();
      wake();
    });
    worker.on('error', (error) => fail(error instanceof Error ? error.message : String(error)));
    worker.on('exit', () => fail('it ended early'));
    return worker;
  });
  idle.push(...workers);
  beginMore();
  try {
    while (yielded < begun) {
      if (failure) throw failure;
      const result = results.get(yielded);
      if (result === undefined) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
        continue;
      }
      results.delete(yielded++);
      yield result;
    }
  } finally {
    await Promise.all(workers.map((worker) => worker.terminate()));
  }
}
