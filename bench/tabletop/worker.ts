import { parentPort, workerData } from 'node:worker_threads';
import { InputError } from '../../engine/files/errors.ts';
import { attempt } from './episode-recorder.ts';
import { framesOf } from './frames.ts';
import type { Job, WorkerMessage } from './jobs.ts';
import { TabletopWorld } from './world.ts';

// Node only: a thread with a world of its own. A message carries an error home, so that its kind is kept.

const send = (message: WorkerMessage) => parentPort?.postMessage(message);
const fail = (error: unknown) =>
  send({ error: error instanceof Error ? error.message : String(error), input: error instanceof InputError });

try {
  const job: Job = workerData;
  const world = await TabletopWorld.create();
  parentPort?.on('message', (index: number) => {
    try {
      const result = job.name === 'frames' ? framesOf(world, job.settings, index) : attempt(world, job.settings, index);
      send({ index, result });
    } catch (error) {
      fail(error);
    }
  });
} catch (error) {
  fail(error);
}
