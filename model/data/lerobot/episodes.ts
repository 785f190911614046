import type { Folder } from '../../../engine/files/bytes.ts';
import { InputError, quote } from '../../../engine/files/errors.ts';
import { asCount, asOptionalText, readJsonLines } from '../json.ts';
import type { ParquetFile, ParquetFolder } from '../parquet/file.ts';
import { formatPath, instructionsOf, type LeRobotInfo } from './info.ts';

/** The location of one episode. */
export interface EpisodePlace {
  readonly index: number;
  readonly length: number;
  /** The tasks in the list of episodes; '' for one that is listed as empty. */
  readonly tasks: readonly string[];
  /** The parquet file, and the first of the episode's `length` rows in it. */
  readonly file: string;
  readonly from: number;
  /** The video file of each camera feature, and the second at which the episode begins in it. */
  readonly videos: ReadonlyMap<string, { readonly path: string; readonly start: number }>;
}

/** Lists the episodes in the order of their index. @throws InputError if a file is missing, damaged or wrong */
export async function readEpisodes(folder: Folder, parquet: ParquetFolder, info: LeRobotInfo): Promise<EpisodePlace[]> {
  const cameras = [...info.features.values()].filter(({ dtype }) => dtype === 'video').map(({ key }) => key);
  const places = info.version.startsWith('2')
    ? await readVersion2(folder, info, cameras)
    : await readVersion3(parquet, info, cameras);
  const seen = new Set(places.map(({ index }) => index));
  if (seen.size !== places.length || places.length !== info.episodes) {
    const listed = `${places.length} episodes${seen.size === places.length ? '' : ', some twice'}`;
    throw new InputError(
      `${info.file}: "total_episodes" is ${info.episodes}, its list of episodes has ${listed}; if it is a part of a data set, correct both`,
    );
  }
  const steps = places.reduce((sum, { length }) => sum + length, 0);
  if (steps !== info.frames) {
    throw new InputError(
      `${info.file}: "total_frames" is ${info.frames}, its episodes have ${steps} steps; if it is a part of a data set, correct both`,
    );
  }
  return places.sort((a, b) => a.index - b.index);
}

/** The instructions of an episode; `at` holds those of each step, if they change. */
export interface EpisodeInstructions {
  readonly all: readonly string[];
  readonly at?: readonly (readonly string[])[];
}

/**
 * Reads the instructions of every episode of `places`. An episode that lists one task has that instruction. If it lists
 * several tasks, or none, the "task_index" of each step decides. If all steps name the same one of several tasks, as in
 * files of the writer here, the tasks are paraphrases.
 */
export async function readInstructions(
  folder: Folder,
  parquet: ParquetFolder,
  info: LeRobotInfo,
  places: readonly EpisodePlace[],
): Promise<EpisodeInstructions[]> {
  let texts: Map<number, readonly string[]> | undefined;
  const read: EpisodeInstructions[] = [];
  for (const { index, tasks, file, from, length } of places) {
    const listed = instructionsOf(tasks);
    const table = tasks.length === 1 ? null : await parquet.open(file);
    const numbers = table?.has('task_index')
      ? await table.numbers('task_index', from, from + length, 1, Float64Array)
      : new Float64Array(0);
    const changes = numbers.some((task) => task !== numbers[0]);
    if (!table || numbers.length === 0 || (tasks.length > 0 && !changes)) {
      read.push({ all: listed });
      continue;
    }
    texts ??= await readTasks(folder, parquet, info);
    const unknown = numbers.find((task) => !texts!.has(task));
    if (unknown !== undefined)
      throw new InputError(
        `${table.name}: episode ${index}: "task_index" is ${unknown}, which meta/tasks does not list`,
      );
    const at = Array.from(numbers, (task) => texts!.get(task)!);
    read.push({ all: instructionsOf([...listed, ...at.flat()]), ...(changes && { at }) });
  }
  return read;
}

async function readTasks(folder: Folder, parquet: ParquetFolder, info: LeRobotInfo) {
  if (info.version.startsWith('2')) {
    const list = await folder.open('meta/tasks.jsonl');
    const lines = await readJsonLines(list, ({ task_index: index, task }, where) => ({
      index: asCount(index, list.name, `${where}: "task_index"`),
      task: asOptionalText(task, list.name, `${where}: "task"`),
    }));
    return new Map(lines.map(({ index, task }) => [index, instructionsOf([task])]));
  }
  const list = await parquet.open('meta/tasks.parquet');
  const indices = await list.numbers('task_index', 0, list.rows, 1, Float64Array);
  const texts = await list.texts(list.has('task') ? 'task' : '__index_level_0__'); // pandas' name of an unnamed index
  return new Map(Array.from(indices, (index, row) => [index, instructionsOf(texts[row])]));
}

function videoPath(info: LeRobotInfo, values: Record<string, number | string>): string {
  if (info.videoPath === null)
    throw new InputError(`${info.file}: it has cameras of dtype "video", and no "video_path"`);
  return formatPath(info.videoPath, values, info.file);
}

/** Lists the episodes of `meta/episodes.jsonl`; each has a file of its own. */
async function readVersion2(folder: Folder, info: LeRobotInfo, cameras: readonly string[]): Promise<EpisodePlace[]> {
  const list = await folder.open('meta/episodes.jsonl');
  return readJsonLines(list, (line, where): EpisodePlace => {
    const index = asCount(line.episode_index, list.name, `${where}: "episode_index"`);
    const values = { episode_index: index, episode_chunk: Math.floor(index / info.chunkSize) };
    const tasks: unknown[] = Array.isArray(line.tasks) ? line.tasks : line.tasks == null ? [] : [line.tasks];
    return {
      index,
      length: asCount(line.length, list.name, `${where}: "length"`, 1),
      tasks: tasks.map((task) => asOptionalText(task, list.name, `${where}: "tasks"`)),
      file: formatPath(info.dataPath, values, info.file),
      from: 0,
      videos: new Map(
        cameras.map((camera) => [camera, { path: videoPath(info, { ...values, video_key: camera }), start: 0 }]),
      ),
    };
  });
}

/** Lists the episodes of `meta/episodes/chunk-000/file-000.parquet` and the files after it; a data file holds many. */
async function readVersion3(
  parquet: ParquetFolder,
  info: LeRobotInfo,
  cameras: readonly string[],
): Promise<EpisodePlace[]> {
  const listed: (EpisodePlace & { first: number })[] = [];
  let [chunk, number] = [0, 0];
  while (listed.length < info.episodes) {
    const file = await parquet.open(listPath(chunk, number)).catch(async (error) => {
      if (number === 0) throw error;
      [chunk, number] = [chunk + 1, 0];
      return parquet.open(listPath(chunk, number)).catch(() => {
        throw error;
      });
    });
    if (file.rows === 0) throw new InputError(`${file.name}: it lists no episode`);
    for (const place of await readList(file, info, cameras)) listed.push(place);
    number += 1;
  }
  // Row numbers run through all files; the first row of a file is the first one of its first episode.
  const firstOfFile = new Map<string, number>();
  for (const { file, first } of listed) firstOfFile.set(file, Math.min(first, firstOfFile.get(file) ?? first));
  return listed.map(({ first, ...place }) => ({ ...place, from: first - firstOfFile.get(place.file)! }));
}

const listPath = (chunk: number, file: number) =>
  formatPath('meta/episodes/chunk-{c:03d}/file-{f:03d}.parquet', { c: chunk, f: file }, 'meta/episodes');

async function readList(file: ParquetFile, info: LeRobotInfo, cameras: readonly string[]) {
  const numbers = async (column: string, whole = true) => {
    const values = await file.numbers(column, 0, file.rows, 1, Float64Array);
    const bad = values.findIndex((value) => !(whole ? Number.isSafeInteger(value) && value >= 0 : value >= 0));
    if (bad >= 0) throw new InputError(`${file.name}: column ${quote(column)} is ${values[bad]} in row ${bad}`);
    return values;
  };
  const [index, length, first, last] = await Promise.all(
    ['episode_index', 'length', 'dataset_from_index', 'dataset_to_index'].map((column) => numbers(column)),
  );
  const [chunk, number] = [await numbers('data/chunk_index'), await numbers('data/file_index')];
  const tasks = file.has('tasks') ? await file.texts('tasks') : null;
  const videos = await Promise.all(
    cameras.map(async (camera) => {
      const column = (name: string) => `videos/${camera}/${name}`;
      const [ownChunk, ownFile] = [await numbers(column('chunk_index')), await numbers(column('file_index'))];
      return { camera, ownChunk, ownFile, start: await numbers(column('from_timestamp'), false) };
    }),
  );
  return Array.from(index, (own, row) => {
    if (length[row] < 1 || last[row] - first[row] !== length[row]) {
      const range = `"dataset_from_index" to "dataset_to_index" hold ${last[row] - first[row]}`;
      throw new InputError(`${file.name}: episode ${own}: "length" is ${length[row]} steps, ${range}; at least 1`);
    }
    return {
      index: own,
      length: length[row],
      tasks: tasks?.[row] ?? [],
      file: formatPath(info.dataPath, { chunk_index: chunk[row], file_index: number[row] }, info.file),
      first: first[row],
      from: 0,
      videos: new Map(
        videos.map(({ camera, ownChunk, ownFile, start }) => {
          const values = { video_key: camera, chunk_index: ownChunk[row], file_index: ownFile[row] };
          return [camera, { path: videoPath(info, values), start: start[row] }];
        }),
      ),
    };
  });
}
