import type { ByteSource, Folder } from '../../engine/files/bytes.ts';
import { InputError, quote } from '../../engine/files/errors.ts';
import { openFolder, openPath } from '../../engine/files/paths.ts';
import type { Dataset } from './dataset.ts';
import { readArrow } from './files/arrow.ts';
import { readNpz } from './files/npz.ts';
import { openIndexedDataset } from './indexed-dataset.ts';
import { openLeRobot } from './lerobot/dataset.ts';
import { changedEpisode } from './parts.ts';
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
  /** Control steps a second, for files that do not say (RLDS, npz, HDF5); refused for those that do. */
  readonly rate?: number;
  /** Bytes of actions and states to hold in memory, 256 MiB by default; a larger data set's episodes are loaded one by one. */
  readonly memory?: number;
}

/**
 * Opens a data set by what lies at `place`:
 * - a folder with `meta/info.json`: LeRobot, versions 2.0 to 3.0;
 * - a folder with `index.json`: the data set `name` of it (indexed-dataset.ts);
 * - a folder with `dataset_info.json` and TFRecord files: RLDS as of Open X-Embodiment, the split `name`, train by default;
 * - a file `.arrow` (LeRobot 1) or `.npz`, or a folder of one; under node also `.hdf5` or `.h5`, or a folder of these.
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
  const { cameras = [] } = options;
  const twice = cameras.find((camera, i) => cameras.indexOf(camera) < i);
  if (twice !== undefined) throw new InputError(`camera ${quote(twice)} is named twice`);
  const files = typeof place === 'string' ? await filesAt(place) : [];
  const hdf5 = files.filter((file) => /\.(hdf5|h5)$/.test(file));
  if (hdf5.length > 0) {
    const { openHdf5 } = await import('./files/hdf5-node.ts');
    return withCameras(await openHdf5(hdf5, name ?? lastPart(place as string), options), options.cameras);
  }
  const single = files.filter((file) => /\.(arrow|npz)$/.test(file));
  // Beside Arrow files, dataset_info.json is that of Hugging Face's save_to_disk.
  const arrow = single.some((file) => file.endsWith('.arrow'));
  const described = files.some((file) =>
    ['meta', 'index.json', ...(arrow ? [] : ['dataset_info.json'])].includes(lastPart(file)),
  );
  if (single.length === 1 && !described)
    return withCameras(await openDataFile(await openPath(single[0]), name, options), options.cameras);
  const folder = typeof place === 'string' ? await openFolder(place) : place;
  const has = async (path: string) => {
    const file = await folder.open(path).catch(() => null);
    await file?.close();
    return file !== null;
  };
  if (await has('meta/info.json')) {
    const { cameras, memory, frameSize, frameFolder } = options;
    const video = async (names: readonly string[]) =>
      typeof place === 'string'
        ? (await import('./lerobot/video-node.ts')).openVideoFrames(names, { frameSize, frameFolder, root: place })
        : (await import('./lerobot/video-browser.ts')).openVideoFrames(names, place, frameSize);
    const dataset = await openLeRobot(folder, { name: name ?? lastPart(folder.name), cameras, memory, video });
    return withItsOwnRate(dataset, options.rate);
  }
  if (!arrow && !(await has('index.json')) && (await has('dataset_info.json'))) {
    return openRlds(folder, { ...options, name });
  }
  if (!(await has('index.json'))) throw new InputError(`${folder.name}: ${whatIsMissing(files)}`);
  const images = options.cameras?.length !== 0;
  const dataset = await openIndexedDataset(folder, name ?? options.usual, { images });
  return withCameras(withItsOwnRate(dataset, options.rate), options.cameras);
}

/** A data set whose files say its rate. @throws InputError where another one, or the same, is given to it */
function withItsOwnRate(dataset: Dataset, given: number | undefined): Dataset {
  if (given !== undefined)
    throw new InputError(`data set ${quote(dataset.name)} says ${dataset.rate} Hz itself; leave --rate out`);
  return dataset;
}

function whatIsMissing(files: readonly string[]): string {
  const [first] = files.filter((file) => /\.(arrow|npz)$/.test(file));
  if (first && /-of-\d+\.arrow$/.test(first))
    return 'a data set in several Arrow files, of which one is read: save it again by save_to_disk(..., num_shards=1)';
  if (first) return `several data sets are here; open one of its files, such as ${lastPart(first)}`;
  if (files.some((file) => lastPart(file) === 'snapshots'))
    return "this is a cached repository of the Hugging Face Hub; name the folder inside its 'snapshots'";
  if (files.some((file) => lastPart(file) === 'info.json' || lastPart(file).endsWith('.parquet')))
    return 'of a LeRobot data set name the folder that holds meta/ and data/ (meta/info.json, data/chunk-000/...)';
  return 'no data set that is known lies here: a folder has meta/info.json (LeRobot), index.json, dataset_info.json (RLDS) or .hdf5 files; a file ends in .arrow, .npz, .hdf5 or .h5';
}

/** The data set with some of its cameras. @throws InputError naming those that it does not have */
function withCameras(dataset: Dataset, wanted: readonly string[] | undefined): Dataset {
  if (!wanted) return dataset;
  const unknown = wanted.filter((camera) => !dataset.cameras.includes(camera));
  if (unknown.length > 0)
    throw new InputError(
      `data set "${dataset.name}" has no camera ${unknown.map(quote).join(', ')}; it has ${dataset.cameras.join(', ') || 'none'}`,
    );
  const chosen = (cameras: readonly string[]) => cameras.filter((camera) => wanted.includes(camera));
  return {
    ...dataset,
    cameras: chosen(dataset.cameras),
    episodes: dataset.episodes.map((episode) =>
      changedEpisode(episode, ({ cameras }) => ({ cameras: chosen(cameras) })),
    ),
  };
}

/** Opens a file `.arrow` or `.npz`; closed after reading. */
export async function openDataFile(source: ByteSource, name?: string, { rate }: DatasetOptions = {}): Promise<Dataset> {
  const own = name ?? lastPart(source.name).replace(/\.\w+$/, '');
  try {
    if (source.name.endsWith('.npz')) return await readNpz(source, own, rate);
    return withItsOwnRate(await readArrow(source, own), rate);
  } finally {
    await source.close();
  }
}

/** The file at a path, or those in the folder there, by number. @throws InputError where there is neither */
async function filesAt(path: string): Promise<string[]> {
  const [{ readdir, stat }, { join }] = await Promise.all([import('node:fs/promises'), import('node:path')]);
  const found = await stat(path).catch(() => null);
  if (!found) {
    const hint = path.startsWith('~') ? ': "~" stands for your folder only at the start of an unquoted word' : '';
    throw new InputError(`${path}: there is no such file or folder${hint}`);
  }
  if (!found.isDirectory()) return [path];
  const number = (file: string) => Number(/(\d+)\.\w+$/.exec(file)?.[1] ?? 0);
  const files = await readdir(path);
  return files.sort((a, b) => number(a) - number(b) || (a < b ? -1 : 1)).map((file) => join(path, file));
}

/** The name of a folder without those that lead to it. */
const lastPart = (path: string) =>
  path
    .split(/[\\/]/)
    .filter((part) => part !== '' && part !== '.')
    .at(-1) ?? path;
