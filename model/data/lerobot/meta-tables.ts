import { type TableColumn, TableWriter } from '../parquet/writer.ts';
import type { FeatureStatistics } from './statistics.ts';

// This file makes the tables of meta/: the list of episodes and the list of tasks.

export function episodeLine(
  number: number,
  tasks: readonly string[],
  length: number,
  data: { readonly chunk_index: number; readonly file_index: number },
  from: number,
  stats: Record<string, FeatureStatistics>,
): Record<string, unknown> {
  const line: Record<string, unknown> = {
    episode_index: number,
    tasks,
    length,
    'data/chunk_index': data.chunk_index,
    'data/file_index': data.file_index,
    dataset_from_index: from,
    dataset_to_index: from + length,
    'meta/episodes/chunk_index': 0,
    'meta/episodes/file_index': 0,
  };
  for (const [key, own] of Object.entries(stats)) {
    for (const [name, value] of Object.entries(own)) line[`stats/${key}/${name}`] = value;
  }
  return line;
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
