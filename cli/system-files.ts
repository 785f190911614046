/** Systems of one's own, from files that `--system-file` names in front of, or behind, the options of any command. */
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { InputError, quote, reasonOf } from '../engine/files/errors.ts';
import { addSystem, type System } from '../model/systems/index.ts';

const OPTION = '--system-file';

/** Adds the systems of the named files; returns the other words. @throws InputError if a file has none, or one that cannot be added */
export async function withSystemFiles(words: readonly string[]): Promise<string[]> {
  const others: string[] = [];
  for (let i = 0; i < words.length; i++) {
    const [option, ...value] = words[i].split('=');
    if (option !== OPTION) {
      others.push(words[i]);
      continue;
    }
    const file = value.length > 0 ? value.join('=') : words[++i];
    if (!file) throw new InputError(`${OPTION} needs a file that exports a system`);
    await addFrom(file);
  }
  return others;
}

async function addFrom(file: string): Promise<void> {
  if (!existsSync(file)) throw new InputError(`${OPTION} ${file}: there is no such file`);
  const contents: Readonly<Record<string, unknown>> = await import(pathToFileURL(resolve(file)).href).catch((error) => {
    const advice = file.endsWith('.ts') ? '; outside of a package with "type": "module", name it .mts' : '';
    throw new InputError(`${OPTION} ${file}: it cannot be imported: ${reasonOf(error)}${advice}`);
  });
  const found = Object.values(contents).filter(isSystem);
  if (found.length === 0)
    throw new InputError(
      `${OPTION} ${file}: it exports no system; one has ${fields.map(quote).join(', ')}, as in model/systems/pi0.ts`,
    );
  for (const system of new Set(found)) addSystem(system);
}

const fields = ['name', 'parent', 'description', 'source', 'blocks', 'attention', 'objectives', 'actionTokens'];

const isSystem = (value: unknown): value is System =>
  typeof value === 'object' && value !== null && fields.every((field) => field in value);
