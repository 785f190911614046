/** `insula bench kernels`: every operation of a model's training step, compared with the adapter's roofline. */
import { expectOperations, type KernelsRun, runKernels } from '../bench/kernels/run.ts';
import { modelShapes } from '../bench/kernels/shapes.ts';
import { provenanceLine } from '../bench/measure/provenance.ts';
import { aboveRoof, roofCell, roofText } from '../bench/measure/roofline.ts';
import { courseLine } from '../bench/measure/run.ts';
import { aligned, digits, quartiles } from '../bench/measure/table.ts';
import { benchOptions, runBench } from './bench-run.ts';
import { command } from './command.ts';
import { kernelNotes } from './notes.ts';
import { choice } from './options.ts';

const shapeNames = modelShapes.map(({ name }) => name);
export const shapesOption = choice(
  `sizes of a model: ${shapeNames.join(', ')}; pi by default, pi-eighth on a software adapter`,
  shapeNames,
);

export const benchKernels = command({
  options: { shapes: shapesOption, ...benchOptions() },
  names: 'names of operations',
  notes: kernelNotes,
  interruptible: true,
  async run({ shapes: shape, ...values }, context) {
    const { names } = context;
    expectOperations(names);
    return runBench(values, context, {
      ...{ command: 'bench kernels', lines: kernelLines },
      run: (device, budget) => runKernels(device, { names, shape }, budget),
    });
  },
});

function kernelLines(run: KernelsRun): string[] {
  const { roof, rows } = run;
  const columns = ['op', 'direction', 'limited by', 'ms', 'quartiles', 'GFLOP/s', 'GB/s', '% roof', 'dispatches'];
  const cells = (row: KernelsRun['rows'][number]) => [
    ...[row.op, row.direction, row.bound, digits(row.time.median), quartiles(row.time)],
    ...[digits(row.gigaflops), digits(row.gigabytesPerSecond), roofCell(row), String(row.dispatches)],
  ];
  return [
    provenanceLine(run),
    `${courseLine(run)}; wall times, medians`,
    `roof in the same rounds: ${roofText(roof)}`,
    ...['', rows[0].shape],
    ...aligned([columns, ...rows.map(cells)], 3),
    '',
    'GFLOP/s and GB/s count each operand once, by the cost models of the dispatches. % roof is the least time by the limiting resource (FLOPs at the arithmetic rate,',
    'bytes at the bandwidth of copies in memory, or dispatches) divided by the time taken.',
    ...aboveRoof(rows),
  ];
}
