/** The folder of a run. A new run replaces another one only with --overwrite. */
import { access, readdir } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { removeAbandoned } from '../engine/files/files.ts';
import { InputError } from '../engine/index.ts';
import { PACKED_QUESTIONS } from '../model/systems/index.ts';
import type { Checkpoint } from '../model/training/checkpoint.ts';
import { hasCheckpoint, openNewest } from '../model/training/kept-checkpoints.ts';
import type { RunSettings } from '../model/training/run-settings.ts';
import { expectSameRun } from '../model/training/same-run.ts';
import { expectNoFiles, type MadeFolder, makeFolder } from './outputs.ts';

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
 * Chooses and makes the folder of a run, locks it against other runs, and removes what runs that were killed left there.
 * --resume and --overwrite without --out choose the last of the usual folders.
 *
 * @throws InputError if there is nothing to resume, if a run would be lost, if the folder cannot be written, or if
 * another run is writing there
 */
export async function runFolder(options: RunFolderOptions, note: (line: string) => void): Promise<RunFolder> {
  const { out, usual, resume, overwrite } = options;
  const last = (await usedFolders(usual)).at(-1);
  const chosen = out ?? (resume ? (last ?? usual) : overwrite ? last : undefined);
  if (resume && !(await hasCheckpoint(checkpointIn(chosen!))))
    throw new InputError(`--resume: there is no checkpoint in ${chosen}; leave --resume out to begin a run`);
  const made = chosen === undefined ? await makeUnused(usual) : await makeFolder('out', chosen);
  const { path } = made;
  const checkpoint = checkpointIn(path);
  const leave = await made.lock(note);
  try {
    await removeRemains(path);
    if (resume) return { path, checkpoint, resume: await openNewest(checkpoint, { verify: true, note }), leave };
    if (!overwrite) await refuseToLose(checkpoint);
  } catch (error) {
    await leave();
    throw error;
  }
  if (path !== usual && out === undefined && !overwrite)
    note(
      `${usual} exists already, so this run goes to ${path}; --resume resumes the last run, --overwrite replaces it`,
    );
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

/** Makes the first usual folder that does not exist; one without a checkpoint may belong to a run that has just begun. */
async function makeUnused(usual: string): Promise<MadeFolder> {
  for (let number = 1; ; number += 1) {
    const path = numbered(usual, number);
    const made = (await exists(path)) ? null : await makeFolder('out', path);
    if (made?.isNew) return made;
  }
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

/** Removes what runs that were killed left in a folder that is locked now. */
async function removeRemains(folder: string): Promise<void> {
  for (const own of [folder, join(folder, 'episodes')]) await removeAbandoned(own);
}
