import { Worker } from 'node:worker_threads';
import { InputError } from '../engine/index.ts';
import type { Answer } from '../model/policy/serving/served-policy.ts';
import type { Progress } from './progress.ts';
import type { FromWorker, ServeWork, ToWorker } from './serve-worker.ts';

/** The thread that holds device and policy (serve-worker.ts), from the side that talks to clients. */
export class PolicyThread {
  /** The adapter's description. */
  readonly ready: Promise<string>;
  /** Rejects when the thread ends by an error. */
  readonly failed: Promise<never>;
  answers = 0;
  private readonly worker: Worker;
  private readonly asked = new Map<number, { resolve(answer: Answer): void; reject(error: Error): void }>();
  private next = 0;

  constructor(work: ServeWork, progress: Progress) {
    const file = import.meta.url.endsWith('.ts') ? './serve-worker.mjs' : './serve-worker.js';
    this.worker = new Worker(new URL(file, import.meta.url), { workerData: work });
    this.failed = new Promise((_, fail) => {
      const end = (error: Error) => {
        fail(error);
        for (const { reject } of this.asked.values()) reject(error);
        this.asked.clear();
      };
      this.worker.on('error', ({ name, message }) =>
        end(name === 'InputError' ? new InputError(message) : new Error(`the policy's thread: ${message}`)),
      );
      this.worker.on('exit', () => end(new Error("the policy's thread ended")));
    });
    this.failed.catch(() => {}); // whoever waits for it gets the error
    const begun = new Promise<string>((isReady) => {
      this.worker.on('message', (message: FromWorker) => {
        if ('ready' in message) isReady(message.ready);
        else if ('note' in message) progress.note(message.note);
        else this.settle(message);
      });
    });
    this.ready = Promise.race([begun, this.failed]);
  }

  answer(session: number, observation: Extract<ToWorker, { id: number }>['observation'], reset: boolean) {
    const id = this.next++;
    return new Promise<Answer>((resolve, reject) => {
      this.asked.set(id, { resolve, reject });
      this.send({ id, session, observation, reset });
    });
  }

  forget(session: number): void {
    this.send({ forget: session });
  }

  /** Lets the thread close its device. */
  end(): Promise<void> {
    if (this.worker.threadId === -1) return Promise.resolve();
    return new Promise((ended) => {
      this.worker.once('exit', () => ended());
      this.send(null);
    });
  }

  private send(message: ToWorker): void {
    this.worker.postMessage(message);
  }

  private settle(message: Extract<FromWorker, { id: number }>): void {
    const asked = this.asked.get(message.id);
    this.asked.delete(message.id);
    if ('answer' in message) {
      this.answers += 1;
      asked?.resolve(message.answer);
    } else asked?.reject(message.isInput ? new InputError(message.error) : new Error(message.error));
  }
}
