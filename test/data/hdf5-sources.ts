import { existsSync } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { openFile } from '../../engine/files/files.ts';
import type { ListedFolder, Source, SourceEpisode } from '../../model/data/import/source.ts';

/** The cases with known values, and a word for tests that are skipped where they are missing. */
export const cases = join(import.meta.dirname, '../../../shared/cases');
export const haveCases = existsSync(cases);
export const unlessCases = haveCases ? '' : ' (skipped: ../shared/cases is not there)';

/** A folder on disk, or a single file as a folder with one entry. */
export async function folderAt(place: string): Promise<ListedFolder> {
  const single = (await stat(place)).isFile();
  const path = single ? dirname(place) : place;
  return {
    name: place,
    path,
    open: (file) => openFile(join(path, file)),
    list: async (within = '') =>
      single ? [basename(place)] : (await readdir(join(path, within)).catch(() => [])).sort(),
  };
}

/** Every episode of a source. */
export async function episodesOf(source: Source): Promise<SourceEpisode[]> {
  const found: SourceEpisode[] = [];
  for await (const episode of source.episodes(0)) found.push(episode);
  return found;
}

/** The fields of a source by their use. */
export function namesOf(source: Source, use: string | null): string[] {
  return source.fields.filter((field) => field.use === use).map(({ name }) => name);
}
