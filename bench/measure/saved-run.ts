import { readFile } from 'node:fs/promises';
import { fileError } from '../../engine/files/files.ts';
import { InputError } from '../../engine/index.ts';

/** A run that `command` saved with --out. @throws InputError where the file cannot be read, or is none */
export async function readSavedRun<Run extends { readonly format: string }>(
  path: string,
  format: Run['format'],
  command: string,
): Promise<Run> {
  const contents = await readFile(path, 'utf8').catch((error) => {
    throw fileError(error, path, 'read it');
  });
  try {
    const run = JSON.parse(contents);
    if (run?.format === format) return run;
  } catch {
    // said below
  }
  throw new InputError(`${path}: this is no run that '${command} --out' saved`);
}
