/** Runs a command in this process, with values as its options read them. */
import type { Result, TypedCommand } from '../../cli/command.ts';
import type { Options, ValuesOf } from '../../cli/options.ts';
import { Progress } from '../../cli/progress.ts';

class Silent extends Progress {
  override note(): void {}
  override count(): void {}
}

interface RunCommandOptions {
  readonly progress?: Progress;
  readonly signal?: AbortSignal;
  /** Words beside the options. */
  readonly names?: readonly string[];
}

export function runCommand<O extends Options, Json>(
  command: TypedCommand<O, Json>,
  values: ValuesOf<O>,
  { progress = new Silent(), signal = new AbortController().signal, names = [] }: RunCommandOptions = {},
): Promise<Result<Json>> {
  return command.runWith(values, { progress, signal, words: [], names });
}
