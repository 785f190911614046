import { parentPort, workerData } from 'node:worker_threads';
import { InputError } from '../../engine/files/errors.ts';
import { attempt } from './demonstrations.ts';
import type { WorkerMessage } from './demonstrations-node.ts';
import { TabletopWorld } from './world.ts';

// Node only: a thread that makes demonstrations. A message carries an error home, so that its kind is kept.

const send = (message: WorkerMessage, transfer: ArrayBuffer[] = []) => parentPort?.postMessage(message, transfer);
const fail = (error: unknown) =>
  send({ error: error instanceof Error ? error.message : String(error), input: error instanceof InputError });

try {
  const world = await TabletopWorld.create();
  parentPort?.on('message', (index: number) => {
    try {
      const recording = attempt(world, workerData, index);
      const arrays = recording === null ? [] : [recording.states, recording.actions, recording.images];
      send(
        { index, recording },
        arrays.map((array) => array.buffer as ArrayBuffer),
      );
    } catch (error) {
      fail(error);
    }
  });
} catch (error) {
  fail(error);
}
