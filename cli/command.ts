/** A command: its options, and a function from their values to a result. */
import type { Options, ValuesOf } from './options.ts';
import type { Progress } from './progress.ts';

export interface Result<Json = unknown> {
  /** The output of --json. */
  readonly json: Json;
  /** The output without --json. */
  readonly lines: readonly string[];
  /** Exit status; 0 by default. */
  readonly status?: number;
}

export interface Context {
  readonly progress: Progress;
  readonly signal: AbortSignal;
  /** The words after `insula`, as typed. */
  readonly words: readonly string[];
  /** Positional arguments. */
  readonly names: readonly string[];
}

export interface Command {
  readonly options: Options;
  /** Help of the positional arguments; without it the command takes none. */
  readonly names?: string;
  /** The command ends by itself, with a partial result, when the signal is aborted; other commands are killed. */
  readonly interruptible?: boolean;
  /** Paragraphs of help after the options. */
  readonly notes?: readonly string[];
  run(values: Readonly<Record<string, unknown>>, context: Context): Promise<Result>;
}

/** A command with the types of its values and of its result, for tests. */
export interface TypedCommand<O extends Options, Json> extends Command {
  readonly options: O;
  runWith(values: ValuesOf<O>, context: Context): Promise<Result<Json>>;
}

/** Declares a command; `run` gets values of the types that the options declare. */
export function command<O extends Options, Json>({
  run,
  ...others
}: Omit<Command, 'run' | 'options'> & {
  readonly options: O;
  run(values: ValuesOf<O>, context: Context): Promise<Result<Json>>;
}): TypedCommand<O, Json> {
  return { ...others, run: (values, context) => run(values as ValuesOf<O>, context), runWith: run };
}
