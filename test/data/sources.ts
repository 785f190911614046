import { execFileSync } from 'node:child_process';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { diskFolder } from '../../engine/files/files.ts';
import type { Importer, ImportOptions, ListedFolder, Source, SourceEpisode } from '../../model/data/import/source.ts';
import { type Files, folderOf } from './synthetic.ts';

/** A folder on disk whose entries can be listed. */
export function listedFolder(path: string): ListedFolder {
  const list = async (inner = '') => (await readdir(join(path, inner)).catch(() => [])).sort();
  return { ...diskFolder(path), path, list };
}

/** A folder in memory whose entries can be listed. */
export function listedFiles(files: Files): ListedFolder {
  const list = async (inner = '') => {
    const within = inner === '' ? '' : `${inner}/`;
    const names = [...files.keys()].filter((path) => path.startsWith(within));
    return [...new Set(names.map((path) => path.slice(within.length).split('/')[0]))].sort();
  };
  return { ...folderOf(files), list };
}

/** Opens a data set by an importer, and reads its episodes. */
export async function readSource(
  importer: Importer,
  folder: ListedFolder,
  options: Partial<ImportOptions> = {},
): Promise<{ source: Source; episodes: SourceEpisode[]; notes: string[] }> {
  const notes: string[] = [];
  const source = await importer.open(folder, { frameSize: 224, note: (line) => notes.push(line), ...options });
  const episodes: SourceEpisode[] = [];
  for await (const episode of source.episodes(0)) episodes.push(episode);
  return { source, episodes, notes };
}

/** The fields of a source by name. */
export const fieldsOf = ({ fields }: Source) => Object.fromEntries(fields.map((field) => [field.name, field]));

/** The picture files of one field of an episode, by any of the ways to them. */
export async function picturesOf(folder: ListedFolder, source: Source, episode: SourceEpisode, field: string) {
  const found = await episode.pictures(field);
  if (!found) return null;
  const read = async (path: string, start = 0, end?: number) => {
    const file = await folder.open(path);
    const bytes = await file.read(start, end ?? file.size);
    await file.close();
    return bytes;
  };
  const pictures: Uint8Array<ArrayBuffer>[] = [];
  if (found.kind === 'files') for (const path of found.paths) pictures.push(await read(path));
  if (found.kind === 'ranges')
    for (const [i, start] of found.starts.entries()) pictures.push(await read(found.file, start, found.ends[i]));
  if (found.kind === 'unpack')
    for await (const picture of source.unpack!(found.place)) pictures.push(picture as Uint8Array<ArrayBuffer>);
  return { kind: found.kind, steps: found.steps, pictures };
}

/** Whether an ffmpeg can be started. */
export const ffmpegHere = (() => {
  try {
    execFileSync('ffmpeg', ['-version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
})();
