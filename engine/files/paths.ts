import type { ByteSource, Folder } from './bytes.ts';

// Paths on disk, for modules that also run in a browser: the module that imports node:fs is loaded at the first use.

/** A file on disk, by its path (node only). @throws InputError if it is missing or cannot be read */
export async function openPath(path: string): Promise<ByteSource> {
  const { openFile } = await import('./files.ts');
  return openFile(path);
}

/** A folder on disk, by its path (node only). */
export async function openFolder(path: string): Promise<Folder> {
  const { diskFolder } = await import('./files.ts');
  return diskFolder(path);
}
