import type { Folder } from '../../engine/bytes.ts';
import { openFolder } from '../../engine/paths.ts';
import type { Dataset } from './dataset.ts';
import { openIndexedDataset } from './indexed-dataset.ts';
import { openLeRobot } from './lerobot/dataset.ts';

export interface DatasetOptions {
  /** Cameras to read, of those that the data set has; all by default, none for an empty list. */
  readonly cameras?: readonly string[];
  /** Cameras that exist only as video: both sides of a decoded frame are at most this many pixels; 224 by default. */
  readonly frameSize?: number;
  /** Where decoded frames are kept (node); by default in the user's cache folder. */
  readonly frameFolder?: string;
  /** Bytes of actions and states to hold in memory, 256 MiB by default; a larger data set's episodes are loaded one by one. */
  readonly memory?: number;
}

/**
 * Opens a data set by what lies at `place`:
 * - a folder with `meta/info.json`: LeRobot, versions 2.0 to 3.0;
 * - a folder with `index.json`: the data set `name` of it (indexed-dataset.ts).
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
  const folder = typeof place === 'string' ? await openFolder(place) : place;
  const has = async (path: string) => {
    const file = await folder.open(path).catch(() => null);
    await file?.close();
    return file !== null;
  };
  if (await has('meta/info.json')) {
    const { cameras, memory, ...video } = options;
    const decoder = async (names: readonly string[]) =>
      (await import('./lerobot/video-node.ts')).openVideoFrames(names, { ...video, root: folder.name });
    return openLeRobot(folder, {
      name: name ?? lastPart(folder.name),
      cameras,
      memory,
      video: typeof place === 'string' ? decoder : undefined,
    });
  }
  return openIndexedDataset(folder, name);
}

/** The name of a folder without those that lead to it. */
const lastPart = (path: string) =>
  path
    .split(/[\\/]/)
    .filter((part) => part !== '' && part !== '.')
    .at(-1) ?? path;
