/** A run of `insula bench kernels`: every op of a model's step, forward and backward, measured beside the probes of the roof. */
import { nearest } from '../../engine/files/nearest.ts';
import { type Device, InputError, quote } from '../../engine/index.ts';
import { limited, RoofProbes } from '../measure/roofline.ts';
import { measureRun, type RunBudget } from '../measure/run.ts';
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
      return made.tasks(device).map(({ direction, task }) => {
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
