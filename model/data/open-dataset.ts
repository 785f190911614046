import type { ByteSource, Folder } from '../../engine/files/bytes.ts';
import { InputError, quote } from '../../engine/files/errors.ts';
import { openFolder, openPath } from '../../engine/files/paths.ts';
import { withChannels } from './channels.ts';
import type { Dataset, DatasetOptions } from './dataset.ts';
import { readArrow } from './files/arrow.ts';
import { readNpz } from './files/npz.ts';
import { openIndexedDataset } from './indexed-dataset.ts';
import { openLeRobot } from './lerobot/dataset.ts';
import { changedEpisode } from './parts.ts';
import { openRlds } from './rlds/dataset.ts';

/** The bytes of actions and states that are held in memory by default. */
const NUMBER_BYTES = 256 * 2 ** 20;

/**
 * Opens a data set in the format that it finds at `place`:
 * - a folder with `meta/info.json`: LeRobot, versions 2.0 to 3.0;
 * - a folder with `index.json`: the data set `name` of it (indexed-dataset.ts);
 * - a folder with `dataset_info.json` and TFRecord files: RLDS as in Open X-Embodiment, the split `name`, train by
 *   default;
 * - a file `.arrow` (LeRobot 1) or `.npz`, or a folder with one; under node also `.hdf5` or `.h5`, or a folder of
 *   these.
 *
 * @param place a path (node), or any folder
 * @param name the data set to open if there are several; a single one is named after its folder or file
 * @throws InputError with one line that says what is missing or damaged, and where
 */
export async function openDataset(
  place: string | Folder,
  name?: string,
  options: DatasetOptions = {},
): Promise<Dataset> {
  return withChannels(await openAsStored(place, name, options), options.channels);
}

async function openAsStored(
  place: string | Folder,
  name: string | undefined,
  options: DatasetOptions,
): Promise<Dataset> {
  const { cameras = [], memory = NUMBER_BYTES } = options;
  const twice = cameras.find((camera, i) => cameras.indexOf(camera) < i);
  if (twice !== undefined) throw new InputError(`camera ${quote(twice)} is named twice`);
  const files = typeof place === 'string' ? await filesAt(place) : [];
  const hdf5 = files.filter((file) => /\.(hdf5|h5)$/.test(file));
  if (hdf5.length > 0) {
    const { openHdf5 } = await import('./files/hdf5-node.ts');
    const own = onlyName(place as string, lastPart(place as string), name);
    return withCameras(await openHdf5(hdf5, own, memory, options.rate), options.cameras);
  }
  const single = files.filter((file) => /\.(arrow|npz)$/.test(file));
  // A dataset_info.json beside Arrow files comes from Hugging Face's save_to_disk, not from RLDS.
  const arrow = single.some((file) => file.endsWith('.arrow'));
  const described = files.some((file) =>
    ['meta', 'index.json', ...(arrow ? [] : ['dataset_info.json'])].includes(lastPart(file)),
  );
  if (single.length === 1 && !described) {
    const own = onlyName(place as string, nameOfFile(single[0]), name);
    return withCameras(await openDataFile(await openPath(single[0]), own, options), options.cameras);
  }
  const folder = typeof place === 'string' ? await openFolder(place) : place;
  const has = async (path: string) => {
    const file = await folder.open(path).catch(() => null);
    await file?.close();
    return file !== null;
  };
  if (await has('meta/info.json')) {
    const { cameras, frameSize, frameFolder } = options;
    const video = async (names: readonly string[]) =>
      typeof place === 'string'
        ? (await import('./lerobot/video-node.ts')).openVideoFrames(names, place, frameSize, frameFolder)
        : (await import('./lerobot/video-browser.ts')).openVideoFrames(names, place, frameSize);
    const own = onlyName(folder.name, lastPart(folder.name), name);
    const dataset = await openLeRobot(folder, { name: own, cameras, memory, video });
    return withItsOwnRate(dataset, options.rate);
  }
  if (!arrow && !(await has('index.json')) && (await has('dataset_info.json'))) {
    return openRlds(folder, { ...options, memory, name });
  }
  if (!(await has('index.json'))) throw new InputError(`${folder.name}: ${whatIsMissing(files)}`);
  const images = options.cameras?.length !== 0;
  const dataset = await openIndexedDataset(folder, name ?? options.usual, { images });
  return withCameras(withItsOwnRate(dataset, options.rate), options.cameras);
}

/** Returns the name of the only data set at a place. @throws InputError if another one is asked for */
function onlyName(place: string, own: string, asked: string | undefined): string {
  if (asked !== undefined && asked !== own)
    throw new InputError(
      `${place}: it holds one data set, ${quote(own)}, and none named ${quote(asked)}; --dataset is for folders of several: leave it out`,
    );
  return own;
}

/** Returns a data set whose files state its rate. @throws InputError if a rate is given all the same */
function withItsOwnRate(dataset: Dataset, given: number | undefined): Dataset {
  if (given !== undefined)
    throw new InputError(`data set ${quote(dataset.name)} says ${dataset.rate} Hz itself; leave --rate out`);
  return dataset;
}

function whatIsMissing(files: readonly string[]): string {
  const [first] = files.filter((file) => /\.(arrow|npz)$/.test(file));
  if (first && /-of-\d+\.arrow$/.test(first))
    return 'the data set lies in several Arrow files, and only a single one is read: save it again by save_to_disk(..., num_shards=1)';
  if (first) return `several data sets are here; open one of its files, such as ${lastPart(first)}`;
  if (files.some((file) => lastPart(file) === 'snapshots'))
    return "this is a cached repository of the Hugging Face Hub; name the folder inside its 'snapshots'";
  if (files.some((file) => lastPart(file) === 'info.json' || lastPart(file).endsWith('.parquet')))
    return 'this is a part of a LeRobot data set: name the folder that holds meta/ and data/ (meta/info.json, data/chunk-000/...)';
  return 'no known data set lies here: a folder has meta/info.json (LeRobot), index.json, dataset_info.json (RLDS) or .hdf5 files; a file ends in .arrow, .npz, .hdf5 or .h5';
}

/** Restricts a data set to some of its cameras. @throws InputError if it lacks one of them; the message names it */
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

/** Reads a file `.arrow` or `.npz`, and closes it. */
export async function openDataFile(source: ByteSource, name?: string, { rate }: DatasetOptions = {}): Promise<Dataset> {
  const own = name ?? nameOfFile(source.name);
  try {
    if (source.name.endsWith('.npz')) return await readNpz(source, own, rate);
    return withItsOwnRate(await readArrow(source, own), rate);
  } finally {
    await source.close();
  }
}

/** Lists the file at a path, or the files in a folder by number. @throws InputError if there is neither */
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

const lastPart = (path: string) =>
  path
    .split(/[\\/]/)
    .filter((part) => part !== '' && part !== '.')
    .at(-1) ?? path;

const nameOfFile = (path: string) => lastPart(path).replace(/\.\w+$/, '');
