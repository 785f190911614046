/** Work of a device as an entrant of rounds: a task that is encoded once or many times for one sample. */
import type { Device } from '../../engine/index.ts';
import type { Entrant } from './rounds.ts';
import { spread } from './statistics.ts';

export interface Task {
  /** Runs untimed inside a step and returns the function to time; each call of it encodes the work once. */
  prepare(): () => void;
}

export const timers = ['gpu', 'wall'] as const;
/** GPU timestamps, summed over the dispatches of a repeat; or the time from encoding the first repeat to the end of the last. */
export type Timer = (typeof timers)[number];

export interface DispatchSample {
  readonly label: string;
  readonly workgroups: number;
  readonly milliseconds: number;
}

/** A sample lasts at least this long, because waiting for its end costs up to a millisecond. */
const SAMPLE_MILLISECONDS = 20;
const MOST_REPEATS = 200;
/** Repeats of a sample with timestamps, which need not last long. */
const PROFILED_REPEATS = 8;

export class Work implements Entrant {
  /** Repeats in one sample. */
  repeats = 1;
  /** Peak memory of the step, preparation included. */
  stepBytes = 0;
  /** Dispatches of one repeat, workgroups, and FLOPs and bytes by the cost models. */
  dispatches = 0;
  workgroups = 0;
  flops = 0;
  bytes = 0;

  constructor(
    private readonly device: Device,
    readonly name: string,
    private readonly task: Task,
    private readonly timer: Timer = 'wall',
    private readonly sampleMilliseconds = SAMPLE_MILLISECONDS,
  ) {}

  async start(): Promise<void> {
    const { device, task } = this;
    const { memory } = device;
    const others = memory.stepBytes; // tensors that earlier steps returned and nobody has disposed of yet
    memory.peakStepBytes = others;
    await device.step(async () => {
      const encode = task.prepare();
      const { dispatches, workgroups, flops, bytes } = device;
      this.repeat(encode, 1);
      await device.finish(); // the pipelines are compiled here
      this.dispatches = device.dispatches - dispatches;
      this.workgroups = device.workgroups - workgroups;
      this.flops = device.flops - flops;
      this.bytes = device.bytes - bytes;
    });
    this.stepBytes = memory.peakStepBytes - others;
    // A guess of several is measured again, because a single short repeat is mostly waiting.
    for (let guess = 0; guess < 2 && (guess === 0 || this.repeats > 1); guess++) {
      const milliseconds = Math.max(await this.wallSample(), 1e-3);
      this.repeats = Math.min(MOST_REPEATS, Math.max(1, Math.ceil(this.sampleMilliseconds / milliseconds)));
    }
  }

  async sample(): Promise<number> {
    if (this.timer === 'wall') return this.wallSample();
    return (await this.profile()).reduce((sum, { milliseconds }) => sum + milliseconds, 0);
  }

  private wallSample(): Promise<number> {
    const { device, task, repeats } = this;
    return device.step(async () => {
      const work = task.prepare();
      await device.finish();
      const start = performance.now();
      this.repeat(work, repeats);
      await device.finish();
      return (performance.now() - start) / repeats;
    });
  }

  /** The dispatches of one repeat, with the medians of their GPU times over a few repeats. */
  profile(): Promise<DispatchSample[]> {
    const { device, task } = this;
    const repeats = Math.min(this.repeats, PROFILED_REPEATS);
    return device.step(async () => {
      const work = task.prepare();
      await device.finish();
      const times = await device.profile(() => this.repeat(work, repeats));
      const each = times.length / repeats;
      return times.slice(0, each).map(({ label, workgroups }, i) => {
        const own = times.filter((_, at) => at % each === i).map(({ nanoseconds }) => nanoseconds / 1e6);
        return { label, workgroups, milliseconds: spread(own).median };
      });
    });
  }

  /** Encodes repeats; each gives the step's memory that it took back before the next begins. */
  private repeat(work: () => void, repeats: number): void {
    const step = this.device.currentStep('measure');
    for (let i = 0; i < repeats; i++) step.track(work);
  }
}
