/** Whether what a command is going to write can be written, asked before the work begins. */
import { constants } from 'node:fs';
import { access, readdir, stat } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { fileError } from '../engine/files/files.ts';
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

/** The nearest part of a path that is there. */
async function nearestThere(path: string): Promise<string> {
  const there = await stat(path).catch(() => null);
  return there || dirname(path) === path ? path : nearestThere(dirname(path));
}
