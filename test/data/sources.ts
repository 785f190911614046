import { execFileSync } from 'node:child_process';
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { memorySource } from '../../engine/files/bytes.ts';
import { InputError } from '../../engine/files/errors.ts';
import { diskFolder } from '../../engine/files/files.ts';
import type {
  Importer,
  ImportOptions,
  ListedFolder,
  Source,
  SourceEpisode,
  SourceField,
  SourcePictures,
} from '../../model/data/import/source.ts';
import type { Files } from './synthetic.ts';

/** Makes a listed folder in memory. */
export function filesFolder(files: Files): ListedFolder {
  return {
    name: 'folder',
    async open(path) {
      const bytes = files.get(path);
      if (!bytes) throw new InputError(`folder/${path}: cannot open it: no such file or folder`);
      return memorySource(bytes, `folder/${path}`);
    },
    async list(path = '') {
      const inside = path === '' ? '' : `${path}/`;
      const own = [...files.keys()].filter((name) => name.startsWith(inside)).map((name) => name.slice(inside.length));
      return [...new Set(own.map((name) => name.split('/')[0]))].sort();
    },
  };
}

/** Opens a folder on disk, or a single file as a folder of it. */
export function listedFolder(path: string): ListedFolder {
  const single = statSync(path).isFile();
  const folder = single ? join(path, '..') : path;
  const list = async (inner = '') => {
    if (single) return inner === '' ? [path.slice(folder.length + 1)] : [];
    return statSync(join(folder, inner), { throwIfNoEntry: false })?.isDirectory()
      ? readdirSync(join(folder, inner)).sort()
      : [];
  };
  return { ...diskFolder(folder), path: folder, list };
}

export const openSource = (importer: Importer, place: Files | string, name?: string): Promise<Source> =>
  importer.open(typeof place === 'string' ? listedFolder(place) : filesFolder(place), { name, frameSize: 224 });

/** Everything of an episode: the values of every field by its name. */
export interface WholeEpisode {
  readonly id: string;
  readonly length: number;
  readonly where: string;
  readonly numbers: Record<string, Float32Array | Float64Array>;
  readonly texts: Record<string, readonly (readonly string[])[]>;
  readonly pictures: Record<string, SourcePictures | null>;
}

/** Reads everything of every episode of a source from number `first` on. */
export async function readEpisodes(source: Source, first = 0): Promise<WholeEpisode[]> {
  const episodes: WholeEpisode[] = [];
  for await (const episode of source.episodes(first)) {
    const { id, length, where } = episode;
    const whole: WholeEpisode = { id, length, where, numbers: {}, texts: {}, pictures: {} };
    for (const { name, kind } of source.fields) {
      if (kind === 'numbers') whole.numbers[name] = await episode.numbers(name);
      if (kind === 'texts') whole.texts[name] = await episode.texts(name);
      if (kind === 'pictures' || kind === 'depth') whole.pictures[name] = await episode.pictures(name);
    }
    episodes.push(whole);
  }
  return episodes;
}

/** The names of the fields of a use, or of those without one. */
export const namesOf = ({ fields }: Source, use: SourceField['use']): string[] =>
  fields.filter((field) => field.use === use).map(({ name }) => name);

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
