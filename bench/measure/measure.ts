/**
 * Timing several pieces of work beside each other: warm-up, then rounds in which every piece runs once. The speed of a shared
 * machine changes within seconds, so only pieces measured in the same rounds can be compared.
 */
import * as v from 'valibot';
import type { Device } from '../../engine/index.ts';

export interface Task {
  /** Inside a step and untimed; returns the work to time, which encodes itself once at each call. */
  prepare(): () => void;
}

export interface MeasureOptions {
  /** Most rounds, at least LEAST_ROUNDS, which are made in any case. */
  readonly rounds: number;
  /** Rounds end when this is used up. */
  readonly seconds: number;
  /** Also take the GPU time of every dispatch, in each round and apart from the wall time. */
  readonly timestamps: boolean;
  onProgress?(what: 'warm-up' | 'round', done: number, total: number): void;
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
  /** From the first repeat encoded to the last one finished. */
  readonly wall: Spread;
  /** Sum over the dispatches of a repeat; null without timestamps. */
  readonly gpu: Spread | null;
  readonly dispatchTimes: readonly DispatchSample[];
  /** Of one sample. */
  readonly repeats: number;
  /** The most step memory that was taken at a time, preparation included. */
  readonly stepBytes: number;
  /** Of one repeat, FLOPs and bytes by the cost models of its dispatches. */
  readonly dispatches: number;
  readonly workgroups: number;
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
/** A sample lasts at least this long: waiting for the end costs up to a millisecond. */
const SAMPLE_MILLISECONDS = 20;
const MOST_REPEATS = 200;
/** Repeats with timestamps, which need no long sample. */
const PROFILED_REPEATS = 8;

/** Measures the tasks in rounds; a result for each, in their order. */
export async function measure(device: Device, tasks: readonly Task[], options: MeasureOptions): Promise<Measured[]> {
  const { rounds, seconds, timestamps, onProgress } = options;
  const plans: Plan[] = [];
  for (const task of tasks) {
    plans.push(await warmUp(device, task));
    onProgress?.('warm-up', plans.length, tasks.length);
  }
  const walls: number[][] = tasks.map(() => []);
  const profiles: DispatchSample[][][] = tasks.map(() => []);
  const begin = performance.now();
  for (let round = 0; round < rounds; round++) {
    for (const [i, task] of tasks.entries()) {
      walls[i].push(await wallSample(device, task, plans[i].repeats));
      if (timestamps) profiles[i].push(await profileSample(device, task, Math.min(plans[i].repeats, PROFILED_REPEATS)));
    }
    const used = (performance.now() - begin) / 1000;
    onProgress?.('round', round + 1, rounds);
    if (round + 1 >= LEAST_ROUNDS && used * (1 + 1 / (round + 1)) > seconds) break;
  }
  return tasks.map((_, i) => ({
    wall: spread(walls[i]),
    ...summary(profiles[i]),
    ...plans[i],
  }));
}

async function warmUp(device: Device, task: Task): Promise<Plan> {
  const { memory } = device;
  memory.peakStepBytes = memory.stepBytes;
  const work = await device.step(async () => {
    const encode = task.prepare();
    const { dispatches, workgroups, flops, bytes } = device;
    repeat(device, encode, 1);
    await device.finish(); // compiles
    return {
      dispatches: device.dispatches - dispatches,
      workgroups: device.workgroups - workgroups,
      flops: device.flops - flops,
      bytes: device.bytes - bytes,
    };
  });
  const stepBytes = memory.peakStepBytes;
  let repeats = 1;
  // Once more with the first guess: a single short repeat is mostly waiting.
  for (let guess = 0; guess < 2; guess++) {
    const milliseconds = await wallSample(device, task, repeats);
    repeats = Math.min(MOST_REPEATS, Math.max(1, Math.ceil(SAMPLE_MILLISECONDS / Math.max(milliseconds, 1e-3))));
  }
  return { repeats, stepBytes, ...work };
}

/** Milliseconds of one of `repeats`. */
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

/** The dispatches of one repeat, means over `repeats`. */
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

/** What a repeat takes of the step's memory is given back before the next. */
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

/** Whether one's middle half lies above the other's. */
export function quartilesApart(a: Spread, b: Spread): boolean {
  return a.lowerQuartile > b.upperQuartile || a.upperQuartile < b.lowerQuartile;
}

/** Median and quartiles, between two values linearly. */
export function spread(values: readonly number[]): Spread {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share: number) => {
    const place = share * (sorted.length - 1);
    const low = Math.floor(place);
    return sorted[low] + (place - low) * (sorted[Math.ceil(place)] - sorted[low]);
  };
  return { median: at(0.5), lowerQuartile: at(0.25), upperQuartile: at(0.75), rounds: sorted.length };
}
