/**
 * Times several pieces of work beside each other: a warm-up, then rounds in which every piece runs once. The speed of a shared
 * machine changes within seconds, so only pieces measured in the same rounds can be compared.
 */
import * as v from 'valibot';
import type { Device } from '../../engine/index.ts';

export interface Task {
  /** Runs untimed inside a step and returns the function to time; each call of it encodes the work once. */
  prepare(): () => void;
}

export interface RoundOptions {
  /** The most rounds, at least LEAST_ROUNDS. */
  readonly rounds: number;
  /** No round begins that would end later, after the first LEAST_ROUNDS. */
  readonly seconds: number;
  onProgress?(what: 'warm-up' | 'round', done: number, total: number): void;
}

export interface MeasureOptions extends RoundOptions {
  /** Whether to measure the GPU time of every dispatch too, in each round and apart from the wall time. */
  readonly timestamps: boolean;
}

/** Milliseconds of one repeat, over the rounds. */
export const spreadSchema = v.object({
  median: v.number(),
  lowerQuartile: v.number(),
  upperQuartile: v.number(),
  rounds: v.number(),
});
export type Spread = v.InferOutput<typeof spreadSchema>;

export interface Measured {
  /** Time from encoding the first repeat to the end of the last one, for each repeat. */
  readonly wall: Spread;
  /** Sum over the dispatches of a repeat; null without timestamps. */
  readonly gpu: Spread | null;
  readonly dispatchTimes: readonly DispatchSample[];
  /** Repeats in one sample. */
  readonly repeats: number;
  /** Peak memory of the step, preparation included. */
  readonly stepBytes: number;
  /** Dispatches of one repeat, and the other counts likewise. */
  readonly dispatches: number;
  readonly workgroups: number;
  /** FLOPs and bytes by the cost models of the dispatches. */
  readonly flops: number;
  readonly bytes: number;
}

export interface DispatchSample {
  readonly label: string;
  readonly workgroups: number;
  readonly milliseconds: number;
}

type Plan = Omit<Measured, 'wall' | 'gpu' | 'dispatchTimes'>;

export const LEAST_ROUNDS = 3;
/** A sample lasts at least this long, because waiting for its end costs up to a millisecond. */
const SAMPLE_MILLISECONDS = 20;
const MOST_REPEATS = 200;
/** Repeats of a sample with timestamps, which need not last long. */
const PROFILED_REPEATS = 8;

/** Measures the tasks in rounds. The results are in the order of the tasks. */
export async function measure(device: Device, tasks: readonly Task[], options: MeasureOptions): Promise<Measured[]> {
  const { timestamps, onProgress } = options;
  const plans: Plan[] = [];
  for (const task of tasks) {
    plans.push(await warmUp(device, task));
    onProgress?.('warm-up', plans.length, tasks.length);
  }
  const walls: number[][] = tasks.map(() => []);
  const profiles: DispatchSample[][][] = tasks.map(() => []);
  await inRounds(options, async () => {
    for (const [i, task] of tasks.entries()) {
      walls[i].push(await wallSample(device, task, plans[i].repeats));
      if (timestamps) profiles[i].push(await profileSample(device, task, Math.min(plans[i].repeats, PROFILED_REPEATS)));
    }
  });
  return tasks.map((_, i) => ({ wall: spread(walls[i]), ...summary(profiles[i]), ...plans[i] }));
}

/** Runs rounds until `rounds` are done, or the next would end after `seconds`. */
export async function inRounds({ rounds, seconds, onProgress }: RoundOptions, run: () => Promise<void>): Promise<void> {
  const begin = performance.now();
  for (let done = 1; done <= rounds; done++) {
    await run();
    onProgress?.('round', done, rounds);
    const used = (performance.now() - begin) / 1000;
    if (done >= LEAST_ROUNDS && used * (1 + 1 / done) > seconds) break;
  }
}

async function warmUp(device: Device, task: Task): Promise<Plan> {
  const { memory } = device;
  const others = memory.stepBytes; // tensors that earlier steps returned and nobody has disposed of yet
  memory.peakStepBytes = others;
  const work = await device.step(async () => {
    const encode = task.prepare();
    const { dispatches, workgroups, flops, bytes } = device;
    repeat(device, encode, 1);
    await device.finish(); // the pipelines are compiled here
    return {
      dispatches: device.dispatches - dispatches,
      workgroups: device.workgroups - workgroups,
      flops: device.flops - flops,
      bytes: device.bytes - bytes,
    };
  });
  const stepBytes = memory.peakStepBytes - others;
  let repeats = 1;
  // The first guess is measured again, because a single short repeat is mostly waiting.
  for (let guess = 0; guess < 2; guess++) {
    const milliseconds = await wallSample(device, task, repeats);
    repeats = Math.min(MOST_REPEATS, Math.max(1, Math.ceil(SAMPLE_MILLISECONDS / Math.max(milliseconds, 1e-3))));
  }
  return { repeats, stepBytes, ...work };
}

/** Mean milliseconds of one of `repeats` repeats. */
function wallSample(device: Device, task: Task, repeats: number): Promise<number> {
  return device.step(async () => {
    const work = task.prepare();
    await device.finish();
    const start = performance.now();
    repeat(device, work, repeats);
    await device.finish();
    return (performance.now() - start) / repeats;
  });
}

/** The dispatches of one repeat, with their mean times over `repeats` repeats. */
function profileSample(device: Device, task: Task, repeats: number): Promise<DispatchSample[]> {
  return device.step(async () => {
    const work = task.prepare();
    await device.finish();
    const times = await device.profile(() => repeat(device, work, repeats));
    const each = times.length / repeats;
    return times.slice(0, each).map(({ label, workgroups }, i) => {
      const own = times.filter((_, at) => at % each === i);
      return { label, workgroups, milliseconds: own.reduce((sum, time) => sum + time.nanoseconds, 0) / repeats / 1e6 };
    });
  });
}

/** Encodes repeats; each gives the step's memory that it took back before the next begins. */
function repeat(device: Device, work: () => void, repeats: number): void {
  const step = device.currentStep('measure');
  for (let i = 0; i < repeats; i++) step.track(work);
}

function summary(profiles: readonly DispatchSample[][]): Pick<Measured, 'gpu' | 'dispatchTimes'> {
  if (profiles.length === 0) return { gpu: null, dispatchTimes: [] };
  const totals = profiles.map((dispatches) => dispatches.reduce((sum, { milliseconds }) => sum + milliseconds, 0));
  const dispatchTimes = profiles[0].map(({ label, workgroups }, i) => ({
    label,
    workgroups,
    milliseconds: spread(profiles.map((profile) => profile[i].milliseconds)).median,
  }));
  return { gpu: spread(totals), dispatchTimes };
}

/** Median and quartiles, interpolated linearly between two values. */
export function spread(values: readonly number[]): Spread {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share: number) => {
    const place = share * (sorted.length - 1);
    const low = Math.floor(place);
    return sorted[low] + (place - low) * (sorted[Math.ceil(place)] - sorted[low]);
  };
  return { median: at(0.5), lowerQuartile: at(0.25), upperQuartile: at(0.75), rounds: sorted.length };
}
