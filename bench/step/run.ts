/** Measures the training steps of several systems beside each other. */
import type { Device, DispatchTime } from '../../engine/index.ts';
import { MeasuredStep, measuredConfiguration, type StepSizes } from '../../model/inspect/measured-step.ts';
import type { TrainingStep } from '../../model/training/training-step.ts';
import { arithmeticProbe } from '../measure/roofline.ts';
import type { Entrant } from '../measure/rounds.ts';
import { measureRun, type RunBudget, type Timed } from '../measure/run.ts';
import { spread } from '../measure/statistics.ts';
import { groupBy } from '../measure/table.ts';

interface StepBenchOptions extends StepSizes {
  readonly systems: readonly string[];
  readonly batch: number;
}

/** A sample lasts at least this long, because waiting for its end costs up to a millisecond. */
const SAMPLE_MILLISECONDS = 100;

/** The options that a row depends on, beside its system, as a part of its name. */
export const sizesText = (sizes: object): string =>
  Object.entries(sizes)
    .flatMap(([name, value]) => (value === undefined ? [] : [`${name} ${value}`]))
    .sort()
    .join(', ');

export type StepRun = Awaited<ReturnType<typeof runStepBench>>;
export type StepRow = StepRun['rows'][number];

/** @throws InputError if a system or preset is unknown */
export async function runStepBench(device: Device, { systems, batch, ...sizes }: StepBenchOptions, budget: RunBudget) {
  const options = { ...sizes, preset: sizes.preset ?? 'tiny', batch };
  const steps = systems.map((system) => {
    const configuration = measuredConfiguration(system, sizes);
    const make = () => new MeasuredStep(device, system, configuration, batch, sizes);
    return { work: new TimedStep(device, `${system} | ${sizesText(options)}`, make) };
  });
  try {
    const anchors = [arithmeticProbe(device)];
    const run = await measureRun(device, budget, { command: 'bench step', options, rows: steps, anchors });
    const rows = [];
    for (const { work, timed } of run.rows) rows.push(await work.row(timed));
    return { ...run, rows };
  } finally {
    for (const { work } of steps) work.measured?.dispose();
  }
}

/** A training step as an entrant; it is made when it starts. */
class TimedStep implements Entrant {
  measured: MeasuredStep | null = null;
  private repeats = 1;
  private firstSeconds = 0;
  private memoryBytes = 0;
  private readonly host: number[] = [];
  private readonly encoding: number[] = [];

  constructor(
    private readonly device: Device,
    readonly name: string,
    private readonly make: () => MeasuredStep,
  ) {}

  async start(): Promise<void> {
    const { device } = this;
    const others = device.memory.bytes;
    this.measured = this.make();
    const once = async () => {
      const start = performance.now();
      await this.measured!.run();
      await device.finish();
      return performance.now() - start;
    };
    this.firstSeconds = (await once()) / 1000;
    this.memoryBytes = device.memory.bytes - others;
    this.repeats = Math.max(1, Math.ceil(SAMPLE_MILLISECONDS / (await once())));
  }

  async sample(): Promise<number> {
    const { device, measured, repeats } = this;
    await device.finish();
    const start = performance.now();
    for (let i = 0; i < repeats; i++) {
      await measured!.run();
      const { hostMilliseconds, encodingMilliseconds } = measured!.step.stats();
      this.host.push(hostMilliseconds);
      this.encoding.push(encodingMilliseconds);
    }
    await device.finish();
    return (performance.now() - start) / repeats;
  }

  async row(timed: Timed) {
    const { firstSeconds, memoryBytes, host } = this;
    const measured = this.measured!;
    const { system, parameters, batch, compiled } = measured;
    return {
      ...timed,
      ...{ system, parameters },
      ...(await stepFigures(this.device, measured, timed.time.median, this.encoding)),
      // Milliseconds in which the host writes numbers, encodes and submits.
      host: spread(host),
      // The first step with its compilation and capture, and the pipelines that no system before it used.
      ...{ firstSeconds, compiled },
      samplesPerSecond: (1000 * batch) / timed.time.median,
      // All that the model, its optimizer and its step hold on the device.
      memoryBytes,
    };
  }
}

/** A captured step that has run: its work and memory, its rates by the `median` of its milliseconds, and the times of its kernels. */
export async function stepFigures(
  device: Device,
  measured: { readonly step: TrainingStep; readonly tokens: number; run(): Promise<void> },
  median: number,
  encoding: readonly number[],
) {
  const { step, tokens } = measured;
  const [list, { dispatches, submits, arenaBytes, lowerBoundBytes }] = [step.list(), step.stats()];
  const times = device.features.has('timestamp-query') ? await device.profile(() => measured.run()) : [];
  const kernels = sharesOf(times);
  const attention = kernels.filter(({ kernel }) => kernel.startsWith('attention'));
  const gigaflop = list.reduce((sum, { flops = 0 }) => sum + flops, 0) / 1e9;
  return {
    // The tokens of the batch with its padding, and the least memory that any plan takes for the activations.
    ...{ tokens, dispatches, submits, lowerBoundBytes },
    pipelines: new Set(
      list.flatMap((own) => ('parameters' in own ? [JSON.stringify([own.operation, own.parameters])] : [])),
    ).size,
    tokensPerSecond: (1000 * tokens) / median,
    encodingMicrosecondsPerDispatch: (1000 * spread(encoding).median) / dispatches,
    // By the kernels' cost models.
    gigaflop,
    gigaflops: (1000 * gigaflop) / median,
    // The sum of the GPU times of the dispatches, each in a pass of its own, in milliseconds; and attention's share of it.
    profiled: times.length > 0 ? kernels.reduce((sum, { milliseconds }) => sum + milliseconds, 0) : null,
    attention: times.length > 0 ? attention.reduce((sum, { share }) => sum + share, 0) : null,
    kernels,
    arenaBytes: arenaBytes.reduce((sum, bytes) => sum + bytes, 0),
  };
}

/** The times by kernel and entry point, the longest first, with their shares of the sum. */
function sharesOf(times: readonly DispatchTime[]) {
  const total = times.reduce((sum, { nanoseconds }) => sum + nanoseconds, 0);
  return [...groupBy(times, ({ label }) => label)]
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
