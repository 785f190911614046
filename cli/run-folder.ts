/** The folder of a run. A new run replaces another one only with --overwrite. */
import { access, mkdir, mkdtemp, readdir, readFile, rm, rmdir, writeFile } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { fileError } from '../engine/files/files.ts';
import { InputError } from '../engine/index.ts';
import { PACKED_QUESTIONS } from '../model/systems/index.ts';
import type { Checkpoint } from '../model/training/checkpoint.ts';
import { hasCheckpoint, openNewest } from '../model/training/kept-checkpoints.ts';
import type { RunSettings } from '../model/training/run-settings.ts';
import { expectSameRun } from '../model/training/same-run.ts';
import { expectNoFiles } from './outputs.ts';

export interface RunFolder {
  readonly path: string;
  readonly checkpoint: string;
  /** The checkpoint to resume from; the caller closes it. */
  readonly resume?: Checkpoint;
  /** Unlocks the folder, and removes the folders that were made for this run and are still empty. */
  leave(): Promise<void>;
}

interface RunFolderOptions {
  /** A folder; by default `usual`, or `usual-2`, `usual-3` ... for runs after the first. */
  out?: string;
  usual: string;
  resume?: boolean;
  overwrite?: boolean;
}

/**
 * Chooses and makes the folder of a run, and tests that it is writable. --resume and --overwrite without --out choose
 * the last of the usual folders.
 *
 * @throws InputError if there is nothing to resume, if a run would be lost, or if the folder cannot be written
 */
export async function runFolder(options: RunFolderOptions, note: (line: string) => void): Promise<RunFolder> {
  const { out, usual, resume, overwrite } = options;
  const last = (await usedFolders(usual)).at(-1);
  if (resume) {
    const path = out ?? last ?? usual;
    const checkpoint = checkpointIn(path);
    if (!(await hasCheckpoint(checkpoint)))
      throw new InputError(`--resume: there is no checkpoint in ${path}; leave --resume out to begin a run`);
    await tryToWrite(path);
    const unlock = await lock(path);
    return { path, checkpoint, resume: await openNewest(checkpoint, { verify: true, note }), leave: unlock };
  }
  const path = out ?? (overwrite && last ? last : await firstUnused(usual));
  const checkpoint = checkpointIn(path);
  if (!overwrite) await refuseToLose(checkpoint);
  const removeEmpty = await makeFolder(path);
  await tryToWrite(path);
  const unlock = await lock(path);
  if (path !== usual && out === undefined && !overwrite)
    note(
      `${usual} exists already, so this run goes to ${path}; --resume resumes the last run, --overwrite replaces it`,
    );
  const leave = async () => {
    await unlock();
    await removeEmpty();
  };
  return { path, checkpoint, leave };
}

/**
 * The settings of a resumed run, with more steps or moved data where they are given.
 *
 * @throws InputError if another command began the run, or if other settings are given than it was begun with
 */
export function resumedSettings(
  name: 'train' | 'pretrain',
  given: Partial<RunSettings>,
  { resume, path }: RunFolder,
): RunSettings {
  const begun = resume!.settings.run;
  const beganIt = begun.system === PACKED_QUESTIONS ? 'pretrain' : 'train';
  if (name !== beganIt)
    throw new InputError(
      `--resume: insula ${beganIt} began the run in ${path}; resume it with insula ${beganIt}, or name another folder with --out`,
    );
  expectSameRun({ settings: begun }, { settings: given });
  const { steps = begun.steps, data = begun.data, dataset = begun.dataset } = given;
  if (steps < resume!.progress.step)
    throw new InputError(`--steps ${steps}: the run in ${path} is already at step ${resume!.progress.step}`);
  return { ...begun, steps, data, dataset };
}

const checkpointIn = (folder: string) => join(folder, 'checkpoint.safetensors');

const exists = (path: string) =>
  access(path).then(
    () => true,
    () => false,
  );

const numbered = (usual: string, number: number) => (number === 1 ? usual : `${usual}-${number}`);

/** The usual folders with a checkpoint, in the order of their numbers. */
async function usedFolders(usual: string): Promise<string[]> {
  const entries = await readdir(dirname(usual)).catch(() => []);
  const numbers = entries.flatMap((entry) => {
    if (entry === basename(usual)) return [1];
    const rest = entry.startsWith(`${basename(usual)}-`) ? entry.slice(basename(usual).length + 1) : '';
    return /^[1-9]\d*$/.test(rest) ? [Number(rest)] : [];
  });
  const used = [];
  for (const number of numbers.sort((a, b) => a - b))
    if (await hasCheckpoint(checkpointIn(numbered(usual, number)))) used.push(numbered(usual, number));
  return used;
}

/** The first usual folder that does not exist; one without a checkpoint may belong to a run that has just begun. */
async function firstUnused(usual: string): Promise<string> {
  let number = 1;
  while (await exists(numbered(usual, number))) number += 1;
  return numbered(usual, number);
}

async function refuseToLose(path: string): Promise<void> {
  const choice = 'replace it with --overwrite, or choose another folder with --out';
  if (!(await hasCheckpoint(path))) {
    await expectNoFiles('out', dirname(path), ', or write into this one with --overwrite');
    return;
  }
  const checkpoint = await openNewest(path, { verify: false, note() {} }).catch((error) => {
    throw error instanceof InputError ? new InputError(`${error.message}; ${choice}`) : error;
  });
  await checkpoint.close();
  const { step } = checkpoint.progress;
  const { steps } = checkpoint.settings.run;
  if (step > 0)
    throw new InputError(`${path} holds a run of ${step} of ${steps} steps: resume it with --resume, ${choice}`);
}

/** Makes a folder and its parents; the returned function removes those that were made and are still empty. */
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
 * Locks a folder against other runs until the returned function is called or this process ends.
 *
 * @throws InputError if another run has locked it
 */
async function lock(folder: string): Promise<() => Promise<void>> {
  const path = join(folder, '.running');
  const holder = Number(await readFile(path, 'utf8').catch(() => ''));
  if (holder > 0 && holder !== process.pid && isAlive(holder))
    throw new InputError(
      `${folder}: another run (process ${holder}) is writing there; wait until it ends, or choose another folder with --out`,
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
    return (error as NodeJS.ErrnoException).code === 'EPERM'; // the process exists, and belongs to another user
  }
}

/** Tests that a run can be saved, before it begins. */
async function tryToWrite(path: string): Promise<void> {
  const made = await mkdtemp(join(path, '.writable-')).catch((error) => {
    throw fileError(error, `--out ${path}`, 'write in this folder');
  });
  await rmdir(made);
}
