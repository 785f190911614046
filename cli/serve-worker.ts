/** The thread of `insula serve` that holds device and policy, so that the one that talks to clients never waits for them. */
import { parentPort, workerData } from 'node:worker_threads';
import { DeviceLostError } from '../engine/index.ts';
import { openTunedDevice } from '../kernels/tuning.ts';
import { Encoding, type RawObservation } from '../model/policy/encoding.ts';
import { Policy } from '../model/policy/policy.ts';
import { type Answer, type ServedOptions, ServedPolicy } from '../model/policy/serving/served-policy.ts';
import { openAgain } from '../model/training/lost-device.ts';
import { openPolicy } from './policy.ts';

/** What the thread is started with. */
export interface ServeWork {
  readonly checkpoint: string;
  readonly device: { readonly adapter?: string; readonly floor?: boolean; readonly tuning?: string };
  /** The action dimensions of the robot. */
  readonly dimension: number;
  readonly options: ServedOptions;
}

export type ToWorker =
  | { readonly id: number; readonly session: number; readonly observation: RawObservation; readonly reset: boolean }
  | { readonly forget: number }
  /** Ends the thread. */
  | null;

export type FromWorker =
  | { readonly ready: string }
  | { readonly note: string }
  | { readonly id: number; readonly answer: Answer }
  | { readonly id: number; readonly error: string; readonly isInput: boolean };

const { checkpoint: path, device: choice, dimension, options }: ServeWork = workerData;
const send = (message: FromWorker) => parentPort?.postMessage(message);
const { device } = await openTunedDevice(choice, (note) => send({ note }));

async function loadPolicy(): Promise<Policy> {
  const checkpoint = await openPolicy(path);
  try {
    return new Policy(await checkpoint.loadModel(device), new Encoding(checkpoint.settings.encoding));
  } finally {
    await checkpoint.close();
  }
}

let policy = await loadPolicy();

async function recover(error: unknown): Promise<Policy | null> {
  const loss = await device.errors.explained(error);
  if (!(loss instanceof DeviceLostError)) return null;
  await openAgain(device, loss.reason);
  send({ note: `${loss.reason}; it is open again, with the policy of ${path}` });
  policy = await loadPolicy();
  return policy;
}

const served = new ServedPolicy(policy, dimension, options, recover);

/** Answers under way. */
const asked = new Set<Promise<void>>();

parentPort?.on('message', async (message: ToWorker) => {
  if (message === null) {
    await Promise.all(asked);
    await served.idle();
    policy.model.dispose();
    device.close();
    parentPort?.close();
  } else if ('forget' in message) served.forget(message.forget);
  else {
    const own = answer(message);
    asked.add(own);
    await own;
    asked.delete(own);
  }
});
send({ ready: device.description });

async function answer({ id, session, observation, reset }: Exclude<ToWorker, null | { forget: number }>) {
  try {
    send({ id, answer: await served.answer(session, observation, reset) });
  } catch (error) {
    const { name, message } = error as Error;
    send({ id, error: message, isInput: name === 'InputError' });
  }
}
