/** A run of `insula bench kernels`: every op of a model's step, forward and backward, measured beside the probes of the roof. */
import { nearest } from '../../engine/files/nearest.ts';
import { type Device, InputError, quote } from '../../engine/index.ts';
import { taskOf } from '../measure/operation-task.ts';
import { provenanceLine } from '../measure/provenance.ts';
import { aboveRoof, limited, RoofProbes, roofCell, roofText } from '../measure/roofline.ts';
import { courseLine, measureRun, type RunBudget } from '../measure/run.ts';
import { aligned, digits, quartiles } from '../measure/table.ts';
import { Work } from '../measure/work.ts';
import { kernelCases, type Operands } from './cases.ts';
import { opOf } from './problem.ts';
import { modelShapeOf, modelShapes } from './shapes.ts';

export type KernelsRun = Awaited<ReturnType<typeof runKernels>>;

interface KernelsOptions {
  /** The name of a model shape. */
  readonly shape?: string;
  /** Names of ops; an empty list stands for all. */
  readonly names: readonly string[];
}

/** @throws InputError if no op has one of the names */
export function expectOperations(names: readonly string[]): void {
  const ops = [...new Set(kernelCases(modelShapes[0]).map(opOf))];
  const unknown = names.find((name) => !ops.includes(name));
  if (unknown !== undefined)
    throw new InputError(`bench kernels ${quote(unknown)}: no op of that name; ${nearest(unknown, ops)}`);
}

/** The names are of ops that `expectOperations` knows. */
export async function runKernels(device: Device, options: KernelsOptions, budget: RunBudget) {
  const model = modelShapeOf(device, options.shape);
  const chosen = kernelCases(model).filter((own) => options.names.length === 0 || options.names.includes(opOf(own)));
  using probes = new RoofProbes(device);
  const operands: Operands[] = [];
  try {
    const rows = chosen.flatMap(({ name: op, make }) => {
      const made = make(device);
      operands.push(made);
      const directions = made.gradient ? (['forward', 'backward'] as const) : (['forward'] as const);
      return directions.map((direction) => {
        const task = made.gradient
          ? taskOf(device, direction, () => made.forward()!, made.gradient)
          : { prepare: () => () => void made.forward() };
        const work = new Work(device, `${model.name} | ${op} | ${direction}`, task);
        return { shape: model.name, op, direction, work };
      });
    });
    const anchors = probes.all.map(({ entrant }) => entrant);
    const run = await measureRun(device, budget, { command: 'bench kernels', options, rows, anchors });
    const roof = probes.roofOf(run.anchors);
    const measured = run.rows.map(({ timed, work: { flops, bytes, dispatches }, ...key }) => {
      const counts = { flops, bytes, dispatches };
      return { ...key, ...timed, ...counts, ...limited(counts, timed.time.median, roof) };
    });
    // The gradient of an addition is the gradient itself: nothing runs.
    return { ...run, rows: measured.filter(({ dispatches }) => dispatches > 0), roof };
  } finally {
    for (const made of operands) made[Symbol.dispose]();
  }
}

export function kernelLines(run: KernelsRun): string[] {
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
