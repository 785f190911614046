import { InputError, quote } from '../../../engine/files/errors.ts';
import { openPath } from '../../../engine/files/paths.ts';
import { ColumnSummary } from '../columns.ts';
import type { Dataset, Image } from '../dataset.ts';
import { type TableColumn, TableWriter } from '../parquet/writer.ts';
import { loadEpisode } from '../parts.ts';
import { imageCells } from './image-cells.ts';
import { formatPath, NO_INSTRUCTION } from './info.ts';
import { type FeatureStatistics, numberStatistics, PixelSummary } from './statistics.ts';
import { episodesTable, numberColumns, rowsOf, tasksOf, tasksTable } from './tables.ts';

const VERSION = 'v3.0';
const DATA_PATH = 'data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet';
const EPISODES_PATH = 'meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet';
/** LeRobot's defaults for the files in a chunk folder and the megabytes of a data file. */
const CHUNK_SIZE = 1000;
const DATA_FILE_MEGABYTES = 100;

export interface LeRobotWriteOptions {
  /** LeRobot's name of the robot. */
  readonly robot?: string;
  /** Leaves out episodes without an image of some camera; by default the cameras that some episodes lack. */
  readonly requireImages?: boolean;
  /** Receives a line about anything that is left out or has no place in the format. */
  readonly note?: (line: string) => void;
  /** Receives the number of episodes done, and of all, after every episode. */
  readonly onProgress?: (done: number, total: number) => void;
}

/** A file, or the next piece of one. */
interface Piece {
  readonly path: string;
  readonly bytes: Uint8Array;
}

const json = (path: string, value: unknown): Piece => ({
  path,
  bytes: new TextEncoder().encode(`${JSON.stringify(value, null, 4)}\n`),
});
const place = (file: number) => ({ chunk_index: Math.floor(file / CHUNK_SIZE), file_index: file % CHUNK_SIZE });
const dataPath = (file: number) => formatPath(DATA_PATH, place(file), DATA_PATH);

/**
 * Writes a data set into a folder in LeRobot's version 3.0, which LeRobot itself can read. Numbers and images go into
 * parquet files with one row group for each episode; a frame that several steps show is stored once. Statistics of images
 * use about n^0.75 of an episode's n frames. One episode at a time is held in memory.
 *
 * @param folder a path (node); it must not hold a LeRobot data set yet
 * @throws InputError if it does, if images are required and no episode has them all, or if the disk refuses
 */
export async function writeLeRobot(
  folder: string,
  dataset: Dataset,
  options: LeRobotWriteOptions = {},
): Promise<{ episodes: number; steps: number }> {
  const [{ writeFileSafely }, { mkdir }, { dirname, join }] = await Promise.all([
    import('../../../engine/files/files.ts'),
    import('node:fs/promises'),
    import('node:path'),
  ]);
  await expectNoLeRobot(folder);
  const pieces = leRobotFiles(dataset, options);
  let next = await pieces.next();
  async function* piecesOf(path: string) {
    while (!next.done && next.value.path === path) {
      yield next.value.bytes;
      next = await pieces.next();
    }
  }
  while (!next.done) {
    const { path } = next.value;
    const target = join(folder, path);
    await mkdir(dirname(target), { recursive: true });
    await writeFileSafely(target, piecesOf(path));
  }
  return next.value;
}

export async function expectNoLeRobot(folder: string): Promise<void> {
  const there = await openPath(`${folder}/meta/info.json`).catch(() => null);
  await there?.close();
  if (there) throw new InputError(`${folder}: a LeRobot data set is there already; choose another folder`);
}

/** Chooses the cameras and episodes to write, because in LeRobot every episode has images of every camera. */
function writtenPart(
  { name, cameras, episodes }: Dataset,
  { requireImages, note = () => {} }: LeRobotWriteOptions,
): Pick<Dataset, 'cameras' | 'episodes'> {
  const fail = (complaint: string) => new InputError(`data set ${quote(name)}${complaint}`);
  const all = episodes.length;
  if (all === 0) throw fail(' has no episodes to write');
  if (!requireImages) {
    const kept = cameras.filter((camera) => {
      const lacking = episodes.filter((episode) => !episode.cameras.includes(camera)).length;
      const some = `${lacking} of ${all} episodes have no image of it; --require-images leaves out the episodes instead`;
      const why = lacking === all ? 'no episode has an image of it' : some;
      if (lacking > 0) note(`camera ${quote(camera)} is left out: ${why}`);
      return lacking === 0;
    });
    return { cameras: kept, episodes };
  }
  if (cameras.length === 0) throw fail(' has no cameras: no image can be required');
  const kept = episodes.filter((episode) => cameras.every((camera) => episode.cameras.includes(camera)));
  const named = cameras.map(quote).join(', ');
  if (kept.length === 0)
    throw fail(
      `: none of ${all} episodes has images of all its cameras, ${named}: require none, or name fewer cameras`,
    );
  const left = `${all - kept.length} of ${all} episodes are left out: they have no image of one of the cameras ${named}`;
  note(kept.length < all ? left : `all ${all} episodes have images of the cameras ${named}: none is left out`);
  return { cameras, episodes: kept };
}

/** Makes the files of `writeLeRobot` in pieces, for places without a disk; `meta/info.json` is the last. */
export async function* leRobotFiles(
  dataset: Dataset,
  options: LeRobotWriteOptions = {},
): AsyncGenerator<Piece, { episodes: number; steps: number }> {
  const { cameras, episodes } = writtenPart(dataset, options);
  const numbers = numberColumns(dataset).map((column) => ({ ...column, total: new ColumnSummary(column.width) }));
  const images = cameras.map((camera) => ({
    ...{ camera, key: `observation.images.${camera}`, total: new PixelSummary() },
    size: null as Pick<Image, 'width' | 'height'> | null,
  }));
  const columns: TableColumn[] = [
    ...numbers.map(({ key, dtype, width }) => ({ name: key, dtype, ...(width > 1 && { depth: 1, length: width }) })),
    ...images.map(({ key }) => ({ name: key, dtype: 'image' }) as const),
  ];
  const tasks = new Map<string, number>();
  const lines: Record<string, unknown>[] = [];
  let [file, index, untold] = [0, 0, 0];
  let table = new TableWriter(columns);
  for (const [number, listed] of episodes.entries()) {
    const episode = await loadEpisode(listed);
    const { length, id } = episode;
    const own = tasksOf(episode);
    for (const task of own.listed) if (!tasks.has(task)) tasks.set(task, tasks.size);
    if (own.listed.includes(NO_INSTRUCTION)) untold += 1;
    const rows: Record<string, unknown[]> = {};
    const stats: Record<string, FeatureStatistics> = {};
    for (const { key, width, values, total } of numbers) {
      const table = values(episode, { number, index, tasks: own.at.map((task) => tasks.get(task)!) });
      if (!table) throw new InputError(`episode "${id}" has no state, others have: write them apart`);
      if (table.length !== length * width)
        throw new InputError(
          `episode "${id}" has ${table.length / length} numbers a step as "${key}", ${width} were expected: write each robot apart`,
        );
      const summary = new ColumnSummary(width);
      for (const each of [summary, total]) each.add(table);
      rows[key] = rowsOf(table, width);
      stats[key] = numberStatistics(summary);
    }
    for (const image of images) {
      const summary = new PixelSummary();
      const { cells, ...size } = await imageCells(episode, image.camera, image.size, [summary, image.total]);
      image.size = size;
      rows[image.key] = cells;
      stats[image.key] = summary.statistics();
    }
    if (table.size > DATA_FILE_MEGABYTES * 2 ** 20) {
      yield { path: dataPath(file), bytes: table.finish() };
      file += 1;
      table = new TableWriter(columns);
    }
    table.append(rows);
    yield { path: dataPath(file), bytes: table.take() };
    const values = Object.entries(stats).flatMap(([key, named]) =>
      Object.entries(named).map(([name, value]) => [`stats/${key}/${name}`, value]),
    );
    lines.push({
      episode_index: number,
      tasks: own.listed,
      length,
      'data/chunk_index': place(file).chunk_index,
      'data/file_index': place(file).file_index,
      dataset_from_index: index,
      dataset_to_index: index + length,
      'meta/episodes/chunk_index': 0,
      'meta/episodes/file_index': 0,
      ...Object.fromEntries(values),
    });
    index += length;
    options.onProgress?.(number + 1, episodes.length);
  }
  if (untold > 0)
    options.note?.(
      `${untold} of ${episodes.length} episodes have no instruction at some step: LeRobot needs a task there, so it is "${NO_INSTRUCTION}", which is read back as none`,
    );
  yield { path: dataPath(file), bytes: table.finish() };
  yield { path: formatPath(EPISODES_PATH, place(0), EPISODES_PATH), bytes: episodesTable(lines, images) };
  yield { path: 'meta/tasks.parquet', bytes: tasksTable([...tasks.keys()]) };
  const totals = [
    ...numbers.map(({ key, total }) => [key, numberStatistics(total)]),
    ...images.map(({ key, total }) => [key, total.statistics()]),
  ];
  yield json('meta/stats.json', Object.fromEntries(totals));
  const features = [
    ...numbers.map(({ key, dtype, width, names }) => [key, { dtype, shape: [width], names }]),
    ...images.map(({ key, size }) => {
      return [key, { dtype: 'image', shape: [size!.height, size!.width, 3], names: ['height', 'width', 'channels'] }];
    }),
  ];
  yield json('meta/info.json', {
    codebase_version: VERSION,
    robot_type: options.robot ?? null,
    total_episodes: episodes.length,
    total_frames: index,
    total_tasks: tasks.size,
    chunks_size: CHUNK_SIZE,
    data_files_size_in_mb: DATA_FILE_MEGABYTES,
    video_files_size_in_mb: 200,
    fps: dataset.rate,
    splits: { train: `0:${episodes.length}` },
    data_path: DATA_PATH,
    video_path: null,
    features: Object.fromEntries(features),
  });
  return { episodes: episodes.length, steps: index };
}
