/** Locks of the operating system on open files. A lock ends with the process that holds it, however that ends. Node only. */
import { closeSync, fstatSync, ftruncateSync, openSync, readFileSync, rmSync, statSync, writeSync } from 'node:fs';
import { createRequire } from 'node:module';

const requireHere = createRequire(import.meta.url);

/** More than a process takes to write its number into a file that it has locked. */
const MILLISECONDS_TO_WRITE = 50;
const sleep = (milliseconds: number) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);

/** Some file systems, mostly of clusters, have no locks, and some kernels none on open files. */
const noLocks = ['ENOLCK', 'ENOSYS', 'ENOTSUP', 'EOPNOTSUPP', 'EINVAL', 'EPERM', 'EACCES'];
/** The library has no binary for this machine. */
const noLibrary = ['MODULE_NOT_FOUND', 'ERR_DLOPEN_FAILED', 'ADDON_NOT_FOUND', 'CANNOT_LOAD'];

/** Locks an open file until it is closed: 'held' if another descriptor has it locked, 'none' if there are no locks here. */
export function lockDescriptor(descriptor: number): 'taken' | 'held' | 'none' {
  try {
    const { tryLock } = requireHere('fs-native-extensions') as { tryLock(descriptor: number): boolean };
    return tryLock(descriptor) ? 'taken' : 'held';
  } catch (error) {
    if ([...noLocks, ...noLibrary].includes((error as NodeJS.ErrnoException).code ?? '')) return 'none';
    throw error;
  }
}

interface FileLock {
  /** False where the file system has no locks: others are not kept out then. */
  readonly sure: boolean;
  /** Removes the file, which unlocks it. */
  release(): void;
}

/**
 * Makes the file `path`, locks it, and writes the number of this process into it. A file that somebody left is taken over.
 * Where another process holds it, the result is what that one wrote.
 *
 * @throws Error of node if the file cannot be written
 */
export function lockFile(path: string): FileLock | { readonly holder: string } {
  for (;;) {
    const descriptor = openSync(path, 'a+');
    const state = lockDescriptor(descriptor);
    const [own, there] = [fstatSync(descriptor), statSync(path, { throwIfNoEntry: false })];
    if (state !== 'held' && there?.ino === own.ino && there.dev === own.dev) {
      ftruncateSync(descriptor);
      writeSync(descriptor, String(process.pid));
      const release = () => {
        rmSync(path, { force: true });
        closeSync(descriptor);
      };
      return { sure: state === 'taken', release };
    }
    // Whoever held a file that is no longer there has removed it since it was opened: the next one may be free.
    const isHeld = state === 'held' && there !== undefined;
    if (isHeld) sleep(MILLISECONDS_TO_WRITE);
    const holder = isHeld ? readFileSync(descriptor, 'utf8') : null;
    closeSync(descriptor);
    if (holder !== null) return { holder };
  }
}

/** Removes a file unless a process has it locked; one that cannot be opened or locked stays. */
export function removeUnlocked(path: string): void {
  let descriptor: number | undefined;
  try {
    descriptor = openSync(path, 'r+');
    if (lockDescriptor(descriptor) === 'taken') rmSync(path);
  } catch {
    // It is gone, or belongs to somebody else.
  } finally {
    if (descriptor !== undefined) closeSync(descriptor);
  }
}
