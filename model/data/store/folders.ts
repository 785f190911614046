import { type ByteSource, type Folder, memorySource } from '../../../engine/files/bytes.ts';
import { InputError } from '../../../engine/files/errors.ts';
import { foreignKindOf } from '../image-header.ts';
import type { ListedFolder } from '../import/source.ts';

/** What an index depends on: files and folders by path, with their states, or names. A folder's path ends in a slash. */
export type Dependencies = Record<string, string>;

/** The bytes of a file that is read at once. */
const SMALL = 2 ** 20;
/** The bytes that tell the kind of a file. */
const HEAD = 64;

/** Opens what lies at a path (node), or takes a folder that can be listed. @throws InputError if there is nothing */
export async function listedFolder(place: string | ListedFolder): Promise<ListedFolder> {
  if (typeof place !== 'string') return place;
  const { diskFile, diskFolder, kindOfPath } = await import('../../../engine/files/files.ts');
  const kind = await kindOfPath(place);
  if (kind !== null) return kind === 'file' ? diskFile(place) : diskFolder(place);
  const hint = place.startsWith('~') ? ': "~" stands for your folder only at the start of an unquoted word' : '';
  throw new InputError(`${place}: there is no such file or folder${hint}`);
}

const parent = (path: string) => (path === '' || path.endsWith('/') ? path : `${path}/`);

/** The present states of paths in a folder; nothing is known of those of a folder that is not on disk. */
async function statesOf(folder: ListedFolder, paths: readonly string[]): Promise<Dependencies> {
  if (folder.path === undefined) return {};
  const [{ stat }, { join }] = await Promise.all([import('node:fs/promises'), import('node:path')]);
  // A program that copies files sets their times of modification, but not those of change (ctime).
  const stateOf = async (path: string) => {
    if (path === parent(path)) return (await folder.list(path.slice(0, -1))).join('/');
    const found = await stat(join(folder.path!, path)).catch(() => null);
    return !found
      ? 'missing'
      : found.isDirectory()
        ? 'folder'
        : [found.size, found.mtimeMs, found.ctimeMs, found.ino].join();
  };
  return Object.fromEntries(await Promise.all(paths.map(async (path) => [path, await stateOf(path)])));
}

/** Throws an error about a file, which it begins with, or one that says what lies in place of that file. */
export async function explained(folder: Folder, error: unknown): Promise<never> {
  const text = error instanceof InputError ? error.message : '';
  // The names of files, too, may hold the marks that end them.
  for (const { index } of text.matchAll(/[:,]/g)) {
    const named = text.slice(0, index);
    const path = named.startsWith(`${folder.name}/`) ? named.slice(folder.name.length + 1) : named;
    const source = await folder.open(path).catch(() => null);
    if (!source) continue;
    const head = await source.read(0, Math.min(HEAD, source.size)).finally(() => source.close());
    const kind = foreignKindOf(head);
    throw kind && !text.includes(kind) ? new InputError(`${named}: this is ${kind}`) : error;
  }
  throw error;
}

/**
 * A folder of which every file that is opened or listed is noted. A small file is read once while it is the latest: an importer may open
 * the file of an episode for each of its columns.
 */
export class WatchedFolder implements ListedFolder {
  readonly name: string;
  readonly path?: string;
  readonly #known = new Set<string>();
  #fresh: string[] = [];
  #latest?: { readonly path: string; readonly name: string; readonly bytes: Uint8Array };

  constructor(readonly folder: ListedFolder) {
    this.name = folder.name;
    this.path = folder.path;
  }

  #note(path: string): void {
    if (!this.#known.has(path)) this.#fresh.push(path);
    this.#known.add(path);
  }

  async open(path: string): Promise<ByteSource> {
    this.#note(path);
    if (this.#latest?.path === path) return memorySource(this.#latest.bytes, this.#latest.name);
    const source = await this.folder.open(path);
    if (source.size > SMALL) return source;
    const bytes = await source.read(0, source.size).finally(() => source.close());
    this.#latest = { path, name: source.name, bytes };
    return memorySource(bytes, source.name);
  }

  async list(path = ''): Promise<readonly string[]> {
    const names = await this.folder.list(path);
    for (const own of ['', ...names]) this.#note(parent(path) + own);
    return names;
  }

  /** The states of what is new since this was last asked. */
  fresh(): Promise<Dependencies> {
    return statesOf(this.folder, this.#fresh.splice(0));
  }

  async unchanged(before: Dependencies): Promise<boolean> {
    const now = await statesOf(this.folder, Object.keys(before));
    return Object.entries(before).every(([path, state]) => now[path] === state);
  }
}
