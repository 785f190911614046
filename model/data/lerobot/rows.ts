import type { Episode } from '../dataset.ts';
import { instructionsAmong, instructionsAt } from '../parts.ts';
import { NO_INSTRUCTION } from './info.ts';

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
