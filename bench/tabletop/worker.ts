import { parentPort, workerData } from 'node:worker_threads';
import { attempt } from './episode-recorder.ts';
import { framesOf } from './frames.ts';
import { TabletopWorld } from './world.ts';

// Node only: a thread with a world of its own. An error ends it and reaches the program that started it.

/** The work of a thread: what it makes for an index. */
const jobs = { attempt, framesOf };
export type Jobs = typeof jobs;

const { job, settings } = workerData;
const world = await TabletopWorld.create();
parentPort?.on('message', (index: number | null) => {
  if (index === null) parentPort?.close();
  else parentPort?.postMessage(jobs[job as keyof Jobs](world, settings, index));
});
