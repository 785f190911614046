import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { promisify } from 'node:util';
import { createGzip, gunzip } from 'node:zlib';
import * as v from 'valibot';
import { writeFileSafely } from '../../engine/files/files.ts';
import { checked } from '../../engine/files/json-schema.ts';
import { hexadecimal, WORLD_HASH } from './hash.ts';
import { type SceneSettings, tasks, type Variation, variations } from './scene.ts';

// Node only; what also runs in a browser loads this file by a dynamic import.

export const sceneSettingsSchema = v.object({
  task: v.picklist(tasks),
  variation: v.picklist(Object.keys(variations) as Variation[]),
}) satisfies v.GenericSchema<unknown, SceneSettings>;

/** What the world made, in a folder of files that are named by the settings, and by the world's own hash. */
export interface Cache<Header> {
  readonly folder: string;
  /** What it holds, for messages: 'demonstrations'. */
  readonly what: string;
  readonly settings: unknown;
  readonly header: v.GenericSchema<unknown, Header>;
}

/** The bytes behind a header, in order. */
export interface Contents<Header> {
  readonly header: Header;
  bytes(length: number): Uint8Array;
  floats(count: number): Float32Array;
}

async function pathOf({ folder, what, settings }: Cache<unknown>): Promise<string> {
  const text = new TextEncoder().encode(JSON.stringify([WORLD_HASH, settings]));
  return join(folder, `${what}-${hexadecimal(await crypto.subtle.digest('SHA-256', text)).slice(0, 16)}.gz`);
}

/**
 * Writes a gzip file: a line of JSON, padded to whole words, then the numbers. The checksum and length of gzip reveal a damaged
 * file. A cache that cannot be written is a warning, not an error.
 */
export async function writeCache<Header>(
  cache: Cache<Header>,
  header: Header,
  arrays: readonly (Float32Array | Uint8Array)[],
): Promise<void> {
  const json = new TextEncoder().encode(JSON.stringify(header));
  const line = new TextEncoder().encode(`${' '.repeat(3 - (json.length % 4))}\n`);
  const bytes = arrays.map((array) => new Uint8Array(array.buffer as ArrayBuffer, array.byteOffset, array.byteLength));
  try {
    await mkdir(cache.folder, { recursive: true });
    const packed = Readable.from([json, line, ...bytes]).pipe(createGzip({ level: 1 }));
    await writeFileSafely(await pathOf(cache), packed);
  } catch (error) {
    const words = error instanceof Error ? error.message : String(error);
    console.warn(`the ${cache.what} are not cached and will be made again next time: ${words}`);
  }
}

/** What a cache file holds, as `read` makes it; null if there is none, or, with a warning, if it is damaged. */
export async function readCache<Header, T>(
  cache: Cache<Header>,
  read: (contents: Contents<Header>) => T,
): Promise<T | null> {
  const path = await pathOf(cache);
  try {
    const unpacked = await promisify(gunzip)(await readFile(path));
    const start = unpacked.indexOf('\n') + 1;
    const header = checked(cache.header, JSON.parse(unpacked.toString('utf8', 0, start)), 'its first line');
    let at = start;
    const bytes = (length: number) => {
      const part = unpacked.subarray(at, at + length);
      if (part.length < length) throw new RangeError('cut off');
      at += length;
      return part;
    };
    const floats = (count: number) => new Float32Array(Uint8Array.from(bytes(count * 4)).buffer);
    return read({ header, bytes, floats });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    const words = error instanceof Error ? error.message : String(error);
    console.warn(`${path}: the cached ${cache.what} cannot be read (${words}); they are made again`);
    return null;
  }
}
