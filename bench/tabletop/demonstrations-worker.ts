import { parentPort, workerData } from 'node:worker_threads';
import { InputError } from '../../engine/files/errors.ts';
import { record } from './demonstrations.ts';
import type { WorkerMessage } from './demonstrations-node.ts';

// Node only: the thread that makes demonstrations. An error goes home as a message, which keeps its kind.

const say = (message: WorkerMessage, transfer: ArrayBuffer[] = []) => parentPort?.postMessage(message, transfer);

try {
  for await (const recording of record(workerData)) {
    const { states, actions, images } = recording;
    say(
      { recording },
      [states, actions, images].map((array) => array.buffer as ArrayBuffer),
    );
  }
} catch (error) {
  say({ error: error instanceof Error ? error.message : String(error), input: error instanceof InputError });
}
