import type { Episode } from '../dataset.ts';
import { type TableColumn, TableWriter } from '../parquet/writer.ts';
import { instructionsAmong, instructionsAt } from '../parts.ts';
import { NO_INSTRUCTION } from './info.ts';

// This file makes the rows of the data, and the tables of meta/: the list of episodes and the list of tasks.

/** Returns the tasks that an episode lists, and the task of each step. */
export function tasksOf(episode: Episode): { listed: string[]; at: string[] } {
  const taskAt = (step: number) => instructionsAmong(instructionsAt(episode, step))[0] ?? NO_INSTRUCTION;
  const at = Array.from({ length: episode.length }, (_, step) => taskAt(step));
  return { listed: [...new Set([...instructionsAmong(episode.instructions), ...at])], at };
}

/** The columns of single values that every LeRobot data set has; LeRobot keeps their statistics, too. */
export const plainTypes = {
  timestamp: 'float32',
  frame_index: 'int64',
  episode_index: 'int64',
  index: 'int64',
  task_index: 'int64',
} as const;

/** Makes one episode's rows of these columns; `index` is the number of its first step among all steps. */
export function plainRows(
  episode: Episode,
  number: number,
  index: number,
  rate: number,
  tasks: ReadonlyMap<string, number>,
): Record<keyof typeof plainTypes, number[]> {
  const steps = Array.from({ length: episode.length }, (_, step) => step);
  const { at } = tasksOf(episode);
  return {
    timestamp: steps.map((step) => step / rate),
    frame_index: steps,
    episode_index: steps.map(() => number),
    index: steps.map((step) => index + step),
    task_index: at.map((task) => tasks.get(task)!),
  };
}

export const listOf = (width: number) => (width === 1 ? {} : { depth: 1, length: width });

export function rowsOf(values: Float32Array, width: number): unknown[] {
  if (width === 1) return Array.from(values);
  return Array.from({ length: values.length / width }, (_, row) =>
    Array.from(values.subarray(row * width, (row + 1) * width)),
  );
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
  const column = (name: string, type: string, numpy: string) => ({
    name,
    field_name: name,
    pandas_type: type,
    numpy_type: numpy,
    metadata: null,
  });
  const pandas = {
    index_columns: ['task'],
    column_indexes: [
      { ...column('', 'unicode', 'object'), name: null, field_name: null, metadata: { encoding: 'UTF-8' } },
    ],
    columns: [column('task_index', 'int64', 'int64'), column('task', 'unicode', 'object')],
    creator: { library: 'insula', version: '1' },
    pandas_version: '2.0.0',
  };
  const columns: TableColumn[] = [
    { name: 'task_index', dtype: 'int64' },
    { name: 'task', dtype: 'string' },
  ];
  const table = new TableWriter(columns, { pandas });
  table.append({ task_index: tasks.map((_, i) => i), task: tasks });
  return table.finish();
}
