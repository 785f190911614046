import type { Dataset } from '../../model/data/dataset.ts';
import { type LeRobotWriteOptions, leRobotFiles } from '../../model/data/lerobot/writer.ts';
import { type TableColumn, TableWriter } from '../../model/data/parquet/writer.ts';
import { episodeOf, type Files, gradientImage, text } from './synthetic.ts';

export const rows = (count: number, first: number) =>
  Array.from({ length: count }, (_, step) => [first + step, first + step / 4, -step]);

/** Makes three episodes with 3 numbers and two cameras; the first episode's camera "wrist" begins at step 1. */
export function source(): Dataset {
  const episodes = [4, 6, 3].map((length, e) => ({
    ...episodeOf(`own ${e}`, rows(length, 10 * e), e === 2 ? [] : [`task ${e % 2}`, `other words ${e}`]),
    cameras: ['top', 'wrist'],
    image: async (camera: string, step: number) =>
      camera === 'wrist' && e === 0 && step < 1 ? null : gradientImage(8 + e, camera === 'top' ? 6 + step : 10),
  }));
  const actionNames = ['x', 'y', 'gripper'];
  return {
    name: 'own',
    rate: 20,
    actionDimension: 3,
    stateDimension: 3,
    actionNames,
    cameras: ['top', 'wrist'],
    episodes,
  };
}

/** Writes a data set as LeRobot 3.0 into memory, and returns the files by path. */
export async function filesOf(dataset: Dataset, options: LeRobotWriteOptions = {}): Promise<Files> {
  const files: Files = new Map();
  for await (const { path, bytes } of leRobotFiles(dataset, { robot: 'made', ...options })) {
    const pieces = [...(files.has(path) ? [files.get(path)!] : []), bytes] as BlobPart[];
    files.set(path, new Uint8Array(await new Blob(pieces).arrayBuffer()));
  }
  return files;
}

export const jsonOf = (files: Files, path: string) => JSON.parse(new TextDecoder().decode(files.get(path)));

export const column = (name: string, dtype: TableColumn['dtype'] = 'int64', depth = 0): TableColumn => ({
  name,
  dtype,
  depth,
});

/** The path at which `videoFiles` needs its video: 13 frames, those of the three episodes one after the other. */
export const VIDEO_PATH = 'videos/observation.images.top/chunk-000/file-000.mp4';

/** The columns of a list of episodes, in version 3. */
export const listColumns = [
  'episode_index',
  'length',
  'dataset_from_index',
  'dataset_to_index',
  'data/chunk_index',
  'data/file_index',
];

/** Makes the files of `source()` with only the camera "top", as video. */
export async function videoFiles(): Promise<Files> {
  const files = await filesOf(source());
  const info = jsonOf(files, 'meta/info.json');
  info.features['observation.images.top'].dtype = 'video';
  info.video_path = 'videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4';
  delete info.features['observation.images.wrist'];
  files.set('meta/info.json', text(info));
  const videos = ['chunk_index', 'file_index'].map((name) => `videos/observation.images.top/${name}`);
  const start = 'videos/observation.images.top/from_timestamp';
  const table = new TableWriter([
    ...[...listColumns, ...videos].map((name) => column(name)),
    column(start, 'float64'),
    column('tasks', 'string', 1),
  ]);
  const values = [
    [0, 1, 2],
    [4, 6, 3],
    [0, 4, 10],
    [4, 10, 13],
    [0, 0, 0],
    [0, 0, 0],
    [0, 0, 0],
    [0, 0, 0],
  ];
  table.append({
    ...Object.fromEntries([...listColumns, ...videos].map((name, i) => [name, values[i]])),
    [start]: [0, 4 / 20, 10 / 20],
    tasks: [['a'], ['b'], ['c']],
  });
  files.set('meta/episodes/chunk-000/file-000.parquet', table.finish());
  return files;
}
