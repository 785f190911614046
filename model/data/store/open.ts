import { InputError, quote } from '../../../engine/files/errors.ts';
import type { Dataset, DatasetOptions, Episode } from '../dataset.ts';
import { firstWhere } from '../first-where.ts';
import type { Importer, ListedFolder, Source } from '../import/source.ts';
import { MemoryCache } from '../memory-cache.ts';
import { instructionsAmong, onDisk } from '../parts.ts';
import { type Dependencies, statesOf, watchedFolder } from './folders.ts';
import { type Directory, importSource, type KnownDataset, type KnownEpisode } from './import.ts';
import { DamagedIndex, type DataIndex, type IndexReader, memoryIndex, type PartPlace } from './index-log.ts';
import { mappingOf } from './mapping.ts';
import { memoryPacks, type Packs, PictureStore } from './pictures.ts';

/** Grows when the index has other contents, so that earlier ones are made again. */
const VERSION = 1;
/** The bytes of actions and states that are held in memory by default, and of those that were loaded lately. */
const NUMBER_BYTES = 2 ** 28;
const LOADED_BYTES = 2 ** 26;
/** The default limit of a decoded video frame's width and height: the image size of the public models, in pixels. */
const FRAME_SIZE = 224;

interface Cache {
  readonly index: DataIndex;
  packs(dependencies: Dependencies): Packs;
  readonly notes: readonly string[];
}

/**
 * Opens the data set of a format: its index is read from the cache, or made by reading every episode once.
 *
 * @param name the data set to open if there are several
 * @throws InputError with one line that says what is missing or damaged, and where
 */
export async function openStored(
  importer: Importer,
  folder: ListedFolder,
  name: string | undefined,
  options: DatasetOptions = {},
): Promise<Dataset> {
  const { cameras, frameSize = FRAME_SIZE, map = {}, rate } = options;
  const watched = folder.path === undefined ? null : watchedFolder(folder);
  const seen = watched?.folder ?? folder;
  let notes: string[] = [];
  const pictures = cameras?.length !== 0;
  const open = () => importer.open(seen, { name, frameSize, pictures, note: (line) => notes.push(line) });
  let source: Promise<Source> | undefined;
  const keyOf = (withPictures: boolean) => [
    VERSION,
    importer.format,
    importer.version,
    name,
    frameSize,
    map,
    rate,
    withPictures,
  ];
  const files = await folder.list();
  // A set that is a file is called after it.
  const own = files.length === 1 && /\.\w+$/.test(files[0]) ? files[0].replace(/\.\w+$/, '') : lastPart(folder.name);
  const unchanged = async (before: Dependencies) => {
    const now = await statesOf(folder, Object.keys(before));
    return Object.entries(before).every(([path, state]) => now[path] === state);
  };
  const kept = async (cache: Cache) => {
    const found = await cache.index.open();
    if (!found) return null;
    const directory = found.directory as Directory;
    return (await unchanged(directory.dependencies)) ? { directory, reader: found.reader } : null;
  };
  let cache = await cacheOf(folder, files, keyOf(true), options.cacheFolder);
  let index = await kept(cache);
  if (!index && !pictures) {
    cache = await cacheOf(folder, files, keyOf(false), options.cacheFolder);
    index = await kept(cache);
  }
  const make = async () => {
    source = open();
    const opened = await source;
    if (name !== undefined && opened.name === undefined && name !== own)
      throw new InputError(
        `${folder.name}: it holds one data set, ${quote(own)}, and none named ${quote(name)}; --dataset is for folders of several: leave it out`,
      );
    const mapping = mappingOf(opened.fields, map, folder.name);
    return importSource({
      source: opened,
      mapping: pictures ? mapping : { ...mapping, cameras: new Map() },
      rate: rateOf(opened, rate, folder.name),
      place: folder.name,
      index: cache.index,
      taken: async () => {
        const own = { dependencies: (await watched?.taken()) ?? {}, notes };
        notes = [];
        return own;
      },
      unchanged,
      onProgress: options.onProgress,
    });
  };
  const opened = ({ directory, reader }: Awaited<ReturnType<typeof make>>) => {
    const again = () => {
      source ??= open();
      return source;
    };
    const store = new PictureStore(folder, again, cache.packs(directory.dependencies));
    return datasetOf(name ?? directory.set.name ?? own, directory, reader, store, options, cache.notes);
  };
  if (!index) return opened(await make());
  return opened(index).catch(async (error) => {
    if (error instanceof DamagedIndex) return opened(await make());
    throw error;
  });
}

async function cacheOf(
  folder: ListedFolder,
  files: readonly string[],
  key: readonly unknown[],
  inside?: string,
): Promise<Cache> {
  const inMemory = (notes: readonly string[] = []): Cache => ({ index: memoryIndex(), packs: memoryPacks, notes });
  if (folder.path === undefined) return inMemory();
  const [{ createHash }, { join, resolve }, { cacheFolder }, { indexInFolder }, { packsInFolder }] = await Promise.all([
    import('node:crypto'),
    import('node:path'),
    import('../../../engine/adapters/cache-folder.mjs'),
    import('./index-file-node.ts'),
    import('./packs-node.ts'),
  ]);
  const hash = (value: unknown) => createHash('sha256').update(JSON.stringify(value)).digest('hex').slice(0, 24);
  // A file is a folder of one entry.
  const place = files.length === 1 ? join(resolve(folder.path), files[0]) : resolve(folder.path);
  const path = join(inside ?? join(cacheFolder(), 'data'), hash([place, ...key]));
  try {
    const index = await indexInFolder(path, place);
    return { index, packs: (dependencies) => packsInFolder(join(path, hash(dependencies))), notes: [] };
  } catch (error) {
    return inMemory([`the index of the data set is not kept: ${path}: ${(error as Error).message}`]);
  }
}

const lastPart = (path: string) =>
  path
    .split(/[\\/]/)
    .filter((part) => part !== '' && part !== '.')
    .at(-1) ?? path;

function rateOf({ kind, rate }: Source, given: number | undefined, place: string): number {
  if (given !== undefined && rate.stated !== undefined)
    throw new InputError(`${place}: the data set says ${rate.stated} Hz itself; leave --rate out`);
  const found = given ?? rate.stated ?? rate.usual;
  if (found === undefined)
    throw new InputError(
      `${place}: its files (${kind}) do not say at how many Hz they were recorded: give it with --rate`,
    );
  return found;
}

/** Chooses cameras by name, or by the name of their field. @throws InputError if there is none of a name */
function chosenCameras({ cameras }: KnownDataset, wanted: readonly string[] | undefined, place: string) {
  if (!wanted) return cameras;
  const chosen = wanted.map((name) => {
    const found = cameras.find(([camera]) => camera === name) ?? cameras.find(([, field]) => field === name);
    if (found) return found;
    const there = cameras.map(([camera]) => camera).join(', ') || 'none';
    throw new InputError(`data set ${quote(place)} has no camera ${quote(name)}; it has ${there}`);
  });
  const twice = chosen.findIndex((camera, i) => chosen.indexOf(camera) < i);
  if (twice >= 0) throw new InputError(`camera ${quote(wanted[twice])} is named twice`);
  return chosen;
}

async function datasetOf(
  name: string,
  { set, episodes }: Directory,
  reader: IndexReader,
  store: PictureStore,
  { cameras: wanted, memory = NUMBER_BYTES }: DatasetOptions,
  notes: readonly string[],
): Promise<Dataset> {
  const { kind, rate, actionNames, actionDimension, stateDimension, fields } = set;
  const cameras = chosenCameras(set, wanted, name);
  const steps = episodes.reduce((sum, { known }) => sum + known.length, 0);
  const streamed = steps * (actionDimension + stateDimension) * 4 > memory;
  const partOf = async (place: PartPlace) => {
    for await (const part of reader.read([place])) return part;
    throw new RangeError('the index has no such part');
  };
  const numbersOf = ({ length }: KnownEpisode, part: Uint8Array<ArrayBuffer>) => ({
    actions: new Float32Array(part.buffer, part.byteOffset, length * actionDimension),
    // An episode may have no states.
    states:
      part.length === 4 * length * actionDimension
        ? null
        : new Float32Array(part.buffer, part.byteOffset + 4 * length * actionDimension, length * stateDimension),
  });
  const loaded = new MemoryCache<Episode>(
    LOADED_BYTES,
    ({ actions, states }) => actions.byteLength + (states?.byteLength ?? 0),
  );
  const parts = streamed ? null : reader.read(episodes.map(({ place }) => place[1]))[Symbol.asyncIterator]();
  const made: Episode[] = [];
  for (const { known, place } of episodes) {
    const { id, length } = known;
    const own = new Map(
      cameras.flatMap(([camera, field]) =>
        known.pictures[field] ? [[camera, { field, pictures: known.pictures[field] }]] : [],
      ),
    );
    const common = {
      ...{ id, length, ...textsOf(known), cameras: [...own.keys()] },
      ...store.of(known, own, () => partOf(place[2])),
    };
    if (parts) made.push({ ...common, ...numbersOf(known, (await parts.next()).value!) });
    else
      made.push(
        onDisk(common, () => loaded.get(id, async () => ({ ...common, ...numbersOf(known, await partOf(place[1])) }))),
      );
  }
  await parts?.return?.(undefined);
  const there = set.cameras.length > 0 || fields.some((field) => field.kind === 'pictures');
  const seen =
    cameras.length > 0
      ? `, cameras ${cameras.map(([camera]) => camera).join(', ')}`
      : there
        ? ', cameras not read'
        : ', no cameras';
  return {
    name,
    description: `${kind}: ${episodes.length} episodes, ${steps} steps at ${rate} Hz${seen}${streamed ? ', numbers read as they are needed' : ''}`,
    ...{ fields, notes: [...notes, ...set.notes], actionNames, rate, actionDimension, stateDimension },
    cameras: cameras.map(([camera]) => camera),
    episodes: made,
  };
}

/** The texts of an episode by step. */
function textsOf({ instructions, subtasks }: KnownEpisode) {
  const all = instructionsAmong(instructions.flatMap(([, own]) => own));
  const at = <T>(changes: KnownEpisode['instructions' | 'subtasks'], step: number) =>
    changes[Math.max(0, firstWhere(changes.length, (i) => changes[i][0] > step) - 1)][1] as T;
  return {
    instructions: all,
    ...(instructions.length > 1 && { instructionsAt: (step: number) => at<readonly string[]>(instructions, step) }),
    ...(subtasks.length > 0 && { subtask: (step: number) => at<string | null>(subtasks, step) }),
  };
}
