import { parentPort, workerData } from 'node:worker_threads';
import { InputError } from '../../engine/files/errors.ts';
import { attempt } from './demonstrations.ts';
import type { DemonstrationSettings, Recording } from './episode-recorder.ts';
import { type Frame, type FrameSettings, framesOf } from './frames.ts';
import type { WorkerMessage } from './workers-node.ts';
import { TabletopWorld } from './world.ts';

// Node only: a thread with a world of its own. A message carries an error home, so that its kind is kept.

/** The work of a thread: what it makes for an index. */
export type Job =
  | { readonly name: 'demonstration'; readonly settings: Required<DemonstrationSettings> }
  | { readonly name: 'frames'; readonly settings: FrameSettings };

export interface Results {
  /** null if the demonstrator fails. */
  demonstration: Recording | null;
  frames: Frame[];
}

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
