import { InputError, quote } from '../../../engine/files/errors.ts';
import { asCount, asOptionalText, readJsonLines } from '../json.ts';
import { formatPath, instructionsOf, type LeRobotInfo } from '../lerobot/info.ts';
import { isText, ParquetFile } from './parquet.ts';
import type { ListedFolder } from './source.ts';

// The list of episodes of a LeRobot data set, and the texts of tasks, sub-tasks and styles.

/** The frames of one camera in one episode: those of a video with times from `start` on and before `end`, in seconds. */
export interface VideoClip {
  readonly path: string;
  readonly start: number;
  readonly end: number;
}

/** The location of one episode. */
export interface EpisodePlace {
  readonly index: number;
  readonly length: number;
  /** The tasks in the list of episodes; '' for one that is listed as empty. */
  readonly tasks: readonly string[];
  /** The parquet file, and the first of the episode's `length` rows in it. */
  readonly file: string;
  readonly from: number;
  readonly videos: ReadonlyMap<string, VideoClip>;
}

/**
 * Lists the episodes in the order of their index, and the files that say so.
 *
 * @throws InputError if a file is missing, damaged or wrong, or the totals of info.json disagree
 */
export async function readEpisodes(folder: ListedFolder, info: LeRobotInfo) {
  const cameras = [...info.features.values()].filter(({ dtype }) => dtype === 'video').map(({ key }) => key);
  const { places, files } = info.version.startsWith('2')
    ? await readVersion2(folder, info, cameras)
    : await readVersion3(folder, info, cameras);
  const twice = new Set(places.map(({ index }) => index)).size !== places.length;
  const steps = places.reduce((sum, { length }) => sum + length, 0);
  const unlike =
    twice || places.length !== info.episodes
      ? `"total_episodes" is ${info.episodes}, its list of episodes has ${places.length} episodes${twice ? ', some twice' : ''}`
      : steps !== info.frames && `"total_frames" is ${info.frames}, its episodes have ${steps} steps`;
  if (unlike) throw new InputError(`${info.file}: ${unlike}; if it is a part of a data set, correct both`);
  return { places: places.sort((a, b) => a.index - b.index), files };
}

/** Checks that the rows of an episode are its own, and says whether their numbers jump, which is noted. @throws InputError */
export async function checkRows(file: ParquetFile, place: EpisodePlace, note?: (line: string) => void) {
  const { from, length, index } = place;
  const numbers = (name: string) => (file.columns.has(name) ? file.numbers(name, from, from + length, 1) : null);
  const owners = await numbers('episode_index');
  const other = owners?.findIndex((owner) => owner !== index) ?? -1;
  if (other >= 0) {
    const found = `column "episode_index" is ${owners![other]} in row ${from + other}`;
    throw new InputError(`${file.name}: ${found}, episode ${index} was expected there`);
  }
  const frames = await numbers('frame_index');
  const jump = frames?.findIndex((frame, step) => frame !== step) ?? -1;
  if (jump < 0) return false;
  const found = `"frame_index" is ${frames![jump]} at step ${jump}`;
  note?.(`${file.name}: episode ${index}: ${found}: rows are missing or in another order; they are read as they stand`);
  return true;
}

/** Tells whether there is a file; each folder is listed once. */
export function presence(folder: ListedFolder): (path: string) => Promise<boolean> {
  const lists = new Map<string, Promise<ReadonlySet<string>>>();
  return async (path) => {
    const [, parent, name] = /^(?:(.*)\/)?([^/]*)$/s.exec(path)!;
    if (!lists.has(parent))
      lists.set(
        parent,
        folder.list(parent).then((names) => new Set(names)),
      );
    return (await lists.get(parent)!).has(name);
  };
}

/** Reads the texts of tasks or sub-tasks by their number; null if the set has none. */
export async function readTexts(
  folder: ListedFolder,
  info: LeRobotInfo,
  kind: 'task' | 'subtask',
): Promise<{ texts: ReadonlyMap<number, readonly string[]>; file: string } | null> {
  const number = `${kind}_index`;
  const texts = new Map<number, readonly string[]>();
  const add = (index: number, text: string, file: string) => {
    const [own, other] = [instructionsOf([text]), texts.get(index)];
    if (other && other[0] !== own[0])
      throw new InputError(`${file}: "${number}" ${index} has two texts, ${quote(other[0])} and ${quote(own[0])}`);
    texts.set(index, own);
  };
  const names = await folder.list('meta');
  if (names.includes(`${kind}s.parquet`) && !info.version.startsWith('2')) {
    const file = await ParquetFile.open(folder, `meta/${kind}s.parquet`);
    const indices = await file.numbers(number, 0, file.rows, 1);
    // The texts may be the index of pandas, which has any name, or none and is then `__index_level_0__`.
    const ofTexts = [...file.columns].filter(([, [leaf, ...others]]) => others.length === 0 && isText(leaf.element));
    const column = file.columns.has(kind) || ofTexts.length !== 1 ? kind : ofTexts[0][0];
    const rows = await file.lists(file.leaf(column), 0, file.rows);
    for (const [row, index] of indices.entries()) add(index, textsIn(rows[row])[0] ?? '', file.name);
    return { texts, file: `meta/${kind}s.parquet` };
  }
  if (!names.includes(`${kind}s.jsonl`)) return null;
  const list = await folder.open(`meta/${kind}s.jsonl`);
  await readJsonLines(list, (line, where) => {
    const index = asCount(line[number], list.name, `${where}: "${number}"`);
    add(index, asOptionalText(line[kind], list.name, `${where}: "${kind}"`), list.name);
  });
  return { texts, file: `meta/${kind}s.jsonl` };
}

/** The texts among the values of a row. */
export const textsIn = (row: readonly unknown[]) => row.filter((value): value is string => typeof value === 'string');

/** The texts of one style that hold at each step; rephrasings of the task hold at all of them. */
export async function persistentTexts(file: ParquetFile, style: string, from: number, to: number): Promise<string[][]> {
  const column = 'language_persistent';
  const [content, kind, begin] = await Promise.all(
    ['content', 'style', 'timestamp'].map((field) => file.lists(file.leaf(column, field), from, to)),
  );
  const times = file.columns.has('timestamp') ? await file.numbers('timestamp', from, to, 1) : null;
  return content.map((texts, step) => {
    const own = texts.map((text, i) => ({ text, begin: Number(begin[step][i]) }));
    const ofStyle = own.filter((_, i) => kind[step][i] === style);
    if (style === 'task_aug') return instructionsOf(textsIn(ofStyle.map(({ text }) => text)));
    const begun = ofStyle.filter((entry) => entry.begin <= (times?.[step] ?? 0));
    const newest = begun.reduce<(typeof own)[number] | null>((a, b) => (a && a.begin > b.begin ? a : b), null);
    return instructionsOf(textsIn([newest?.text]));
  });
}

function videoPath(info: LeRobotInfo, values: Record<string, number | string>): string {
  if (info.videoPath === null)
    throw new InputError(`${info.file}: it has cameras of dtype "video", and no "video_path"`);
  return formatPath(info.videoPath, values, info.file);
}

/** Lists the episodes of `meta/episodes.jsonl`; each has files of its own. */
async function readVersion2(folder: ListedFolder, info: LeRobotInfo, cameras: readonly string[]) {
  const list = await folder.open('meta/episodes.jsonl');
  const places = await readJsonLines(list, (line, where): EpisodePlace => {
    const index = asCount(line.episode_index, list.name, `${where}: "episode_index"`);
    const values = { episode_index: index, episode_chunk: Math.floor(index / info.chunkSize) };
    const tasks: unknown[] = Array.isArray(line.tasks) ? line.tasks : line.tasks == null ? [] : [line.tasks];
    const clip = (camera: string) => ({
      path: videoPath(info, { ...values, video_key: camera }),
      start: 0,
      end: Number.POSITIVE_INFINITY,
    });
    return {
      index,
      length: asCount(line.length, list.name, `${where}: "length"`, 1),
      tasks: tasks.map((task) => asOptionalText(task, list.name, `${where}: "tasks"`)),
      file: formatPath(info.dataPath, values, info.file),
      from: 0,
      videos: new Map(cameras.map((camera) => [camera, clip(camera)])),
    };
  });
  return { places, files: ['meta/episodes.jsonl'] };
}

/** Lists the episodes of all files `meta/episodes/chunk-.../file-....parquet`; a data file, or a video, holds many. */
async function readVersion3(folder: ListedFolder, info: LeRobotInfo, cameras: readonly string[]) {
  const files: string[] = [];
  for (const chunk of await folder.list('meta/episodes'))
    for (const name of await folder.list(`meta/episodes/${chunk}`))
      if (name.endsWith('.parquet')) files.push(`meta/episodes/${chunk}/${name}`);
  if (files.length === 0)
    throw new InputError(`${folder.name}/meta/episodes: no such folder, or no parquet file in it`);
  const listed: (EpisodePlace & { first: number })[] = [];
  for (const path of files) listed.push(...(await readList(await ParquetFile.open(folder, path), info, cameras)));
  // Row numbers run through all files; the first row of a file is the first one of its first episode.
  const firstOfFile = new Map<string, number>();
  for (const { file, first } of listed) firstOfFile.set(file, Math.min(first, firstOfFile.get(file) ?? first));
  const places = listed.map(({ first, ...place }) => ({ ...place, from: first - firstOfFile.get(place.file)! }));
  return { places, files };
}

async function readList(file: ParquetFile, info: LeRobotInfo, cameras: readonly string[]) {
  if (file.rows > info.episodes)
    throw new InputError(`${file.name}: has ${file.rows} rows, ${info.file} says ${info.episodes} episodes`);
  const ofVideo = (camera: string) =>
    ['chunk_index', 'file_index', 'from_timestamp', 'to_timestamp'].map((name) => `videos/${camera}/${name}`);
  const ofEpisode = ['episode_index', 'length', 'dataset_from_index', 'dataset_to_index'];
  const table: Record<string, ArrayLike<number>> = {};
  for (const column of [...ofEpisode, 'data/chunk_index', 'data/file_index', ...cameras.flatMap(ofVideo)]) {
    if (column.endsWith('/to_timestamp') && !file.columns.has(column)) continue;
    const values = await file.numbers(column, 0, file.rows, 1);
    const time = column.endsWith('_timestamp');
    const bad = values.findIndex((value) => !(value >= 0 && (time || Number.isSafeInteger(value))));
    if (bad >= 0) throw new InputError(`${file.name}: column ${quote(column)} is ${values[bad]} in row ${bad}`);
    table[column] = values;
  }
  const tasks = file.columns.has('tasks') ? await file.lists(file.leaf('tasks'), 0, file.rows) : [];
  return Array.from({ length: file.rows }, (_, row) => {
    const [index, length, first, last] = ofEpisode.map((column) => table[column][row]);
    if (length < 1 || last - first !== length) {
      const range = `"dataset_from_index" to "dataset_to_index" hold ${last - first}`;
      throw new InputError(`${file.name}: episode ${index}: "length" is ${length} steps, ${range}; at least 1`);
    }
    const place = { chunk_index: table['data/chunk_index'][row], file_index: table['data/file_index'][row] };
    const clip = (camera: string): VideoClip => {
      const [chunk, number, start, end = start + length / info.rate] = ofVideo(camera).map(
        (name) => table[name]?.[row],
      );
      return { path: videoPath(info, { video_key: camera, chunk_index: chunk, file_index: number }), start, end };
    };
    return {
      index,
      length,
      tasks: textsIn(tasks[row] ?? []),
      file: formatPath(info.dataPath, place, info.file),
      first,
      from: 0,
      videos: new Map(cameras.map((camera) => [camera, clip(camera)])),
    };
  });
}
