/** A run of `insula bench kernels`: every op of a model's step, forward and backward, measured beside the probes of the roof. */

import * as v from 'valibot';
import { nearest } from '../../engine/files/nearest.ts';
import { type Device, InputError, quote } from '../../engine/index.ts';
import { type Measured, measure, type RoundOptions, spreadSchema } from '../measure/measure.ts';
import { taskOf } from '../measure/operation-task.ts';
import { provenance } from '../measure/provenance.ts';
import { type Roof, RoofProbes, roofSchema } from '../measure/roofline.ts';
import { savedRunSchema } from '../measure/saved-run.ts';
import { kernelCases, type Operands } from './cases.ts';
import { opOf } from './problem.ts';
import { modelShapes, modelShapesOf } from './shapes.ts';

const KERNELS_FORMAT = 'insula bench kernels 1' as const;

type Bound = 'memory' | 'arithmetic' | 'launch';

const savedRow = v.object({
  /** Name of the model's sizes. */
  shape: v.string(),
  /** The op and its own sizes. */
  name: v.string(),
  direction: v.picklist(['forward', 'backward']),
  wall: spreadSchema,
});
export const kernelsRunSchema = savedRunSchema(KERNELS_FORMAT, savedRow, { roof: roofSchema });
/** The part of an earlier run that a later one is compared with. */
export type SavedKernelsRun = v.InferOutput<typeof kernelsRunSchema>;

export type KernelsResult = Awaited<ReturnType<typeof runKernels>>;
export type KernelRow = KernelsResult['rows'][number];

interface KernelsOptions extends RoundOptions {
  /** Names of model shapes; by default pi-eighth on a software adapter, else pi. */
  readonly shapes?: readonly string[];
  /** Names of ops; an empty list stands for all. */
  readonly names: readonly string[];
}

export function expectOperations(names: readonly string[]): void {
  const ops = [...new Set(kernelCases(modelShapes[0]).map(opOf))];
  const unknown = names.find((name) => !ops.includes(name));
  if (unknown !== undefined)
    throw new InputError(`bench kernels ${quote(unknown)}: no op of that name; ${nearest(unknown, ops)}`);
}

/** @throws InputError if no op or shape has a name that is given */
export async function runKernels(device: Device, options: KernelsOptions) {
  const begin = performance.now();
  expectOperations(options.names);
  const models = modelShapesOf(options.shapes ?? [device.software ? 'pi-eighth' : 'pi']);
  const cases = models.flatMap((model) => kernelCases(model).map((one) => ({ model, one })));
  const chosen = cases.filter(({ one }) => options.names.length === 0 || options.names.includes(opOf(one)));

  using probes = new RoofProbes(device);
  const operands: Operands[] = [];
  try {
    const rows = chosen.flatMap(({ model, one }) => {
      const made = one.make(device);
      operands.push(made);
      const directions = made.gradient ? (['forward', 'backward'] as const) : (['forward'] as const);
      return directions.map((direction) => ({
        ...{ shape: model.name, name: one.name, direction },
        task: made.gradient
          ? taskOf(device, direction, () => made.forward()!, made.gradient)
          : { prepare: () => () => void made.forward() },
      }));
    });
    const { rounds, seconds, onProgress } = options;
    const tasks = [...probes.all, ...rows].map(({ task }) => task);
    const measured = await measure(device, tasks, { rounds, seconds, timestamps: false, onProgress });
    const roof = probes.roofOf(measured);
    return {
      format: KERNELS_FORMAT,
      ...provenance(device),
      roof,
      rows: rows.flatMap(({ task: _, ...key }, i) => {
        const { wall, flops, bytes, dispatches } = measured[probes.all.length + i];
        const work = { flops, bytes, dispatches };
        // The gradient of an addition is the gradient itself: nothing runs.
        return dispatches === 0 ? [] : [{ ...key, wall, ...work, ...compared(work, wall.median, roof) }];
      }),
      seconds: (performance.now() - begin) / 1000,
    };
  } finally {
    for (const made of operands) made[Symbol.dispose]();
  }
}

/** The rates of work that took `milliseconds`, its least time by the roof as a share of it, and what limits it. */
export function compared(
  { flops, bytes, dispatches }: Pick<Measured, 'flops' | 'bytes' | 'dispatches'>,
  milliseconds: number,
  { gigaflops, gigabytesPerSecond, dispatchMicroseconds }: Roof,
) {
  const least: Record<Bound, number> = {
    memory: bytes / gigabytesPerSecond / 1e6,
    arithmetic: flops / gigaflops / 1e6,
    launch: (dispatches * dispatchMicroseconds) / 1e3,
  };
  const bound = (Object.keys(least) as Bound[]).reduce((most, own) => (least[own] > least[most] ? own : most));
  return {
    gigaflops: flops / milliseconds / 1e6,
    gigabytesPerSecond: bytes / milliseconds / 1e6,
    percentOfRoof: (100 * least[bound]) / milliseconds,
    bound,
  };
}
