import { rmSync } from 'node:fs';
import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { ByteSource, Folder } from './bytes.ts';
import { InputError } from './errors.ts';

// Node only. Loaded by a dynamic import from modules that also run in a browser.

/** One read call takes at most this much, whatever the platform's own limit is. */
const READ_LIMIT = 2 ** 30;

const reasons: Record<string, string> = {
  ENOENT: 'no such file or folder',
  EISDIR: 'is a folder, not a file',
  ENOTDIR: 'a part of the path is a file, not a folder',
  EEXIST: 'a file of this name is there',
  EACCES: 'permission denied',
  EPERM: 'permission denied',
  EROFS: 'the file system is read-only',
  ENOSPC: 'the disk is full; free some space and try again',
  EDQUOT: 'the disk quota is used up; free some space and try again',
  EFBIG: 'the file would be larger than the system allows',
  EIO: 'the disk reported an input or output error',
  EMFILE: 'too many files are open',
};

/** An error of node:fs as one clear line about `path`; any other error as it is. */
export function fileError(error: unknown, path: string, what: string): unknown {
  if (!(error instanceof Error) || error instanceof InputError) return error;
  const { code, syscall } = error as NodeJS.ErrnoException;
  if (code === undefined || syscall === undefined) return error;
  return new InputError(`${path}: cannot ${what}: ${reasons[code] ?? code}`, { cause: error });
}

/** An open file as a byte source; `close` closes the handle. */
export async function handleSource(handle: FileHandle, name: string): Promise<ByteSource> {
  const stat = await handle.stat();
  if (stat.isDirectory()) throw new InputError(`${name}: cannot read it: ${reasons.EISDIR}`);
  const read = async (start: number, end: number) => {
    const out = new Uint8Array(Math.max(0, end - start));
    let done = 0;
    while (done < out.length) {
      const length = Math.min(out.length - done, READ_LIMIT);
      const { bytesRead } = await handle.read(out, done, length, start + done).catch((error) => {
        throw fileError(error, name, 'read it');
      });
      if (bytesRead === 0) return out.subarray(0, done);
      done += bytesRead;
    }
    return out;
  };
  return { name, size: stat.size, read, close: () => handle.close() };
}

/** Opens a file for reading by range. @throws InputError where it is missing or may not be read */
export async function openFile(path: string): Promise<ByteSource> {
  const handle = await open(path, 'r').catch((error) => {
    throw fileError(error, path, 'open it');
  });
  try {
    return await handleSource(handle, path);
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/** A folder on disk. */
export function diskFolder(path: string): Folder {
  return { name: path, open: (file) => openFile(join(path, file)) };
}

let written = 0;

/**
 * Writes a file in one go: the chunks into a temporary file beside the target, flushed to the disk, then renamed over
 * the target. After an error, of the disk or of `chunks`, and after process.exit, the target is as it was and nothing
 * half-written stays.
 *
 * @throws InputError for errors of the file system; whatever `chunks` throws
 */
export async function writeFileSafely(
  path: string,
  chunks: AsyncIterable<Uint8Array | string> | Iterable<Uint8Array | string>,
): Promise<void> {
  const temporary = `${path}.${process.pid}-${written++}.part`;
  const remove = () => rmSync(temporary, { force: true });
  let handle: FileHandle | undefined;
  process.once('exit', remove);
  try {
    handle = await open(temporary, 'w');
    for await (const chunk of chunks) await writeAll(handle, chunk);
    await handle.sync();
    await handle.close();
    handle = undefined;
    await rename(temporary, path);
  } catch (error) {
    await handle?.close().catch(() => {}); // the first error is the one to report
    await rm(temporary, { force: true }).catch(() => {});
    throw fileError(error, path, 'write it');
  } finally {
    process.off('exit', remove);
  }
}

async function writeAll(handle: FileHandle, chunk: Uint8Array | string): Promise<void> {
  const bytes = typeof chunk === 'string' ? new TextEncoder().encode(chunk) : chunk;
  let done = 0;
  while (done < bytes.length) {
    const { bytesWritten } = await handle.write(bytes, done, Math.min(bytes.length - done, READ_LIMIT));
    done += bytesWritten;
  }
}
