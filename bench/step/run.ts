/** Measures the training steps of several systems beside each other. */
import * as v from 'valibot';
import type { Device, DispatchTime } from '../../engine/index.ts';
import { MeasuredStep, measuredConfiguration, type StepSizes } from '../../model/inspect/measured-step.ts';
import { inRounds, spread, spreadSchema } from '../measure/measure.ts';
import { provenance } from '../measure/provenance.ts';
import { savedRunSchema } from '../measure/saved-run.ts';

const FORMAT = 'insula bench step 1' as const;

const savedKernel = v.object({
  /** Kernel and entry point. */
  kernel: v.string(),
  milliseconds: v.number(),
});
const savedRow = v.object({
  system: v.string(),
  /** Milliseconds of a step, from one submit to the next. */
  wall: spreadSchema,
  /** Milliseconds in which the host writes numbers, encodes and submits. */
  host: spreadSchema,
  /** Memory of the activations. */
  arenaBytes: v.number(),
  kernels: v.pipe(v.array(savedKernel), v.readonly()),
});
export const stepRunSchema = savedRunSchema(FORMAT, savedRow, { sizes: v.record(v.string(), v.unknown()) });
/** The part of an earlier run that a later one is compared with. */
export type SavedStepRun = v.InferOutput<typeof stepRunSchema>;

export type StepResult = Awaited<ReturnType<typeof runStepBench>>;

interface StepBenchOptions extends StepSizes {
  readonly systems: readonly string[];
  readonly batch: number;
  readonly rounds: number;
  readonly seconds: number;
}

/** A sample lasts at least this long, because waiting for its end costs up to a millisecond. */
const SAMPLE_MILLISECONDS = 100;

/** @throws InputError if a system or preset is unknown */
export async function runStepBench(
  device: Device,
  { systems, rounds, seconds, batch, ...sizes }: StepBenchOptions,
  onProgress: (what: string, done: number, total: number) => void,
) {
  const configurations = systems.map((system) => measuredConfiguration(system, sizes));
  const prepared: Prepared[] = [];
  try {
    for (const [i, system] of systems.entries()) {
      prepared.push(await prepare(device, () => new MeasuredStep(device, system, configurations[i], batch, sizes)));
      onProgress('first steps', i + 1, systems.length);
    }
    await inRounds({ rounds, seconds, onProgress }, async () => {
      for (const own of prepared) await sample(device, own);
    });
    const rows: StepRow[] = [];
    for (const own of prepared) rows.push(await rowOf(device, own));
    return { format: FORMAT, sizes: { ...sizes, batch }, rows, ...provenance(device) };
  } finally {
    for (const { measured } of prepared) measured.dispose();
  }
}

type Prepared = Awaited<ReturnType<typeof prepare>>;

async function prepare(device: Device, make: () => MeasuredStep) {
  const others = device.memory.bytes;
  const measured = make();
  const start = performance.now();
  await measured.run();
  await device.finish();
  const firstSeconds = (performance.now() - start) / 1000;
  const memoryBytes = device.memory.bytes - others;
  await measured.run();
  await device.finish();
  const again = performance.now();
  await measured.run();
  await device.finish();
  const repeats = Math.max(1, Math.ceil(SAMPLE_MILLISECONDS / (performance.now() - again)));
  const pipelines = new Set(
    measured.step
      .list()
      .flatMap(({ operation, parameters }) => (parameters ? [`${operation} ${JSON.stringify(parameters)}`] : [])),
  ).size;
  const [wall, host, encoding]: number[][] = [[], [], []];
  return { measured, repeats, firstSeconds, pipelines, memoryBytes, wall, host, encoding };
}

async function sample(device: Device, { measured, repeats, wall, host, encoding }: Prepared): Promise<void> {
  await device.finish();
  const start = performance.now();
  for (let i = 0; i < repeats; i++) {
    await measured.run();
    const { hostMilliseconds, encodingMilliseconds } = measured.step.stats();
    host.push(hostMilliseconds);
    encoding.push(encodingMilliseconds);
  }
  await device.finish();
  wall.push((performance.now() - start) / repeats);
}

export type StepRow = Awaited<ReturnType<typeof rowOf>>;

async function rowOf(device: Device, prepared: Prepared) {
  const { measured, firstSeconds, pipelines } = prepared;
  const { system, tokens, parameters, batch, step, compiled } = measured;
  const [list, statistics] = [step.list(), step.stats()];
  const [wall, host] = [spread(prepared.wall), spread(prepared.host)];
  const times = device.features.has('timestamp-query') ? await device.profile(() => measured.run()) : [];
  const total = times.reduce((sum, { nanoseconds }) => sum + nanoseconds, 0) / 1e6;
  const kernels = sharesOf(times);
  const attention = kernels.filter(({ kernel }) => kernel.startsWith('attention'));
  const gigaflop = list.reduce((sum, { flops = 0 }) => sum + flops, 0) / 1e9;
  const { dispatches, submits, arenaBytes, lowerBoundBytes } = statistics;
  return {
    // The tokens of the batch with its padding, and the least memory that any plan takes for the activations.
    ...{ system, tokens, parameters, wall, host, dispatches, submits, pipelines, lowerBoundBytes },
    // The first step with its compilation and capture, and the pipelines that no system before it used.
    ...{ firstSeconds, compiled },
    samplesPerSecond: (1000 * batch) / wall.median,
    tokensPerSecond: (1000 * tokens) / wall.median,
    encodingMicrosecondsPerDispatch: (1000 * spread(prepared.encoding).median) / dispatches,
    // By the kernels' cost models.
    gigaflop,
    gigaflops: (1000 * gigaflop) / wall.median,
    // The GPU times of the dispatches as a share of the step's, and those of attention as a share of them all.
    busy: times.length > 0 ? total / wall.median : null,
    attention: times.length > 0 ? attention.reduce((sum, { share }) => sum + share, 0) : null,
    kernels,
    arenaBytes: arenaBytes.reduce((sum, bytes) => sum + bytes, 0),
    // All that the model, its optimizer and its step hold on the device.
    memoryBytes: prepared.memoryBytes,
  };
}

/** The times by kernel and entry point, the longest first, with their shares of the sum. */
function sharesOf(times: readonly DispatchTime[]) {
  const total = times.reduce((sum, { nanoseconds }) => sum + nanoseconds, 0);
  const byKernel = new Map<string, DispatchTime[]>();
  for (const time of times) byKernel.set(time.label, [...(byKernel.get(time.label) ?? []), time]);
  return [...byKernel]
    .map(([kernel, own]) => {
      const nanoseconds = own.reduce((sum, time) => sum + time.nanoseconds, 0);
      return {
        kernel,
        dispatches: own.length,
        share: nanoseconds / total,
        milliseconds: nanoseconds / 1e6,
        gigaflops: own.reduce((sum, { flops }) => sum + flops, 0) / nanoseconds,
        gigabytesPerSecond: own.reduce((sum, { bytes }) => sum + bytes, 0) / nanoseconds,
      };
    })
    .sort((a, b) => b.milliseconds - a.milliseconds);
}
