import { InputError, quote } from '../../engine/files/errors.ts';
import { withChannels } from './channels.ts';
import type { Dataset, DatasetOptions } from './dataset.ts';
import type { Importer, ListedFolder } from './import/source.ts';
import { listedFolder } from './store/folders.ts';
import { openStored } from './store/open.ts';

/** The formats by name, loaded when a place is opened; the first that recognises it reads it. */
const importers: readonly (() => Promise<Importer>)[] = [
  () => import('./import/lerobot.ts').then(({ leRobot }) => leRobot),
  () => import('./import/indexed.ts').then(({ indexedImporter }) => indexedImporter),
  // Hugging Face's save_to_disk writes a dataset_info.json beside its Arrow files, which is no RLDS.
  () => import('./import/lerobot-1.ts').then(({ leRobot1Importer }) => leRobot1Importer),
  () => import('./import/rlds.ts').then(({ rldsImporter }) => rldsImporter),
  () => import('./import/hdf5.ts').then(({ hdf5 }) => hdf5),
  () => import('./import/npz.ts').then(({ npzImporter }) => npzImporter),
];

/**
 * Opens a data set in the format that it finds at `place`:
 * - a folder with `meta/info.json`: LeRobot, versions 2.0 to 3.0;
 * - a folder with `index.json`: the data set `name` of it (import/indexed.ts);
 * - a folder with `dataset_info.json` and TFRecord files: RLDS as in Open X-Embodiment, the split `name`, train by
 *   default;
 * - a file `.npz`, or a folder with one; under node also `.hdf5` or `.h5`, or a folder of these.
 *
 * The first opening reads every episode once, and makes an index of numbers and pictures: in the cache of the user for a
 * path, in memory for another folder.
 *
 * @param place a path (node), or any folder whose entries can be listed
 * @param name the data set to open if there are several; a single one is named after its folder or file
 * @throws InputError with one line that says what is missing or damaged, and where
 */
export async function openDataset(
  place: string | ListedFolder,
  name?: string,
  options: DatasetOptions = {},
): Promise<Dataset> {
  const folder = await listedFolder(place);
  for (const load of importers) {
    const importer = await load();
    if (!(await importer.recognises(folder))) continue;
    const usual = importer.format.includes('index.json') ? options.usual : undefined;
    return withChannels(await openStored(importer, folder, name ?? usual, options), options.channels);
  }
  throw new InputError(`${folder.name}: ${await whatIsMissing(folder)}`);
}

async function whatIsMissing(folder: ListedFolder): Promise<string> {
  const names = await folder.list();
  if (names.includes('snapshots'))
    return "this is a cached repository of the Hugging Face Hub; name the folder inside its 'snapshots'";
  if (names.some((name) => name === 'info.json' || name.endsWith('.parquet')))
    return 'this is a part of a LeRobot data set: name the folder that holds meta/ and data/ (meta/info.json, data/chunk-000/...)';
  const there = names.length === 0 ? 'it is empty' : `it holds ${names.slice(0, 8).map(quote).join(', ')}`;
  return `no known data set lies here, ${there}: a folder has meta/info.json (LeRobot), index.json, dataset_info.json (RLDS) or .hdf5 files; a file ends in .npz, .hdf5 or .h5`;
}
