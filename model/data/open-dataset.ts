import type { ByteSource, Folder } from '../../engine/bytes.ts';
import { openFolder, openPath } from '../../engine/paths.ts';
import type { Dataset } from './dataset.ts';
import { readArrow } from './files/arrow.ts';
import { readNpz } from './files/npz.ts';
import { openIndexedDataset } from './indexed-dataset.ts';
import { openLeRobot } from './lerobot/dataset.ts';
import { openRlds } from './rlds/dataset.ts';

export interface DatasetOptions {
  /** Which of several data sets of a folder, where none is named. */
  readonly usual?: string;
  /** Cameras to read, of those that the data set has; all by default, none for an empty list. */
  readonly cameras?: readonly string[];
  /** Cameras that exist only as video: both sides of a decoded frame are at most this many pixels; 224 by default. */
  readonly frameSize?: number;
  /** Where decoded frames are kept (node); by default in the user's cache folder. */
  readonly frameFolder?: string;
  /** Control steps a second, for files that do not say (RLDS, npz, HDF5). */
  readonly rate?: number;
  /** Bytes of actions and states to hold in memory, 256 MiB by default; a larger data set's episodes are loaded one by one. */
  readonly memory?: number;
}

/**
 * Opens a data set by what lies at `place`:
 * - a folder with `meta/info.json`: LeRobot, versions 2.0 to 3.0;
 * - a folder with `index.json`: the data set `name` of it (indexed-dataset.ts);
 * - a folder with `dataset_info.json` and TFRecord files: RLDS as of Open X-Embodiment, the split `name`, train by default;
 * - a file `.arrow` (LeRobot 1) or `.npz`, under node also `.hdf5` or `.h5`, or a folder of the latter.
 *
 * @param place a path (node), or any folder
 * @param name which of several data sets; of a single one what to call it, by default the folder's name
 * @throws InputError with one line that says what is missing or damaged, and where
 */
export async function openDataset(
  place: string | Folder,
  name?: string,
  options: DatasetOptions = {},
): Promise<Dataset> {
  const hdf5 = typeof place === 'string' ? await hdf5Files(place) : [];
  if (hdf5.length > 0) {
    const { openHdf5 } = await import('./files/hdf5-node.ts');
    return openHdf5(hdf5, name ?? lastPart(place as string), options.rate);
  }
  if (typeof place === 'string' && /\.(arrow|npz)$/.test(place))
    return openDataFile(await openPath(place), name, options);
  const folder = typeof place === 'string' ? await openFolder(place) : place;
  const has = async (path: string) => {
    const file = await folder.open(path).catch(() => null);
    await file?.close();
    return file !== null;
  };
  if (await has('meta/info.json')) {
    const { cameras, memory, frameSize, frameFolder } = options;
    const decoder = async (names: readonly string[]) =>
      (await import('./lerobot/video-node.ts')).openVideoFrames(names, { frameSize, frameFolder, root: folder.name });
    return openLeRobot(folder, {
      name: name ?? lastPart(folder.name),
      cameras,
      memory,
      video: typeof place === 'string' ? decoder : undefined,
    });
  }
  if (!(await has('index.json')) && (await has('dataset_info.json'))) {
    return openRlds(folder, { ...options, name });
  }
  return openIndexedDataset(folder, name ?? options.usual);
}

/** Opens a file `.arrow` or `.npz`; closed after reading. */
export async function openDataFile(source: ByteSource, name?: string, { rate }: DatasetOptions = {}): Promise<Dataset> {
  const own = name ?? lastPart(source.name).replace(/\.\w+$/, '');
  try {
    return source.name.endsWith('.npz') ? await readNpz(source, own, rate) : await readArrow(source, own);
  } finally {
    await source.close();
  }
}

/** The HDF5 file at a path, or those in the folder there, by number. */
async function hdf5Files(path: string): Promise<string[]> {
  const pattern = /\.(hdf5|h5)$/;
  if (pattern.test(path)) return [path];
  const [{ readdir }, { join }] = await Promise.all([import('node:fs/promises'), import('node:path')]);
  const files = (await readdir(path).catch(() => [])).filter((file) => pattern.test(file));
  const number = (file: string) => Number(/(\d+)\.\w+$/.exec(file)?.[1] ?? 0);
  return files.sort((a, b) => number(a) - number(b) || (a < b ? -1 : 1)).map((file) => join(path, file));
}

/** The name of a folder without those that lead to it. */
const lastPart = (path: string) =>
  path
    .split(/[\\/]/)
    .filter((part) => part !== '' && part !== '.')
    .at(-1) ?? path;
