import { parentPort, workerData } from 'node:worker_threads';
import { InputError } from '../../engine/files/errors.ts';
import { record } from './demonstrations.ts';
import type { WorkerMessage } from './demonstrations-node.ts';

// Node only: the thread that makes demonstrations. A message carries an error home, so that its kind is kept.

const send = (message: WorkerMessage, transfer: ArrayBuffer[] = []) => parentPort?.postMessage(message, transfer);

try {
  for await (const recording of record(workerData)) {
    const { states, actions, images } = recording;
    send(
      { recording },
      [states, actions, images].map((array) => array.buffer as ArrayBuffer),
    );
  }
} catch (error) {
  send({ error: error instanceof Error ? error.message : String(error), input: error instanceof InputError });
}
