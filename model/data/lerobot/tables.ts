import type { Dataset, Episode } from '../dataset.ts';
import { type TableColumn, TableWriter } from '../parquet/writer.ts';
import { instructionsAmong, instructionsAt } from '../parts.ts';
import { NO_INSTRUCTION } from './info.ts';

// This file makes the columns of the data, and the tables of meta/: the list of episodes and the list of tasks.

/** Returns the tasks that an episode lists, and the task of each step. */
export function tasksOf(episode: Episode): { listed: string[]; at: string[] } {
  const taskAt = (step: number) => instructionsAmong(instructionsAt(episode, step))[0] ?? NO_INSTRUCTION;
  const at = Array.from({ length: episode.length }, (_, step) => taskAt(step));
  return { listed: [...new Set([...instructionsAmong(episode.instructions), ...at])], at };
}

/** Where an episode lies in the data set: its number, that of its first step among all steps, and the number of each step's task. */
interface Place {
  readonly number: number;
  readonly index: number;
  readonly tasks: readonly number[];
}

/** A column of `width` numbers a step; `values` makes those of an episode, null if it has none. */
interface NumberColumn {
  readonly key: string;
  readonly dtype: 'float32' | 'int64';
  readonly width: number;
  readonly names: readonly string[] | null;
  values(episode: Episode, place: Place): ArrayLike<number> | null;
}

/** The columns of numbers of a data set, with those that every LeRobot data set has. */
export function numberColumns({ actionDimension, actionNames, stateDimension, rate }: Dataset): NumberColumn[] {
  const single = (
    key: string,
    dtype: NumberColumn['dtype'],
    valueAt: (step: number, place: Place) => number,
  ): NumberColumn => ({
    ...{ key, dtype, width: 1, names: null },
    values: ({ length }, place) => Array.from({ length }, (_, step) => valueAt(step, place)),
  });
  const action = { key: 'action', dtype: 'float32', width: actionDimension, names: actionNames ?? null } as const;
  const state = { key: 'observation.state', dtype: 'float32', width: stateDimension, names: null } as const;
  return [
    ...(stateDimension > 0 ? [{ ...state, values: ({ states }: Episode) => states }] : []),
    { ...action, values: ({ actions }) => actions },
    single('timestamp', 'float32', (step) => step / rate),
    single('frame_index', 'int64', (step) => step),
    single('episode_index', 'int64', (_, { number }) => number),
    single('index', 'int64', (step, { index }) => index + step),
    single('task_index', 'int64', (step, { tasks }) => tasks[step]),
  ];
}

/** The values of each row: a number, or a list if the column is wider than one, as LeRobot stores them. */
export function rowsOf(values: ArrayLike<number>, width: number): unknown[] {
  if (width === 1) return Array.from(values);
  const row = (first: number) => Array.from({ length: width }, (_, d) => values[first + d]);
  return Array.from({ length: values.length / width }, (_, i) => row(i * width));
}

export function episodesTable(
  lines: readonly Record<string, unknown>[],
  images: readonly { key: string }[],
): Uint8Array {
  const isImage = (name: string) => images.some(({ key }) => name.startsWith(`stats/${key}/`));
  const columns = Object.keys(lines[0]).map((name): TableColumn => {
    if (name === 'tasks') return { name, dtype: 'string', depth: 1 };
    if (!name.startsWith('stats/')) return { name, dtype: 'int64' };
    if (name.endsWith('/count')) return { name, dtype: 'int64', depth: 1 };
    return { name, dtype: 'float64', depth: isImage(name) ? 3 : 1 };
  });
  const table = new TableWriter(columns);
  table.append(Object.fromEntries(columns.map(({ name }) => [name, lines.map((line) => line[name])])));
  return table.finish();
}

/** Makes the list of tasks. LeRobot reads it with pandas, which finds in the metadata that the texts are the index. */
export function tasksTable(tasks: readonly string[]): Uint8Array {
  const index = { name: 'task', field_name: 'task', pandas_type: 'unicode', numpy_type: 'object', metadata: null };
  const pandas = { index_columns: ['task'], column_indexes: [], columns: [index], pandas_version: '2.0.0' };
  const columns: TableColumn[] = [
    { name: 'task_index', dtype: 'int64' },
    { name: 'task', dtype: 'string' },
  ];
  const table = new TableWriter(columns, { pandas });
  table.append({ task_index: tasks.map((_, i) => i), task: tasks });
  return table.finish();
}
