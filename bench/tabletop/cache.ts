import { createHash } from 'node:crypto';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { deserialize, serialize } from 'node:v8';
import { gunzip, gzip } from 'node:zlib';
import { writeFileSafely } from '../../engine/files/files.ts';
import { WORLD_HASH } from './world.ts';

const warn = (line: string, error: unknown, then: string) =>
  console.warn(`${line} (${error instanceof Error ? error.message : String(error)}); ${then}`);

/** The version of the fields that are kept: another one makes everything again. */
const VERSION = 1;

/**
 * Returns the result of `make` for these settings of the world. It is kept in a file of the folder, which is named by the settings and
 * by the world's own hash, and read from there the next time. The checksum and length of gzip reveal a damaged file. A cache that cannot
 * be read or written is a warning, not an error. `what` names the result in files and messages: 'demonstrations'.
 */
export async function cached<T>(folder: string, what: string, settings: unknown, make: () => Promise<T>): Promise<T> {
  const hash = createHash('sha256').update(JSON.stringify([VERSION, WORLD_HASH, settings]));
  const path = join(folder, `${what}-${hash.digest('hex').slice(0, 16)}.v8.gz`);
  try {
    return deserialize(await promisify(gunzip)(await readFile(path)));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT')
      warn(`${path}: the cached ${what} cannot be read`, error, 'they are made again');
  }
  const made = await make();
  try {
    await mkdir(folder, { recursive: true });
    await writeFileSafely(path, [await promisify(gzip)(serialize(made), { level: 1 })]);
  } catch (error) {
    warn(`the ${what} are not cached`, error, 'they will be made again next time');
  }
  return made;
}
