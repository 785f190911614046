import { mkdir, readFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { promisify } from 'node:util';
import { Worker } from 'node:worker_threads';
import { createGzip, gunzip } from 'node:zlib';
import * as v from 'valibot';
import { InputError } from '../../engine/files/errors.ts';
import { writeFileSafely } from '../../engine/files/files.ts';
import { checked } from '../../engine/files/json-schema.ts';
import { IMAGE_SIZE } from './camera.ts';
import type { DemonstrationSettings, Recording } from './episode-recorder.ts';
import { tasks, type Variation, variations } from './scene.ts';
import { ACTION_DIMENSION, STATE_DIMENSION } from './world.ts';

// Node only; demonstrations.ts, which also runs in a browser, loads this file by a dynamic import.

/** A worker's answer to the index of an attempt, or an error, after which the worker is of no more use. */
export type WorkerMessage =
  | { readonly index: number; readonly recording: Recording | null }
  | { readonly error: string; readonly input: boolean };

/** The number of episodes that take as long as it takes to start a thread. */
const WORTHWHILE = 8;

/**
 * As many attempts as are needed for the settings' episodes, in order, made in as many worker threads as cores allow.
 * The bytes do not depend on the number of threads and their timing.
 */
export async function* attemptsInWorkers(
  settings: Required<DemonstrationSettings>,
  threads = Math.min(availableParallelism(), Math.ceil(settings.episodes / WORTHWHILE)),
): AsyncGenerator<Recording | null> {
  const file = import.meta.url.endsWith('.ts') ? './demonstrations-worker.mjs' : './demonstrations-worker.js';
  const attempted = new Map<number, Recording | null>();
  const idle: Worker[] = [];
  let [begun, failed, yielded] = [0, 0, 0];
  let failure: Error | undefined;
  let wake = () => {};
  const fail = (message: string, input = false) => {
    failure ??= input ? new InputError(message) : new Error(`a demonstration worker: ${message}`);
    wake();
  };
  const beginMore = () => {
    while (idle.length > 0 && begun - failed < settings.episodes) idle.pop()?.postMessage(begun++);
  };
  const workers = Array.from({ length: threads }, () => {
    const worker = new Worker(new URL(file, import.meta.url), { workerData: settings });
    worker.on('message', (message: WorkerMessage) => {
      if ('error' in message) return fail(message.error, message.input);
      attempted.set(message.index, message.recording);
      if (message.recording === null) failed++;
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
      const recording = attempted.get(yielded);
      if (failure) throw failure;
      if (recording === undefined) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
        continue;
      }
      attempted.delete(yielded++);
      yield recording;
    }
  } finally {
    await Promise.all(workers.map((worker) => worker.terminate()));
  }
}

/** The first line of a cache file, which describes the numbers after it. */
const cacheHeader = v.object({
  episodes: v.array(
    v.object({
      seed: v.number(),
      settings: v.object({ task: v.picklist(tasks), variation: v.picklist(Object.keys(variations) as Variation[]) }),
      length: v.number(),
      instructions: v.array(v.string()),
    }),
  ),
});

/**
 * Keeps recordings in a gzip file: a line of JSON, padded to whole words, then every episode's states, actions and
 * pictures. The checksum and length of gzip reveal a damaged file. A cache that cannot be written is a warning, not an error.
 */
export async function writeCache(folder: string, name: string, recordings: readonly Recording[]): Promise<void> {
  const header = {
    episodes: recordings.map(({ seed, settings, length, instructions }) => ({ seed, settings, length, instructions })),
  };
  const json = new TextEncoder().encode(JSON.stringify(header)).length;
  const line = `${JSON.stringify(header)}${' '.repeat(3 - (json % 4))}\n`;
  const parts = [new TextEncoder().encode(line)];
  for (const { states, actions, images } of recordings) {
    for (const { buffer, byteOffset, byteLength } of [states, actions, images]) {
      parts.push(new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength));
    }
  }
  try {
    await mkdir(folder, { recursive: true });
    await writeFileSafely(join(folder, name), Readable.from(parts).pipe(createGzip({ level: 1 })));
  } catch (error) {
    const words = error instanceof Error ? error.message : String(error);
    console.warn(`the demonstrations are not cached and will be made again next time: ${words}`);
  }
}

/** The recordings in a cache file; null if there is none, or, with a warning, if it is damaged. */
export async function readCache(folder: string, name: string): Promise<Recording[] | null> {
  const path = join(folder, name);
  try {
    const bytes = await promisify(gunzip)(await readFile(path));
    const start = bytes.indexOf('\n') + 1;
    const { episodes } = checked(cacheHeader, JSON.parse(bytes.toString('utf8', 0, start)), 'its first line');
    let at = start;
    const take = (length: number) => {
      const part = bytes.subarray(at, at + length);
      if (part.length < length) throw new RangeError('cut off');
      at += length;
      return part;
    };
    const floats = (count: number) => {
      const part = take(count * 4);
      return new Float32Array(part.buffer.slice(part.byteOffset, part.byteOffset + part.byteLength));
    };
    return episodes.map((episode) => ({
      ...episode,
      states: floats(episode.length * STATE_DIMENSION),
      actions: floats(episode.length * ACTION_DIMENSION),
      images: take(episode.length * IMAGE_SIZE * IMAGE_SIZE * 3),
    }));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    const words = error instanceof Error ? error.message : String(error);
    console.warn(`${path}: the cached demonstrations cannot be read (${words}); they are made again`);
    return null;
  }
}
