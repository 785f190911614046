/** `insula bench kernels`: options in, rows measured, files written, lines for people. */
import { readFile } from 'node:fs/promises';
import { fileError, writeFileSafely } from '../../engine/files.ts';
import { InputError } from '../../engine/index.ts';
import { aligned, csvOf, digits } from '../attention/text.ts';
import { LEAST_ROUNDS } from '../measure.ts';
import type { Progress } from '../progress.ts';
import { provenanceLine } from '../provenance.ts';
import { openTunedDevice } from '../tuning.ts';
import { KERNELS_FORMAT, type KernelRow, type KernelsResult, runKernels } from './run.ts';
import { modelShapes } from './shapes.ts';

const text = (help: string) => ({ type: 'string', help }) as const;

export const benchKernelsOptions = {
  shapes: text(`sizes of a model: ${modelShapes.map(({ name }) => name).join(', ')}; pi, on a processor pi-eighth`),
  rounds: { type: 'number', help: 'rounds that interleave all rows; 12 by default, at least 3', least: LEAST_ROUNDS },
  seconds: { type: 'number', help: 'no new round is begun that would end later; 60 by default' },
  csv: text('file for the rows as CSV'),
  out: text('file for the run as JSON'),
  compare: text('file of an earlier run: medians as ratios to it'),
} as const;

export interface BenchKernelsOptions {
  /** Words behind the command: ops. */
  names?: string[];
  shapes?: string;
  rounds?: number;
  seconds?: number;
  csv?: string;
  out?: string;
  compare?: string;
  adapter?: string;
  floor?: boolean;
  tuning?: string;
}

/** @throws InputError where an option is wrong */
export async function benchKernels(
  options: BenchKernelsOptions,
  progress: Progress,
): Promise<{ json: KernelsResult; lines: string[] }> {
  const before = options.compare === undefined ? null : await readResult(options.compare);
  const { device } = await openTunedDevice(options, (line) => progress.note(line));
  try {
    const result = await runKernels(device, {
      shapes: options.shapes === undefined ? undefined : [options.shapes],
      names: options.names ?? [],
      rounds: options.rounds ?? 12,
      seconds: options.seconds ?? 60,
      onProgress: (what, done, total) => progress.count(what, done, total),
    });
    if (options.csv !== undefined) await writeFileSafely(options.csv, [csvOf(result.rows)]);
    if (options.out !== undefined) await writeFileSafely(options.out, [`${JSON.stringify(result, null, 1)}\n`]);
    return { json: result, lines: kernelLines(result, before) };
  } finally {
    device.close();
  }
}

async function readResult(path: string): Promise<KernelsResult> {
  const contents = await readFile(path, 'utf8').catch((error) => {
    throw fileError(error, path, 'read it');
  });
  try {
    const result = JSON.parse(contents);
    if (result?.format === KERNELS_FORMAT) return result;
  } catch {
    // said below
  }
  throw new InputError(`${path}: this is no run that 'insula bench kernels --out' saved`);
}

const keyOf = ({ shape, name, direction }: KernelRow) => `${shape} | ${name} | ${direction}`;

export function kernelLines(result: KernelsResult, before: KernelsResult | null): string[] {
  const { roof, rows } = result;
  const earlier = new Map((before?.rows ?? []).map((row) => [keyOf(row), row]));
  const columns = ['op', 'direction', 'bound by', 'ms', 'quartiles', 'GFLOP/s', 'GB/s', '% roof', 'dispatches'];
  const cells = (row: KernelRow) => {
    const { median, lowerQuartile, upperQuartile } = row.wall;
    const was = earlier.get(keyOf(row));
    return [
      ...[row.name, row.direction, row.bound, digits(median), `${digits(lowerQuartile)} - ${digits(upperQuartile)}`],
      ...[digits(row.gigaflops), digits(row.gigabytesPerSecond), digits(row.percentOfRoof), String(row.dispatches)],
      ...(before ? [was ? digits(median / was.wall.median) : '-', was ? apart(row, was) : '-'] : []),
    ];
  };
  const shapes = [...new Set(rows.map(({ shape }) => shape))];
  return [
    provenanceLine(result),
    `roof, in the same ${rows[0].wall.rounds} rounds: ${digits(roof.gigaflops)} GFLOP/s, ${digits(roof.gigabytesPerSecond)} GB/s, ${digits(roof.dispatchMicroseconds)} microseconds a dispatch; wall times, medians`,
    ...(before ? [comparedWith(before)] : []),
    ...shapes.flatMap((shape) => {
      const own = rows.filter((row) => row.shape === shape).map(cells);
      return ['', shape, ...aligned([[...columns, ...(before ? ['now / before', 'quartiles apart'] : [])], ...own], 3)];
    }),
    '',
    'GFLOP/s and GB/s: by the cost models of the dispatches, each operand once. % roof: the least time by what binds (FLOPs at the arithmetic rate, bytes at the',
    'bandwidth of copies in memory, or dispatches) divided by the time taken; above 100 where operands stay in a cache.',
  ];
}

function comparedWith({ date, commit, modified, adapter, roof }: KernelsResult): string {
  const tree = modified ? ', modified' : '';
  return `compared with ${date}, commit ${commit.slice(0, 10)}${tree}, on ${adapter.description}, whose roof was ${digits(roof.gigaflops)} GFLOP/s, ${digits(roof.gigabytesPerSecond)} GB/s; now / before: below 1 is faster`;
}

function apart(is: KernelRow, was: KernelRow): string {
  const separate = is.wall.lowerQuartile > was.wall.upperQuartile || is.wall.upperQuartile < was.wall.lowerQuartile;
  return separate ? 'yes' : 'no';
}
