import { encode as encodePng } from 'fast-png';
import { InputError, quote } from '../../../engine/files/errors.ts';
import { openPath } from '../../../engine/files/paths.ts';
import type { ColumnCounter } from '../columns.ts';
import type { Dataset, Episode, Image } from '../dataset.ts';
import { resizeWithPadding } from '../images.ts';
import { type ImageCell, type TableColumn, TableWriter } from '../parquet/writer.ts';
import { instructionsAt, loadEpisode } from '../parts.ts';
import { formatPath } from './info.ts';
import { episodeLine, episodesTable, tasksTable } from './meta-tables.ts';
import {
  episodeStatistics,
  type FeatureStatistics,
  featureCounter,
  featureStatistics,
  PixelCounter,
} from './statistics.ts';

const VERSION = 'v3.0';
const DATA_PATH = 'data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet';
const EPISODES_PATH = 'meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet';
/** Files of a chunk folder, and megabytes of a data file, as LeRobot's defaults. */
const CHUNK_SIZE = 1000;
const DATA_FILE_MEGABYTES = 100;

export interface LeRobotWriteOptions {
  /** What LeRobot calls the robot. */
  readonly robot?: string;
  /** Called after every episode with the episodes done and to do. */
  readonly onProgress?: (done: number, total: number) => void;
}

interface File {
  readonly path: string;
  readonly bytes: Uint8Array;
}

const json = (path: string, value: unknown): File => ({
  path,
  bytes: new TextEncoder().encode(`${JSON.stringify(value, null, 4)}\n`),
});
/** Indices of a chunk folder and a file in it. */
const place = (file: number) => ({ chunk_index: Math.floor(file / CHUNK_SIZE), file_index: file % CHUNK_SIZE });

/**
 * Writes a data set into a folder as LeRobot of version 3.0, readable by LeRobot itself: numbers and PNG images in
 * parquet files, one row group an episode. Statistics are exact, of images over about n^0.75 of an episode's n frames.
 *
 * @param folder a path (node); nothing of LeRobot may lie there yet
 * @throws InputError where one does, a camera has no image in an episode, or the disk says no
 */
export async function writeLeRobot(folder: string, dataset: Dataset, options: LeRobotWriteOptions = {}): Promise<void> {
  const [{ writeFileSafely }, { mkdir }, { dirname, join }] = await Promise.all([
    import('../../../engine/files/files.ts'),
    import('node:fs/promises'),
    import('node:path'),
  ]);
  await expectNoLeRobot(folder);
  for await (const { path, bytes } of leRobotFiles(dataset, options)) {
    const target = join(folder, path);
    await mkdir(dirname(target), { recursive: true });
    await writeFileSafely(target, [bytes]);
  }
}

/** @throws InputError where a LeRobot data set lies in the folder (node) */
export async function expectNoLeRobot(folder: string): Promise<void> {
  const there = await openPath(`${folder}/meta/info.json`).catch(() => null);
  await there?.close();
  if (there) throw new InputError(`${folder}: a LeRobot data set is there already; choose another folder`);
}

/** The files of `writeLeRobot`, one after the other, for places without a disk; `meta/info.json` is the last. */
export async function* leRobotFiles(dataset: Dataset, options: LeRobotWriteOptions = {}): AsyncGenerator<File> {
  const { actionDimension, stateDimension, episodes, cameras, rate } = dataset;
  if (episodes.length === 0) throw new InputError(`data set "${dataset.name}" has no episodes to write`);
  const tables = [
    ...(stateDimension > 0 ? [{ key: 'observation.state', width: stateDimension, names: null }] : []),
    { key: 'action', width: actionDimension, names: dataset.actionNames ?? null },
  ];
  for (const camera of cameras) {
    const without = episodes.filter((episode) => !episode.cameras.includes(camera)).map(({ id }) => quote(id));
    if (without.length > 0)
      throw new InputError(
        `camera ${quote(camera)} has no image in ${without.length} of ${episodes.length} episodes, such as ${without[0]}: leave out the camera, or the episodes`,
      );
  }
  const images = cameras.map((camera) => ({ camera, key: `observation.images.${camera}` }));
  const columns: TableColumn[] = [
    // LeRobot keeps a feature of one number as a plain value.
    ...tables.map(({ key, width }) => ({ name: key, dtype: 'float32', ...listOf(width) }) as const),
    ...images.map(({ key }) => ({ name: key, dtype: 'image' }) as const),
    ...Object.entries(plainTypes).map(([name, dtype]) => ({ name, dtype })),
  ];
  const totals = new Map<string, ColumnCounter>(
    [...tables, ...Object.keys(plainTypes).map((key) => ({ key, width: 1 }))].map(({ key, width }) => [
      key,
      featureCounter(width),
    ]),
  );
  const pixels = new Map(images.map(({ key }) => [key, new PixelCounter()]));
  const sizes = new Map<string, Image>();
  const tasks = new Map<string, number>();
  const lines: Record<string, unknown>[] = [];
  let [file, index] = [0, 0];
  let table = new TableWriter(columns);
  for (const [number, listed] of episodes.entries()) {
    const episode = await loadEpisode(listed);
    const wordings = episode.instructions.length > 0 ? episode.instructions : [''];
    for (const wording of wordings) if (!tasks.has(wording)) tasks.set(wording, tasks.size);
    const rows: Record<string, unknown[]> = {};
    const stats: Record<string, FeatureStatistics> = {};
    for (const { key, width } of tables) {
      const values = key === 'action' ? episode.actions : episode.states;
      if (!values) throw new InputError(`episode "${episode.id}" has no state, others have: write them apart`);
      if (values.length !== episode.length * width)
        throw new InputError(
          `episode "${episode.id}" has ${values.length / episode.length} numbers a step as "${key}", ${width} were expected: write each robot apart`,
        );
      rows[key] = rowsOf(values, width);
      stats[key] = episodeStatistics(values, width);
      totals.get(key)!.add(values);
    }
    for (const { camera, key } of images) {
      const own = new PixelCounter();
      rows[key] = await imageCells(episode, camera, sizes, own);
      stats[key] = own.statistics();
      pixels.get(key)!.merge(own);
    }
    const { length } = episode;
    for (const [name, values] of Object.entries(plainRows(episode, number, index, rate, tasks))) {
      rows[name] = values;
      stats[name] = episodeStatistics(values, 1);
      totals.get(name)!.add(Float32Array.from(values));
    }
    if (table.size > DATA_FILE_MEGABYTES * 2 ** 20) {
      yield { path: formatPath(DATA_PATH, place(file), DATA_PATH), bytes: table.finish() };
      file += 1;
      table = new TableWriter(columns);
    }
    table.append(rows);
    lines.push(episodeLine(number, wordings, length, place(file), index, stats));
    index += length;
    options.onProgress?.(number + 1, episodes.length);
  }
  yield { path: formatPath(DATA_PATH, place(file), DATA_PATH), bytes: table.finish() };
  yield { path: formatPath(EPISODES_PATH, place(0), EPISODES_PATH), bytes: episodesTable(lines, images) };
  yield { path: 'meta/tasks.parquet', bytes: tasksTable([...tasks.keys()]) };
  index = 0;
  for (const [number, listed] of episodes.entries()) {
    const episode = await loadEpisode(listed);
    for (const { key } of tables) totals.get(key)!.addAgain(key === 'action' ? episode.actions : episode.states!);
    for (const [name, values] of Object.entries(plainRows(episode, number, index, rate, tasks)))
      totals.get(name)!.addAgain(Float32Array.from(values));
    index += episode.length;
  }
  yield json(
    'meta/stats.json',
    Object.fromEntries([
      ...[...totals].map(([key, counter]) => [key, featureStatistics(counter)]),
      ...[...pixels].map(([key, counter]) => [key, counter.statistics()]),
    ]),
  );
  const features = Object.fromEntries([
    ...tables.map(({ key, width, names }) => [key, { dtype: 'float32', shape: [width], names }]),
    ...images.map(({ key }) => {
      const { height, width } = sizes.get(key)!;
      return [key, { dtype: 'image', shape: [height, width, 3], names: ['height', 'width', 'channels'] }];
    }),
    ...Object.entries(plainTypes).map(([name, dtype]) => [name, { dtype, shape: [1], names: null }]),
  ]);
  yield json('meta/info.json', {
    codebase_version: VERSION,
    robot_type: options.robot ?? null,
    total_episodes: episodes.length,
    total_frames: index,
    total_tasks: tasks.size,
    chunks_size: CHUNK_SIZE,
    data_files_size_in_mb: DATA_FILE_MEGABYTES,
    video_files_size_in_mb: 200,
    fps: rate,
    splits: { train: `0:${episodes.length}` },
    data_path: DATA_PATH,
    video_path: null,
    features,
  });
}

/** The columns of plain values that every LeRobot data set has; it keeps their statistics too. */
const plainTypes = {
  timestamp: 'float32',
  frame_index: 'int64',
  episode_index: 'int64',
  index: 'int64',
  task_index: 'int64',
} as const;

/** Their rows of one episode, whose first step is number `index` of all. */
function plainRows(
  episode: Episode,
  number: number,
  index: number,
  rate: number,
  tasks: ReadonlyMap<string, number>,
): Record<keyof typeof plainTypes, number[]> {
  const steps = Array.from({ length: episode.length }, (_, step) => step);
  const taskAt = (step: number) => instructionsAt(episode, step)[0] ?? episode.instructions[0] ?? '';
  return {
    timestamp: steps.map((step) => step / rate),
    frame_index: steps,
    episode_index: steps.map(() => number),
    index: steps.map((step) => index + step),
    task_index: steps.map((step) => tasks.get(taskAt(step))!),
  };
}

const listOf = (width: number) => (width === 1 ? {} : { depth: 1, length: width });

function rowsOf(values: Float32Array, width: number): unknown[] {
  if (width === 1) return Array.from(values);
  return Array.from({ length: values.length / width }, (_, row) =>
    Array.from(values.subarray(row * width, (row + 1) * width)),
  );
}

/** A PNG for every step; steps before the camera's first image show that one. All have the size of the very first. */
async function imageCells(episode: Episode, camera: string, sizes: Map<string, Image>, counter: PixelCounter) {
  const key = `observation.images.${camera}`;
  let image: Image | null = null;
  for (let step = 0; !image && step < episode.length; step++) image = await episode.image(camera, step);
  if (!image) {
    const choice = 'leave out the camera, or the episode';
    throw new InputError(`episode "${episode.id}" has no image of camera "${camera}": ${choice}`);
  }
  if (!sizes.has(key)) sizes.set(key, image);
  const { width, height } = sizes.get(key)!;
  const every = Math.max(
    1,
    Math.floor(episode.length / Math.max(Math.min(100, episode.length), episode.length ** 0.75)),
  );
  const cells: ImageCell[] = [];
  for (let step = 0; step < episode.length; step++) {
    image = (await episode.image(camera, step)) ?? image;
    const shown = resizeWithPadding(image, width, height);
    if (step % every === 0) counter.add(shown);
    const bytes = encodePng({ width, height, data: shown.pixels, channels: 3, depth: 8 });
    cells.push({ bytes, path: `frame_${String(step).padStart(6, '0')}.png` });
  }
  return cells;
}
