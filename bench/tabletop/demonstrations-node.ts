import { mkdir, readFile } from 'node:fs/promises';
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
import { ACTION_DIMENSION, STATE_DIMENSION } from './world.ts';

// Node only; demonstrations.ts, which also runs in a browser, loads this file by a dynamic import.

/** A message of the worker: a recording, or, before it ends, an error. */
export type WorkerMessage = { readonly recording: Recording } | { readonly error: string; readonly input: boolean };

/** Recordings made in a worker thread, in order, each as soon as it is ready. */
export async function* recordInWorker(settings: Required<DemonstrationSettings>): AsyncGenerator<Recording> {
  const file = import.meta.url.endsWith('.ts') ? './demonstrations-worker.mjs' : './demonstrations-worker.js';
  const worker = new Worker(new URL(file, import.meta.url), { workerData: settings });
  const messages: WorkerMessage[] = [];
  let ended = false;
  let wake = () => {};
  worker.on('message', (message: WorkerMessage) => {
    messages.push(message);
    wake();
  });
  worker.on('error', (error) => {
    messages.push({ error: error instanceof Error ? error.message : String(error), input: false });
  });
  worker.on('exit', () => {
    ended = true;
    wake();
  });
  try {
    for (;;) {
      const message = messages.shift();
      if (message === undefined && ended) return;
      if (message === undefined) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
        continue;
      }
      if ('error' in message) {
        throw message.input ? new InputError(message.error) : new Error(`the demonstration worker: ${message.error}`);
      }
      yield message.recording;
    }
  } finally {
    await worker.terminate();
  }
}

/** The first line of a cache file, which describes the numbers after it. */
const cacheHeader = v.object({
  episodes: v.array(v.object({ seed: v.number(), length: v.number(), instructions: v.array(v.string()) })),
});

/**
 * Keeps recordings in a gzip file: a line of JSON, padded to whole words, then every episode's states, actions and
 * pictures. The checksum and length of gzip reveal a damaged file. A cache that cannot be written is a warning, not an error.
 */
export async function writeCache(folder: string, name: string, recordings: readonly Recording[]): Promise<void> {
  const header = { episodes: recordings.map(({ seed, length, instructions }) => ({ seed, length, instructions })) };
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
