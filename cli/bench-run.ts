/** What the benchmarks that compare rows in rounds have in common: limits, files, comparisons. */
import { stat } from 'node:fs/promises';
import { type Comparison, compareBuilds, compareSaved, comparisonLines } from '../bench/measure/compare.ts';
import { OtherBuild } from '../bench/measure/other-build.ts';
import { type Run, type RunBudget, readSavedRun, type Timed } from '../bench/measure/run.ts';
import { csvOf } from '../bench/measure/table.ts';
import { openTunedDevice, type Tuning } from '../bench/measure/tuning.ts';
import { writeFileSafely } from '../engine/files/files.ts';
import { type Device, InputError } from '../engine/index.ts';
import type { Context, Result } from './command.ts';
import { deviceOptions } from './device.ts';
import { number, outputFile, text, type Use, type ValuesOf } from './options.ts';

export interface Limits {
  readonly seconds: number;
  /** By default until they are settled. */
  readonly rounds?: number;
}

export const limitOptions = ({ seconds, rounds }: Limits, use?: Use) => ({
  rounds: number(
    `rounds, if --seconds hold them; ${rounds === undefined ? 'until every case is decided' : `${rounds}, or with --compare as many as --seconds hold,`} by default`,
    1,
    use,
  ),
  seconds: number(`time for everything, compilation included; ${seconds} by default`, 1, use),
});

export const benchOptions = (limits: Limits, use?: Use) => ({
  ...limitOptions(limits),
  csv: outputFile('file for the rows as CSV', use),
  out: outputFile('file for the run as JSON', use),
  compare: text(
    'a build to measure in the same rounds: a folder with another checkout, or a commit; or the file of an earlier --out',
    use,
  ),
  ...deviceOptions,
});

type Values = ValuesOf<ReturnType<typeof benchOptions>>;

/** A benchmark as a command runs it. */
interface Bench<R extends Run<Timed>> {
  readonly command: string;
  /** Without --seconds and --rounds. */
  readonly limits: Limits;
  run(device: Device, budget: RunBudget, tuning: Tuning | null): Promise<R>;
  lines(run: R): string[];
  /** Writes further files. */
  write?(run: R): Promise<void>;
}

export async function runBench<R extends Run<Timed>>(
  bench: Bench<R>,
  values: Values,
  { progress, signal, words }: Context,
): Promise<Result<R & { readonly comparison?: Comparison }>> {
  const { command, limits } = bench;
  const { compare, adapter, floor, tuning: named } = values;
  const saved = compare !== undefined && (await stat(compare).catch(() => null))?.isFile();
  const before = saved ? { path: compare, saved: await readSavedRun(compare, command) } : undefined;
  const begin = performance.now();
  const opened = await openTunedDevice({ adapter, floor, tuning: named }, (line) => progress.note(line));
  using device = opened.device;
  await using other =
    compare === undefined || saved ? null : await OtherBuild.start(compare, device.description, sameWork(words));
  const run = await bench.run(
    device,
    {
      ...{ begin, before, signal },
      seconds: values.seconds ?? limits.seconds,
      rounds: values.rounds ?? (compare === undefined ? limits.rounds : undefined),
      other: other ?? undefined,
      onProgress: progress.ofBench(),
    },
    opened.tuning,
  );
  if (run.rows.length === 0) throw new InputError(`${command}: interrupted before anything was measured`);
  const comparison = before ? compareSaved(run, before.saved) : other && compareBuilds(run, compare!);
  const result = comparison ? { ...run, comparison } : run;
  if (values.csv !== undefined) await writeFileSafely(values.csv, [csvOf(result.rows.map(withoutTimes))]);
  if (values.out !== undefined) await writeFileSafely(values.out, [`${JSON.stringify(result, null, 1)}\n`]);
  await bench.write?.(run);
  return {
    json: result,
    lines: [...(comparison ? [...comparisonLines(comparison), ''] : []), ...bench.lines(run)],
    status: run.ended === 'interrupted' ? 130 : 0,
  };
}

/** The rows of CSV have no lists. */
const withoutTimes = (row: Timed) =>
  Object.fromEntries(Object.entries(row).filter(([, value]) => !Array.isArray(value)));

/** The words of the command without the options that only the build that compares takes. */
function sameWork(words: readonly string[]): string[] {
  const own = ['--compare', '--csv', '--out', '--report'];
  return words.filter(
    (word, i) => word !== '--json' && !own.includes(word.split('=')[0]) && !own.includes(words[i - 1]),
  );
}
