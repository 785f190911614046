/** Variants of a kernel that are measured beside each other. */
import type { Task } from './work.ts';

/** The alternatives for one choice, identified by its key. */
export interface Candidates<Key> {
  readonly key: Key;
  /** The shipped variant comes first. */
  readonly variants: readonly string[];
  /** The sizes that the variants are measured at, for people. */
  readonly sizes: string;
  task(variant: string): Task;
}

/** On a software adapter the kernels made for GPUs take seconds to compile and run several times as long: they are not candidates. */
export const worthMeasuring = (variants: readonly string[]): string[] =>
  variants.filter((name) => !variants[0].startsWith('software') || name.startsWith('software'));
