import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import { InputError } from '../../engine/files/errors.ts';
import type { Watched } from './episode-recorder.ts';
import type { Jobs } from './worker.ts';

type Result<Name extends keyof Jobs> = ReturnType<Jobs[Name]>;

/**
 * The first `count` results of a job that are not null, for the indices from 0 on and in their order, made in as many worker threads as
 * there are cores, or fewer for few results. They do not depend on the number of threads and their timing.
 */
export async function inWorkers<Name extends keyof Jobs>(
  job: Name,
  settings: Parameters<Jobs[Name]>[1],
  count: number,
  { onProgress, signal }: Watched = {},
  // A thread takes as long to start as several results.
  threads = Math.min(availableParallelism(), Math.ceil(count / 8)),
): Promise<NonNullable<Result<Name>>[]> {
  const file = import.meta.url.endsWith('.ts') ? './worker.mjs' : './worker.js';
  const workers = Array.from(
    { length: Math.min(threads, count) },
    () => new Worker(new URL(file, import.meta.url), { workerData: { job, settings } }),
  );
  const answer = (worker: Worker, index: number) =>
    new Promise<Result<Name>>((resolve, reject) => {
      worker.removeAllListeners();
      worker.once('message', resolve);
      worker.once('exit', () => reject(new Error('a worker of the tabletop world: it ended early')));
      worker.once('error', ({ name, message }: Error) =>
        reject(
          name === 'InputError' ? new InputError(message) : new Error(`a worker of the tabletop world: ${message}`),
        ),
      );
      worker.postMessage(index);
    });
  const results: Promise<Result<Name>>[] = [];
  let failed = 0;
  const beginNext = (worker: Worker): void => {
    if (results.length - failed === count) return;
    const result = answer(worker, results.length).then((own) => {
      if (own === null) failed++;
      beginNext(worker);
      return own;
    });
    result.catch(() => {}); // the error is thrown again below
    results.push(result);
  };
  workers.forEach(beginNext);
  const complete: NonNullable<Result<Name>>[] = [];
  try {
    for (let index = 0; index < results.length; index++) {
      const result = await results[index];
      signal?.throwIfAborted();
      if (result === null) continue;
      complete.push(result);
      onProgress?.(complete.length, count);
    }
    return complete;
  } finally {
    await Promise.all(workers.map(ended));
  }
}

/** Lets a worker end by itself: one that is terminated while it loads its modules may never be gone, and then nobody else goes on. */
function ended(worker: Worker): Promise<void> {
  worker.removeAllListeners();
  return new Promise((resolve) => {
    if (worker.threadId === -1) return resolve();
    worker.once('exit', () => resolve());
    worker.on('error', () => {}); // the first error is the one to report
    worker.postMessage(null);
  });
}
