import { type Folder, memorySource } from '../../../engine/files/bytes.ts';
import { InputError } from '../../../engine/files/errors.ts';
import type { ListedFolder } from '../import/source.ts';

/** What an index depends on: files and folders by path, with size and time of change, or names. A folder's path ends in a slash. */
export type Dependencies = Record<string, string>;

/** The files that are looked at together. */
const AT_ONCE = 64;
/** The bytes of a file that is read at once. */
const SMALL = 2 ** 20;

/** Opens what lies at a path (node), or takes a folder that can be listed. @throws InputError if there is nothing */
export async function listedFolder(place: string | Folder): Promise<ListedFolder> {
  if (typeof place !== 'string') {
    if ('list' in place) return place as ListedFolder;
    throw new InputError(
      `${place.name}: the files of a data set's folder must be listed, and this folder has no list()`,
    );
  }
  const { diskFile, diskFolder, kindOfPath } = await import('../../../engine/files/files.ts');
  const kind = await kindOfPath(place);
  if (kind !== null) return kind === 'file' ? diskFile(place) : diskFolder(place);
  const hint = place.startsWith('~') ? ': "~" stands for your folder only at the start of an unquoted word' : '';
  throw new InputError(`${place}: there is no such file or folder${hint}`);
}

const parent = (path: string) => (path === '' || path.endsWith('/') ? path : `${path}/`);

/** The present states of paths in a folder on disk. */
export async function statesOf(folder: ListedFolder, paths: readonly string[]): Promise<Dependencies> {
  const [{ stat }, { join }] = await Promise.all([import('node:fs/promises'), import('node:path')]);
  const states: Dependencies = {};
  const stateOf = async (path: string) => {
    if (path === '' || path.endsWith('/')) return (await folder.list(path.slice(0, -1))).join('/');
    const found = await stat(join(folder.path!, path)).catch(() => null);
    return !found ? 'missing' : found.isDirectory() ? 'folder' : `${found.size} bytes, ${found.mtimeMs}`;
  };
  for (let i = 0; i < paths.length; i += AT_ONCE) {
    const own = paths.slice(i, i + AT_ONCE);
    const found = await Promise.all(own.map(stateOf));
    for (const [k, path] of own.entries()) states[path] = found[k];
  }
  return states;
}

/**
 * A folder on disk of which every file that is opened or listed is noted; `taken` returns what is new since it was last asked. A small
 * file is read once while it is the latest: an importer may open the file of an episode for each of its columns.
 */
export function watchedFolder(folder: ListedFolder): { folder: ListedFolder; taken(): Promise<Dependencies> } {
  const known = new Set<string>();
  let fresh: string[] = [];
  let latest: { readonly path: string; readonly name: string; readonly bytes: Uint8Array } | undefined;
  const note = (path: string) => {
    if (!known.has(path)) fresh.push(path);
    known.add(path);
  };
  return {
    folder: {
      ...folder,
      async open(path) {
        note(path);
        if (latest?.path === path) return memorySource(latest.bytes, latest.name);
        const source = await folder.open(path);
        if (source.size > SMALL) return source;
        const { name } = source;
        const bytes = await source.read(0, source.size).finally(() => source.close());
        latest = { path, name, bytes };
        return memorySource(bytes, name);
      },
      async list(path = '') {
        const names = await folder.list(path);
        note(parent(path));
        for (const name of names) note(parent(path) + name);
        return names;
      },
    },
    taken() {
      const paths = fresh;
      fresh = [];
      return statesOf(folder, paths);
    },
  };
}
