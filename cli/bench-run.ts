/** The common part of the benchmarks that compare rows in rounds: limits, files, comparisons. */
import { stat } from 'node:fs/promises';
import {
  type Comparison,
  compareSaved,
  type Run,
  type RunBudget,
  readSavedRun,
  type Timed,
} from '../bench/measure/run.ts';
import { DOUBT, SAME } from '../bench/measure/statistics.ts';
import { aligned, digits } from '../bench/measure/table.ts';
import { writeFileSafely } from '../engine/files/files.ts';
import { type Device, InputError } from '../engine/index.ts';
import { openTunedDevice, type Tuning } from '../kernels/tuning.ts';
import { compareBuilds } from './bench-builds.ts';
import type { Context, Result } from './command.ts';
import { deviceOptions } from './device.ts';
import { number, outputFile, text, type Use, type ValuesOf } from './options.ts';

export interface Limits {
  readonly seconds: number;
  /** By default until they are settled. */
  readonly rounds?: number;
}

/** The limits of most benchmarks. */
export const LIMITS = { seconds: 60, rounds: 20 };

export const limitOptions = ({ seconds, rounds }: Limits, use?: Use) => ({
  rounds: number(
    `rounds, if --seconds hold them; ${rounds === undefined ? 'until every case is decided' : rounds} by default`,
    1,
    use,
  ),
  seconds: number(
    `time for everything, compilation included; ${seconds} by default, ${BUILDS * seconds} beside another build`,
    1,
    use,
  ),
});

export const benchOptions = (limits: Limits = LIMITS, use?: Use) => ({
  ...limitOptions(limits),
  csv: outputFile('file for the rows as CSV', use),
  out: outputFile('file for the run as JSON', use),
  compare: text(
    'another build to measure beside this one: a folder with a checkout, or a commit; or the file of an earlier --out',
    use,
  ),
  ...deviceOptions,
});

type Values = ValuesOf<ReturnType<typeof benchOptions>>;

/** A benchmark as a command runs it. */
interface Bench<R extends Run<Timed>> {
  readonly command: string;
  /** The limits without --seconds and --rounds, as its options name them. */
  readonly limits?: Limits;
  run(device: Device, budget: RunBudget, tuning: Tuning | null): Promise<R>;
  lines(run: R): string[];
  /** Writes further files. */
  write?(run: R): Promise<void>;
}

export async function runBench<R extends Run<Timed>>(
  values: Values,
  context: Context,
  bench: Bench<R>,
): Promise<Result<(R & { readonly comparison?: Comparison }) | Comparison>> {
  const { progress, signal } = context;
  const { command, limits = LIMITS }: Bench<R> = bench;
  const { compare, adapter, floor, tuning: named } = values;
  const isFile = compare !== undefined && (await stat(compare).catch(() => null))?.isFile();
  if (compare !== undefined && !isFile) return besideBuild(compare, limits, values, context);
  const before = isFile ? { path: compare, saved: await readSavedRun(compare, command) } : undefined;
  const begin = performance.now();
  const opened = await openTunedDevice({ adapter, floor, tuning: named }, (line) => progress.note(line));
  using device = opened.device;
  const budget = {
    ...{ begin, before, signal, onProgress: progress.ofBench() },
    seconds: values.seconds ?? limits.seconds,
    rounds: values.rounds ?? limits.rounds,
  };
  const run = await bench.run(device, budget, opened.tuning);
  if (run.rows.length === 0)
    throw new InputError(
      run.ended === 'interrupted'
        ? `${command}: interrupted before anything was measured`
        : `--seconds ${budget.seconds}: the known work beside the rows took them all, and no row was measured; give at least ${5 * budget.seconds}`,
    );
  const comparison = before && compareSaved(run, before.saved);
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

/** Times as long as a run, because both builds start anew for every block. */
const BUILDS = 4;

async function besideBuild(
  build: string,
  limits: Limits,
  { seconds = BUILDS * limits.seconds, out }: Values,
  { progress, signal, words }: Context,
): Promise<Result<Comparison>> {
  for (const option of ['--csv', '--report', '--rounds'])
    if (words.some((word) => word.split('=')[0] === option))
      throw new InputError(
        `--compare ${build}: ${option} has no use beside another build; --out writes the comparison as JSON`,
      );
  const comparison = await compareBuilds(build, sameWork(words), { seconds, signal, onProgress: progress.ofBench() });
  if (out !== undefined) await writeFileSafely(out, [`${JSON.stringify(comparison, null, 1)}\n`]);
  return { json: comparison, lines: comparisonLines(comparison) };
}

/** The rows of CSV have no lists. */
const withoutTimes = (row: Timed) =>
  Object.fromEntries(Object.entries(row).filter(([, value]) => !Array.isArray(value)));

/** The words of the command without the options that only the build that compares takes. */
function sameWork(words: readonly string[]): string[] {
  const own = ['--compare', '--out', '--seconds'];
  return words.filter(
    (word, i) => word !== '--json' && !own.includes(word.split('=')[0]) && !own.includes(words[i - 1]),
  );
}

export function comparisonLines({ what, rows, alone, drifts }: Comparison): string[] {
  const cells = rows.map(({ name, before, now, ratio, change }) => [
    ...[name, digits(before), digits(now), ratio ? digits(ratio.ratio) : '-'],
    ...[ratio ? `${digits(ratio.low)} - ${digits(ratio.high)}` : 'too few values', change],
  ]);
  const count = (...changes: readonly Comparison['rows'][number]['change'][]) =>
    rows.filter(({ change }) => changes.includes(change)).length;
  const changed = count('faster', 'slower');
  const drift = drifts && drifts.length > 0 ? [Math.min(...drifts), Math.max(...drifts)] : null;
  const [here, there] = alone;
  return [
    `${what}: ${changed === 0 ? 'no change' : `${changed} of ${rows.length} rows changed`} (${count('same')} of ${rows.length} rows are the same within ${100 * SAME} %, ${count('undecided')} not decided)`,
    ...aligned([['row', 'ms before', 'ms now', 'now / before', 'interval', 'change'], ...cells], 1),
    `interval: it holds the true ratio with ${100 * (1 - DOUBT)} %${drifts ? ', all of them together' : ''}; a row has changed if its interval lies beyond ${100 * SAME} %.`,
    ...(drift
      ? [
          `Known work beside the rows takes ${digits(drift[0])} to ${digits(drift[1])} times as long as in that run; the intervals cover that. --compare with a folder or a commit measures both builds beside each other, which sees smaller changes.`,
        ]
      : []),
    ...(here > 0 ? [`rows of this run that the other lacks: ${here}`] : []),
    ...(there > 0 ? [`rows of the other run that were not measured: ${there}`] : []),
  ];
}

/** One line for each row, numbers in full. A value that is an object in JSON has a column for each of its fields. */
function csvOf(rows: readonly object[]): string {
  const flat = rows.map((row) =>
    Object.fromEntries(
      Object.entries(row).flatMap(([name, value]) =>
        typeof value === 'object' && value !== null
          ? Object.entries(value).map(([field, inner]) => [`${name}.${field}`, inner])
          : [[name, value]],
      ),
    ),
  );
  const quoted = (value: unknown) => {
    const text = String(value ?? '');
    return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const header = Object.keys(flat[0]);
  return [header, ...flat.map((row) => header.map((name) => row[name]))]
    .map((line) => `${line.map(quoted).join(',')}\n`)
    .join('');
}
