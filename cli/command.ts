/** What a command is: options, and a function from their values to a result. */
import type { Options, ValuesOf } from './options.ts';
import type { Progress } from './progress.ts';

export interface Result<Json = unknown> {
  /** What --json prints. */
  readonly json: Json;
  /** Lines for people. */
  readonly lines: readonly string[];
  /** Exit status; 0 unless it is given. */
  readonly status?: number;
}

export interface Context {
  readonly progress: Progress;
  readonly signal: AbortSignal;
  /** The words behind `insula`, as typed. */
  readonly words: readonly string[];
  /** Words beside the options. */
  readonly names: readonly string[];
}

export interface Command {
  readonly options: Options;
  /** Help of the words that it takes beside options; without it there are none. */
  readonly names?: string;
  /** Ends by itself, with what it has, when the signal is aborted; others are ended. */
  readonly interruptible?: boolean;
  /** Paragraphs below its options in help. */
  readonly notes?: readonly string[];
  run(values: Readonly<Record<string, unknown>>, context: Context): Promise<Result>;
}

/** A command with the types of its values and of its result, for callers inside the program. */
export interface TypedCommand<O extends Options, Json> extends Command {
  readonly options: O;
  runWith(values: ValuesOf<O>, context: Context): Promise<Result<Json>>;
}

/** Declares a command: `run` gets values of the types that its options declare. */
export function command<O extends Options, Json>({
  run,
  ...others
}: Omit<Command, 'run' | 'options'> & {
  readonly options: O;
  run(values: ValuesOf<O>, context: Context): Promise<Result<Json>>;
}): TypedCommand<O, Json> {
  return { ...others, run: (values, context) => run(values as ValuesOf<O>, context), runWith: run };
}
