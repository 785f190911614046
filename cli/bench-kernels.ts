/** `insula bench kernels`: every operation of a model's training step, compared with the adapter's roofline. */
import {
  expectOperations,
  type KernelRow,
  type KernelsResult,
  kernelsRunSchema,
  runKernels,
  type SavedKernelsRun,
} from '../bench/kernels/run.ts';
import { modelShapes } from '../bench/kernels/shapes.ts';
import { LEAST_ROUNDS } from '../bench/measure/measure.ts';
import { comparedWith, provenanceLine } from '../bench/measure/provenance.ts';
import { readSavedRun } from '../bench/measure/saved-run.ts';
import { aligned, changeCells, csvOf, digits, quartiles } from '../bench/measure/table.ts';
import { openTunedDevice } from '../bench/measure/tuning.ts';
import { writeFileSafely } from '../engine/files/files.ts';
import { command } from './command.ts';
import { deviceOptions } from './device.ts';
import { kernelNotes } from './notes.ts';
import { choice, number, outputFile, text } from './options.ts';

const shapeNames = modelShapes.map(({ name }) => name);
export const shapesOption = choice(
  `sizes of a model: ${shapeNames.join(', ')}; pi by default, pi-eighth on a software adapter`,
  shapeNames,
);

export const benchKernels = command({
  options: {
    shapes: shapesOption,
    rounds: number('rounds that interleave all rows; 12 by default, at least 3', LEAST_ROUNDS),
    seconds: number('time limit: no round starts that would exceed it; 60 by default'),
    csv: outputFile('file for the rows as CSV'),
    out: outputFile('file for the run as JSON'),
    compare: text('file of an earlier run: medians as ratios to it'),
    ...deviceOptions,
  },
  names: 'names of operations',
  notes: kernelNotes,
  async run({ shapes, rounds = 12, seconds = 60, csv, out, compare, adapter, floor, tuning }, { progress, names }) {
    expectOperations(names);
    const before = compare === undefined ? null : await readSavedRun(compare, kernelsRunSchema, 'insula bench kernels');
    using device = (await openTunedDevice({ adapter, floor, tuning }, (line) => progress.note(line))).device;
    const result = await runKernels(device, {
      ...{ names, rounds, seconds },
      shapes: shapes === undefined ? undefined : [shapes],
      onProgress: (what, done, total) => progress.count(what, done, total),
    });
    if (csv !== undefined) await writeFileSafely(csv, [csvOf(result.rows)]);
    if (out !== undefined) await writeFileSafely(out, [`${JSON.stringify(result, null, 1)}\n`]);
    return { json: result, lines: kernelLines(result, before) };
  },
});

const keyOf = ({ shape, name, direction }: SavedKernelsRun['rows'][number]) => `${shape} | ${name} | ${direction}`;

export function kernelLines(result: KernelsResult, before: SavedKernelsRun | null): string[] {
  const { roof, rows } = result;
  const earlier = new Map((before?.rows ?? []).map((row) => [keyOf(row), row]));
  const columns = ['op', 'direction', 'limited by', 'ms', 'quartiles', 'GFLOP/s', 'GB/s', '% roof', 'dispatches'];
  const cells = (row: KernelRow) => {
    const was = earlier.get(keyOf(row));
    const change = was ? changeCells(was.wall, row.wall).slice(2) : ['-', '-'];
    return [
      ...[row.name, row.direction, row.bound, digits(row.wall.median), quartiles(row.wall)],
      ...[digits(row.gigaflops), digits(row.gigabytesPerSecond), digits(row.percentOfRoof), String(row.dispatches)],
      ...(before ? change : []),
    ];
  };
  const shapes = [...new Set(rows.map(({ shape }) => shape))];
  return [
    provenanceLine(result),
    `roof, in the same ${rows[0].wall.rounds} rounds: ${digits(roof.gigaflops)} GFLOP/s, ${digits(roof.gigabytesPerSecond)} GB/s, ${digits(roof.dispatchMicroseconds)} microseconds a dispatch; wall times, medians`,
    ...(before
      ? [
          `${comparedWith(before)} with a roof of ${digits(before.roof.gigaflops)} GFLOP/s, ${digits(before.roof.gigabytesPerSecond)} GB/s; now / before: below 1 is faster`,
        ]
      : []),
    ...shapes.flatMap((shape) => {
      const own = rows.filter((row) => row.shape === shape).map(cells);
      return ['', shape, ...aligned([[...columns, ...(before ? ['now / before', 'quartiles apart'] : [])], ...own], 3)];
    }),
    '',
    'GFLOP/s and GB/s count each operand once, by the cost models of the dispatches. % roof is the least time by the limiting resource (FLOPs at the arithmetic rate,',
    'bytes at the bandwidth of copies in memory, or dispatches) divided by the time taken; it is above 100 if operands stay in a cache.',
  ];
}
