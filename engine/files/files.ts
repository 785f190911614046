import { rmSync } from 'node:fs';
import { type FileHandle, mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { ByteSource, FilePart } from './bytes.ts';
import { InputError } from './errors.ts';
import { lockDescriptor, removeUnlocked } from './lock.ts';

// Node only: modules that also run in a browser load this one by a dynamic import.

/** The most bytes of one read or write call, below the limits of all platforms. */
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

/** Turns an error of node:fs into one line about `path`; returns any other error unchanged. */
export function fileError(error: unknown, path: string, what: string): unknown {
  if (!(error instanceof Error) || error instanceof InputError) return error;
  const { code, syscall } = error as NodeJS.ErrnoException;
  if (code === undefined || syscall === undefined) return error;
  return new InputError(`${path}: cannot ${what}: ${reasons[code] ?? code}`, { cause: error });
}

/** An open file as a byte source; `close` closes the handle. */
async function handleSource(handle: FileHandle, name: string): Promise<ByteSource> {
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

/** Opens a file for reading by range. @throws InputError if it is missing or cannot be read */
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

/** A folder on disk; `list` names what is in it, or in a folder of it, sorted, and nothing where there is no such folder. */
export function diskFolder(path: string) {
  const list = (inner = ''): Promise<string[]> =>
    readdir(join(path, inner)).then(
      (names) => names.sort(),
      (error) => {
        if (['ENOENT', 'ENOTDIR'].includes(error.code)) return [];
        throw fileError(error, join(path, inner), 'list it');
      },
    );
  return { name: path, path, open: (file: string) => openFile(join(path, file)), list };
}

/** A file on disk as a folder with one entry. */
export function diskFile(path: string): ReturnType<typeof diskFolder> {
  const [folder, name] = [diskFolder(dirname(path)), basename(path)];
  const open = async (file: string) => {
    if (file === name) return folder.open(file);
    throw new InputError(`${join(folder.path, file)}: only ${name} was named`);
  };
  return { ...folder, open, list: async (inner = '') => (inner === '' ? [name] : []) };
}

/** Whether a path is a file or a folder; null if there is nothing. */
export async function kindOfPath(path: string): Promise<'file' | 'folder' | null> {
  const found = await stat(path).catch(() => null);
  return found && (found.isDirectory() ? 'folder' : 'file');
}

/**
 * Makes a folder and its parents, as far as they are missing. Returns the first that was made; undefined if all were there.
 *
 * @throws InputError, which names `where`
 */
export const ensureFolder = (path: string, where = path): Promise<string | undefined> =>
  mkdir(path, { recursive: true }).catch((error) => {
    throw fileError(error, where, 'make this folder');
  });

/** Writes a value as indented JSON, as `writeFileSafely` does. */
export const writeJson = (path: string, value: unknown): Promise<void> =>
  writeFileSafely(path, [`${JSON.stringify(value, null, 2)}\n`]);

let written = 0;

/**
 * Writes a file atomically: the parts go into a temporary file in the same folder, which is flushed to the disk and
 * renamed to the target; then the folder is flushed, so that a power failure does not undo it. After an error, of the disk
 * or of `parts`, and after process.exit, the target is unchanged and the temporary file is gone; what a process leaves that
 * was killed goes with `removeAbandoned`.
 *
 * @throws InputError for errors of the file system; also whatever `parts` throws
 */
export async function writeFileSafely(
  path: string,
  parts: AsyncIterable<FilePart> | Iterable<FilePart>,
  /** Called once the temporary file is whole and on the disk. */
  beforeRename?: () => Promise<void>,
): Promise<void> {
  let [temporary, handle]: [string, FileHandle | undefined] = ['', undefined];
  const remove = () => rmSync(temporary, { force: true });
  process.once('exit', remove);
  try {
    [temporary, handle] = await openTemporary(path);
    for await (const part of parts) await writeAll(handle, part);
    await handle.sync();
    await handle.close();
    handle = undefined;
    await beforeRename?.();
    await rename(temporary, path);
    await flushFolder(dirname(path));
  } catch (error) {
    await handle?.close().catch(() => {}); // the first error is the one to report
    if (temporary) await rm(temporary, { force: true }).catch(() => {});
    throw fileError(error, path, 'write it');
  } finally {
    process.off('exit', remove);
  }
}

/** A new file beside `path`, locked for as long as it is written. */
async function openTemporary(path: string): Promise<[string, FileHandle]> {
  for (;;) {
    const temporary = `${path}.${process.pid}-${written++}.part`;
    // A process of the same number, of the past or of another container, may have left or be writing one of this name.
    const handle = await open(temporary, 'wx').catch((error) => {
      if (error.code !== 'EEXIST') throw error;
    });
    if (!handle) continue;
    // Between its making and its locking `removeAbandoned` may have taken it for one that was left.
    if (lockDescriptor(handle.fd) !== 'held' && (await handle.stat()).nlink > 0) return [temporary, handle];
    await handle.close();
  }
}

/** Removes the temporary files of `writeFileSafely` in a folder that no process is writing any more. */
export async function removeAbandoned(folder: string): Promise<void> {
  const names = await readdir(folder).catch(() => []);
  for (const name of names) if (/\.\d+-\d+\.part$/.test(name)) removeUnlocked(join(folder, name));
}

/** Windows opens no folders, and needs no flush. */
async function flushFolder(path: string): Promise<void> {
  const handle = await open(path).catch(() => null);
  await handle?.sync().catch(() => {}); // some file systems refuse it; the file itself is on the disk
  await handle?.close();
}

async function writeAll(handle: FileHandle, part: FilePart): Promise<void> {
  const { at, bytes } =
    typeof part === 'string' || part instanceof Uint8Array
      ? { at: undefined, bytes: typeof part === 'string' ? new TextEncoder().encode(part) : part }
      : part;
  let done = 0;
  while (done < bytes.length) {
    const position = at === undefined ? null : at + done;
    const { bytesWritten } = await handle.write(bytes, done, Math.min(bytes.length - done, READ_LIMIT), position);
    done += bytesWritten;
  }
}
