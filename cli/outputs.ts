/** Whether what a command is going to write can be written, asked before the work begins; folders that one process writes at a time. */
import { constants } from 'node:fs';
import { access, readdir, rmdir, stat } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { ensureFolder, fileError } from '../engine/files/files.ts';
import { lockFile } from '../engine/files/lock.ts';
import { InputError, quote } from '../engine/index.ts';
import type { Options } from './options.ts';

/** @throws InputError that names the first option whose file or folder cannot be written */
export async function expectWritable(options: Options, values: Readonly<Record<string, unknown>>): Promise<void> {
  for (const [name, value] of Object.entries(values)) {
    const { writes } = options[name];
    if (writes === undefined || typeof value !== 'string') continue;
    const where = `--${name} ${value}`;
    const own = await stat(value).catch(() => null);
    if (writes === 'file' && own?.isDirectory()) throw new InputError(`${where}: this is a folder; name a file`);
    if (writes === 'folder' && own && !own.isDirectory())
      throw new InputError(`${where}: this is a file; name a folder`);
    // The command makes a folder with those above it, and for a file no folder.
    const target = resolve(value);
    const place = own ? target : writes === 'file' ? dirname(target) : await nearestThere(target);
    if (!own && (await stat(place).catch(() => null))?.isFile())
      throw new InputError(`${where}: ${place} is a file, not a folder`);
    await access(place, constants.W_OK).catch((error) => {
      throw fileError(error, where, 'write it');
    });
  }
}

/** @throws InputError if the folder is there and holds files, which might be overwritten */
export async function expectNoFiles(option: string, folder: string, advice = ''): Promise<void> {
  const files = (await readdir(folder).catch(() => [])).filter((name) => !name.startsWith('.'));
  if (files.length > 0)
    throw new InputError(
      `--${option} ${folder}: the folder holds ${quote(files[0])}; choose an empty or a new folder${advice}`,
    );
}

export interface MadeFolder {
  readonly path: string;
  /** False if the folder was there. */
  readonly isNew: boolean;
  /**
   * Locks the folder, which tests that it can be written, until the returned function is called or this process ends. The
   * function also removes the folders that were made and are still empty.
   *
   * @throws InputError if another process has locked it, or if it cannot be written
   */
  lock(note: (line: string) => void): Promise<() => Promise<void>>;
}

/** Makes the folder that an option names, and its parents. @throws InputError if that cannot be done */
export async function makeFolder(option: string, path: string): Promise<MadeFolder> {
  const where = `--${option} ${path}`;
  const make = (folder: string) => ensureFolder(folder, where);
  const parent = await make(dirname(path));
  const own = await make(path);
  let first = parent ?? own;
  const lock = async (note: (line: string) => void) => {
    const take = () => access(path, constants.W_OK).then(() => lockFile(join(path, '.running')));
    const taken = await take()
      .catch(async (error) => {
        if (error.code !== 'ENOENT') throw error;
        // Another process has left the folder since it was made, and has removed it, because it was empty.
        const again = await make(path);
        first ??= again;
        return take();
      })
      .catch((error) => {
        throw fileError(error, where, 'write in this folder');
      });
    if ('holder' in taken) {
      const who = taken.holder ? `another run (process ${taken.holder})` : 'another run';
      throw new InputError(
        `${path}: ${who} is writing there; wait until it ends, or choose another folder with --${option}`,
      );
    }
    if (!taken.sure)
      note(`${path}: this file system has no locks, so nothing keeps another run from writing there too`);
    return async () => {
      taken.release();
      let folder = resolve(path);
      while (first !== undefined && folder.startsWith(resolve(first)) && (await removedEmpty(folder)))
        folder = dirname(folder);
    };
  };
  return { path, isNew: own !== undefined, lock };
}

/** Removes a folder unless something is in it; returns whether it did. */
const removedEmpty = (folder: string) =>
  rmdir(folder).then(
    () => true,
    () => false,
  );

/**
 * Makes the folder that an option names, and locks it until the returned function is called.
 *
 * @throws InputError if it holds files, if it cannot be made or written, or if another process has locked it
 */
export async function takeNewFolder(
  option: string,
  path: string,
  note: (line: string) => void,
): Promise<() => Promise<void>> {
  const leave = await (await makeFolder(option, path)).lock(note);
  try {
    await expectNoFiles(option, path);
  } catch (error) {
    await leave();
    throw error;
  }
  return leave;
}

/** The nearest part of a path that is there. */
async function nearestThere(path: string): Promise<string> {
  const there = await stat(path).catch(() => null);
  return there || dirname(path) === path ? path : nearestThere(dirname(path));
}
