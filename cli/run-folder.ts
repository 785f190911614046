/** Where a run's files go. A new run never takes the place of another one unasked. */
import { access, mkdir, mkdtemp, readdir, readFile, rm, rmdir, writeFile } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { fileError } from '../engine/files/files.ts';
import { InputError, quote } from '../engine/index.ts';
import { type Checkpoint, openCheckpoint } from '../model/training/checkpoint.ts';

export interface RunFolder {
  readonly path: string;
  readonly checkpoint: string;
  /** What to go on from; the caller closes it. */
  readonly resume?: Checkpoint;
  /** Lets other runs write here again; removes the folders that were made here and are still empty. */
  leave(): Promise<void>;
}

export interface RunFolderOptions {
  /** A folder; without it `usual`, or `usual-2`, `usual-3` ... for runs after the first. */
  out?: string;
  usual: string;
  resume?: boolean;
  overwrite?: boolean;
}

/**
 * Chooses, makes and tries the folder of a run. --resume and --overwrite without --out mean the last of the usual folders.
 *
 * @throws InputError where there is nothing to resume, where a run would be lost, and where nothing can be written
 */
export async function runFolder(options: RunFolderOptions, note: (line: string) => void): Promise<RunFolder> {
  const { out, usual, resume, overwrite } = options;
  const last = (await usedFolders(usual)).at(-1);
  if (resume) {
    const path = out ?? last ?? usual;
    const checkpoint = checkpointIn(path);
    if (!(await exists(checkpoint)))
      throw new InputError(`--resume: there is no checkpoint in ${path}; leave it out to begin a run`);
    await tryToWrite(path);
    const unlock = await lock(path);
    return { path, checkpoint, resume: await openCheckpoint(checkpoint), leave: unlock };
  }
  const path = out ?? (overwrite && last ? last : await firstUnused(usual));
  const checkpoint = checkpointIn(path);
  if (!overwrite) await refuseToLose(checkpoint);
  const removeEmpty = await makeFolder(path);
  await tryToWrite(path);
  const unlock = await lock(path);
  if (path !== usual && out === undefined && !overwrite)
    note(
      `${usual} is there already: this run goes to ${path}; --resume goes on with the last run, --overwrite replaces it`,
    );
  const leave = async () => {
    await unlock();
    await removeEmpty();
  };
  return { path, checkpoint, leave };
}

const checkpointIn = (folder: string) => join(folder, 'checkpoint.safetensors');

const exists = (path: string) =>
  access(path).then(
    () => true,
    () => false,
  );

const numbered = (usual: string, number: number) => (number === 1 ? usual : `${usual}-${number}`);

/** The usual folders that hold a checkpoint, in the order of their numbers. */
async function usedFolders(usual: string): Promise<string[]> {
  const entries = await readdir(dirname(usual)).catch(() => []);
  const numbers = entries.flatMap((entry) => {
    if (entry === basename(usual)) return [1];
    const rest = entry.startsWith(`${basename(usual)}-`) ? entry.slice(basename(usual).length + 1) : '';
    return /^[1-9]\d*$/.test(rest) ? [Number(rest)] : [];
  });
  const used = [];
  for (const number of numbers.sort((a, b) => a - b))
    if (await exists(checkpointIn(numbered(usual, number)))) used.push(numbered(usual, number));
  return used;
}

/** Behind every folder that there is, so that runs side by side do not meet. */
async function firstUnused(usual: string): Promise<string> {
  let number = 1;
  while (await exists(numbered(usual, number))) number += 1;
  return numbered(usual, number);
}

async function refuseToLose(path: string): Promise<void> {
  const choice = 'replace it with --overwrite, or choose another folder with --out';
  if (!(await exists(path))) {
    const others = (await readdir(dirname(path)).catch(() => [])).filter((name) => !name.startsWith('.'));
    if (others.length > 0)
      throw new InputError(
        `--out ${dirname(path)}: the folder holds ${quote(others[0])} and no run: choose an empty or a new folder with --out, or write into this one with --overwrite`,
      );
    return;
  }
  const checkpoint = await openCheckpoint(path).catch((error) => {
    throw error instanceof InputError ? new InputError(`${error.message}; ${choice}`) : error;
  });
  await checkpoint.close();
  const { step } = checkpoint.progress;
  const { steps } = checkpoint.settings.run;
  if (step > 0)
    throw new InputError(`${path} holds a run of ${step} of ${steps} steps: go on with --resume, ${choice}`);
}

/** Makes a folder and those above it; the function it returns removes those that were made and are still empty. */
async function makeFolder(path: string): Promise<() => Promise<void>> {
  const first = await mkdir(path, { recursive: true }).catch((error) => {
    throw fileError(error, `--out ${path}`, 'make this folder');
  });
  return async () => {
    let folder = resolve(path);
    while (first !== undefined && folder.startsWith(resolve(first))) {
      const removed = await rmdir(folder).then(
        () => true,
        () => false,
      );
      if (!removed) return;
      folder = dirname(folder);
    }
  };
}

/**
 * Keeps other runs out of a folder as long as this process lives, or until the function that it returns is called.
 *
 * @throws InputError where another run is writing there
 */
async function lock(folder: string): Promise<() => Promise<void>> {
  const path = join(folder, '.running');
  const holder = Number(await readFile(path, 'utf8').catch(() => ''));
  if (holder > 0 && holder !== process.pid && isAlive(holder))
    throw new InputError(
      `${folder}: another run (process ${holder}) writes there; wait for its end, or choose another folder with --out`,
    );
  await rm(path, { force: true });
  await writeFile(path, String(process.pid), { flag: 'wx' }).catch((error) => {
    throw fileError(error, path, 'begin a run here');
  });
  return () => rm(path, { force: true });
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'; // alive, and somebody else's
  }
}

/** A run that cannot be saved should not begin. */
async function tryToWrite(path: string): Promise<void> {
  const made = await mkdtemp(join(path, '.writable-')).catch((error) => {
    throw fileError(error, `--out ${path}`, 'write in this folder');
  });
  await rmdir(made);
}
