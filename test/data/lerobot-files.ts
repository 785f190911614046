import type { Dataset } from '../../model/data/dataset.ts';
import { leRobotFiles } from '../../model/data/lerobot/writer.ts';
import type { TableColumn } from '../../model/data/parquet/writer.ts';
import { episodeOf, type Files, gradientImage } from './synthetic.ts';

export const rows = (count: number, first: number) =>
  Array.from({ length: count }, (_, step) => [first + step, first + step / 4, -step]);

/** Three episodes of 3 numbers, two cameras; the first episode's camera "wrist" begins at step 1. */
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

/** The files of a data set as LeRobot 3.0, by path. */
export async function filesOf(dataset: Dataset): Promise<Files> {
  const files: Files = new Map();
  for await (const { path, bytes } of leRobotFiles(dataset, { robot: 'made' })) files.set(path, bytes.slice());
  return files;
}

export const jsonOf = (files: Files, path: string) => JSON.parse(new TextDecoder().decode(files.get(path)));

export const column = (name: string, dtype: TableColumn['dtype'] = 'int64', depth = 0): TableColumn => ({
  name,
  dtype,
  depth,
});
