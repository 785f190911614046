import { InputError, quote } from '../../../engine/files/errors.ts';
import type { Dataset, DatasetOptions, Episode } from '../dataset.ts';
import { firstWhere } from '../first-where.ts';
import type { Importer, ListedFolder, Source } from '../import/source.ts';
import { MemoryCache } from '../memory-cache.ts';
import { instructionsAmong, onDisk } from '../parts.ts';
import type { Rate } from './checks.ts';
import { explained, WatchedFolder } from './folders.ts';
import { type Directory, INDEX, importSource, type KnownEpisode } from './import.ts';
import { DamagedLog, type Log, type Logs, memoryLogs, partAt } from './log.ts';
import { mappingOf } from './mapping.ts';
import { PictureStore } from './pictures.ts';

/** Grows when the index has other contents, so that earlier ones are made again. */
const VERSION = 6;
/** The bytes of actions and states that are held in memory by default, and of those that were loaded lately. */
const NUMBER_BYTES = 2 ** 28;
const LOADED_BYTES = 2 ** 26;
/** The default limit of a decoded video frame's width and height: the image size of the public models, in pixels. */
const FRAME_SIZE = 224;

/**
 * Opens the data set of a format: its index is read from the cache, or made by reading every episode once.
 *
 * @param name the data set to open if there are several
 * @throws InputError with one line that says what is missing or damaged, and where; NoAction
 */
export async function openStored(
  importer: Importer,
  place: ListedFolder,
  name: string | undefined,
  options: DatasetOptions = {},
): Promise<Dataset> {
  const { cameras, frameSize = FRAME_SIZE, map = {}, rate, cacheFolder, onProgress, onNote } = options;
  const pictures = cameras?.length !== 0;
  const folder = new WatchedFolder(place);
  const notes = new Set<string>();
  const told = new Set<string>();
  let opened = false;
  const note = (line: string) => {
    notes.add(line);
    if (opened && !told.has(line)) onNote?.(line);
    if (opened) told.add(line);
  };
  let source: Promise<Source> | undefined;
  const sourceOf = () => {
    source ??= importer.open(folder, { name, frameSize, pictures, note });
    return source;
  };
  const files = await place.list();
  // A set that is a file is called after it.
  const own = files.length === 1 && /\.\w+$/.test(files[0]) ? files[0].replace(/\.\w+$/, '') : lastPart(place.name);
  const cacheOf = async (withPictures: boolean) => {
    const key = [VERSION, importer.format, importer.version, name, frameSize, map, rate, withPictures];
    const cache = await logsOf(place, files, key, cacheFolder);
    const index = await cache.logs.open(INDEX);
    const current = index && (await folder.unchanged((index.directory as Directory).dependencies));
    return { ...cache, index: current ? index : null };
  };
  let cache = await cacheOf(true);
  if (!cache.index && !pictures) cache = await cacheOf(false);
  const make = async () => {
    const source = await sourceOf();
    if (name !== undefined && source.name === undefined && name !== own)
      throw new InputError(
        `${place.name}: it holds one data set, ${quote(own)}, and none named ${quote(name)}; --dataset is for folders of several: leave it out`,
      );
    const mapping = mappingOf(source.fields, map, place.name);
    return importSource({
      ...{ source, folder, logs: cache.logs, notes, onProgress, rate: rateOf(source, rate, place.name) },
      mapping: pictures ? mapping : { ...mapping, cameras: [] },
    });
  };
  const made = () => make().catch((error) => explained(place, error));
  const datasetIn = (index: Log) => {
    const directory = index.directory as Directory;
    for (const line of directory.notes) told.add(line);
    opened = true;
    const store = new PictureStore(place, sourceOf, index, cache.logs, directory.key, { gathered: notes, note });
    return datasetOf(name ?? directory.name ?? own, index, store, options, cache.notes);
  };
  return datasetIn(cache.index ?? (await made())).catch(async (error) => {
    if (error instanceof DamagedLog) return datasetIn(await made());
    throw error;
  });
}

/** The place of a data set's index and unpacked pictures: in the cache for a folder on disk, in memory for others. */
async function logsOf(
  folder: ListedFolder,
  files: readonly string[],
  key: readonly unknown[],
  inside: string | undefined,
): Promise<{ logs: Logs; notes: readonly string[] }> {
  if (folder.path === undefined) return { logs: memoryLogs(), notes: [] };
  const [{ createHash }, { join, resolve }, { cacheFolder }, { logsInFolder }] = await Promise.all([
    import('node:crypto'),
    import('node:path'),
    import('../../../engine/adapters/cache-folder.mjs'),
    import('./log-node.ts'),
  ]);
  // A file is a folder of one entry.
  const place = files.length === 1 ? join(resolve(folder.path), files[0]) : resolve(folder.path);
  const hash = createHash('sha256').update(JSON.stringify([place, ...key]));
  const path = join(inside ?? join(cacheFolder(), 'data'), hash.digest('hex').slice(0, 24));
  try {
    return { logs: await logsInFolder(path, place), notes: [] };
  } catch (error) {
    const note = `the index of the data set is not kept: ${path}: ${(error as Error).message}`;
    return { logs: memoryLogs(), notes: [note] };
  }
}

const lastPart = (path: string) => path.match(/[^\\/]*[^\\/.][^\\/]*/g)?.at(-1) ?? path;

function rateOf({ kind, rate }: Source, given: number | undefined, place: string): Rate {
  if (given !== undefined && rate.stated !== undefined)
    throw new InputError(`${place}: the data set says ${rate.stated} Hz itself; leave --rate out`);
  if (given !== undefined) return { value: given, from: 'user' };
  if (rate.stated !== undefined) return { value: rate.stated, from: 'files' };
  if (rate.usual === undefined)
    throw new InputError(
      `${place}: its files (${kind}) do not say at how many Hz they were recorded: give it with --rate`,
    );
  return { value: rate.usual, from: 'usual' };
}

/** Chooses cameras by name, or by the name of their field. @throws InputError if there is none of a name */
function chosenCameras({ cameras }: Directory, wanted: readonly string[] | undefined, place: string) {
  const chosen = wanted?.map((name) => {
    const found = cameras.find(([camera]) => camera === name) ?? cameras.find(([, field]) => field === name);
    if (found) return found;
    const there = cameras.map(([camera]) => camera).join(', ') || 'none';
    throw new InputError(`data set ${quote(place)} has no camera ${quote(name)}; it has ${there}`);
  });
  const twice = chosen?.findIndex((camera, i) => chosen.indexOf(camera) < i) ?? -1;
  if (twice >= 0) throw new InputError(`camera ${quote(wanted![twice])} is named twice`);
  return chosen ?? cameras;
}

async function datasetOf(
  name: string,
  index: Log,
  store: PictureStore,
  { cameras: wanted, memory = NUMBER_BYTES }: DatasetOptions,
  notes: readonly string[],
): Promise<Dataset> {
  const directory = index.directory as Directory;
  const { kind, rate, actionNames, actionDimension, stateDimension, fields, episodes } = directory;
  const cameras = chosenCameras(directory, wanted, name);
  const names = cameras.map(([camera]) => camera);
  const steps = episodes.reduce((sum, { length }) => sum + length, 0);
  const streamed = steps * (actionDimension + stateDimension) * 4 > memory;
  const numbersOf = (length: number, { buffer, byteOffset, byteLength }: Uint8Array<ArrayBuffer>) => {
    const values = new Float32Array(buffer, byteOffset, byteLength / 4);
    const end = length * actionDimension;
    // An episode may have no states.
    return { actions: values.subarray(0, end), states: values.length === end ? null : values.subarray(end) };
  };
  const loaded = new MemoryCache<Episode>(
    LOADED_BYTES,
    ({ actions, states }) => actions.byteLength + (states?.byteLength ?? 0),
  );
  const commonOf = (known: KnownEpisode) => {
    const own = cameras.flatMap(([camera, field]) =>
      known.pictures[field] ? [[camera, known.pictures[field]] as const] : [],
    );
    const { id, length } = known;
    return { id, length, ...textsOf(known), cameras: own.map(([camera]) => camera), ...store.of(known, new Map(own)) };
  };
  const made: Episode[] = [];
  if (streamed) {
    for (const episode of episodes) {
      const common = commonOf(episode);
      const { id, length } = common;
      const load = async () => ({ ...common, ...numbersOf(length, await partAt(index, episode.parts[0])) });
      made.push(onDisk(common, () => loaded.get(id, load)));
    }
  } else {
    for await (const part of index.read(episodes.map(({ parts }) => parts[0]))) {
      const common = commonOf(episodes[made.length]);
      made.push({ ...common, ...numbersOf(common.length, part) });
    }
  }
  const unread = directory.cameras.length > 0 || fields.some((field) => field.kind === 'pictures');
  const seen = names.length > 0 ? `cameras ${names.join(', ')}` : unread ? 'cameras not read' : 'no cameras';
  return {
    ...{ name, rate, actionNames, actionDimension, stateDimension, cameras: names, fields, episodes: made },
    notes: [...notes, ...directory.notes],
    irregularSteps: directory.irregularSteps,
    description: `${kind}: ${episodes.length} episodes, ${steps} steps at ${rate} Hz, ${seen}${streamed ? ', numbers read as they are needed' : ''}`,
  };
}

/** The texts of an episode by step. */
function textsOf({ instructions, subtasks }: KnownEpisode) {
  const all = instructionsAmong(instructions.flatMap(([, own]) => own));
  const at = <T>(changes: readonly (readonly [number, T])[], step: number): T =>
    changes[Math.max(0, firstWhere(changes.length, (i) => changes[i][0] > step) - 1)][1];
  return {
    instructions: all,
    ...(instructions.length > 1 && { instructionsAt: (step: number) => at(instructions, step) }),
    ...(subtasks.length > 0 && { subtask: (step: number) => at(subtasks, step) }),
  };
}
