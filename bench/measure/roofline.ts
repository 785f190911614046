/** The limits of an adapter: arithmetic, bandwidth and launch cost, measured by probe kernels. */
import { type Device, type Tensor, tensor, zeroTensor } from '../../engine/index.ts';
import { bindGroups, dealings, dispatchAll, increment, type Movement, move, multiplyAdd } from './probes.ts';
import { type Budget, inRounds } from './rounds.ts';
import { timeSingle } from './single.ts';
import { type Spread, spread } from './statistics.ts';
import { digits } from './table.ts';
import { type Timer, Work } from './work.ts';

export interface Probe {
  readonly name: string;
  readonly unit: 'GFLOP/s' | 'GB/s' | 'microseconds';
  readonly median: number;
  /** Quartiles; for tasks that are timed alone, the median less and plus the median absolute deviation. */
  readonly low: number;
  readonly high: number;
}

/** The limits that a kernel is compared with. */
export interface Roof {
  /** f32, fused multiply-adds in registers. */
  readonly gigaflops: number;
  /** The best copy, bytes read and bytes written. */
  readonly gigabytesPerSecond: number;
  /** One more dispatch in a pass, with a bind group of its own. */
  readonly dispatchMicroseconds: number;
}

export interface Roofline {
  readonly roof: Roof;
  readonly probes: readonly Probe[];
  /** Probes that there was no time for; a limit that only they measure is 0. */
  readonly notStarted: readonly string[];
}

const DISPATCHES = 256;
const SUBMITS = 32;
const MEGABYTES = { software: 64, hardware: 128 } as const;

/** How fast the machine multiplies and adds; runs that compare with no roof measure it to say how fast the machine was. */
export function arithmeticProbe(device: Device, timer: Timer = 'wall'): Work {
  // These sizes take a few milliseconds and keep every core busy.
  const [threads, trips] = device.software ? [2 ** 12, 200] : [2 ** 19, 128];
  const run = () => void multiplyAdd(device, threads, trips);
  return new Work(device, 'fused multiply-add in registers', { prepare: () => run }, timer);
}

/** A probe to measure beside others, and its value in its unit by the time that it took. */
interface Probing {
  readonly entrant: Work;
  readonly unit: Probe['unit'];
  value(milliseconds: number): number;
}

/** The probes that make the roof, to measure beside others: arithmetic, copies in every form, dispatches. */
export class RoofProbes implements Disposable {
  readonly all: readonly Probing[];
  readonly source: Tensor;
  readonly target: Tensor;
  readonly count: Tensor;
  readonly groups: readonly GPUBindGroup[];

  /** Dispatches are timed by wall whatever the timer: each of theirs is too short for timestamps. */
  constructor(
    private readonly device: Device,
    private readonly timer: Timer = 'wall',
  ) {
    const floats = (MEGABYTES[device.software ? 'software' : 'hardware'] * 2 ** 20) / 4;
    this.source = tensor(device, new Float32Array(floats), [floats]);
    this.target = tensor(device, new Float32Array(floats), [floats]);
    this.count = tensor(device, [0], [1]);
    this.groups = bindGroups(device, this.count, DISPATCHES);
    const arithmetic = arithmeticProbe(device, timer);
    this.all = [
      { entrant: arithmetic, unit: 'GFLOP/s', value: (milliseconds) => arithmetic.flops / milliseconds / 1e6 },
      ...this.moves('copy'),
      this.launches('dispatch with a bind group of its own', DISPATCHES, () =>
        dispatchAll(device, DISPATCHES, this.groups),
      ),
    ];
  }

  moves(movement: Movement): Probing[] {
    const { device, source, target, timer } = this;
    const operands = { source, target, bytes: source.byteLength };
    return dealings.map((dealing) => {
      const run = () => move(device, movement, dealing, operands);
      const entrant = new Work(device, `${movement}, ${dealing.name}`, { prepare: () => run }, timer);
      return { entrant, unit: 'GB/s', value: (milliseconds) => entrant.bytes / milliseconds / 1e6 };
    });
  }

  /** The microseconds of one of `count` dispatches or submits. */
  launches(name: string, count: number, run: () => void): Probing {
    const entrant = new Work(this.device, name, { prepare: () => run });
    return { entrant, unit: 'microseconds', value: (milliseconds) => (1000 * milliseconds) / count };
  }

  /** The roof by the times of the probes, whatever other anchors are among them. */
  roofOf(timed: readonly { readonly name: string; readonly time: Spread }[]): Roof {
    const best = (wanted: Probe['unit']) =>
      this.all.reduce((most, { entrant, unit, value }) => {
        const own = timed.find(({ name }) => name === entrant.name);
        return unit === wanted && own ? Math.max(most, value(own.time.median)) : most;
      }, 0);
    return {
      gigaflops: best('GFLOP/s'),
      gigabytesPerSecond: best('GB/s'),
      dispatchMicroseconds: best('microseconds'),
    };
  }

  [Symbol.dispose](): void {
    for (const made of [this.source, this.target, this.count]) made.dispose();
  }
}

export type Bound = 'memory' | 'arithmetic' | 'launch';

/** FLOPs, bytes and dispatches of a piece of work. */
export type WorkCounts = Readonly<Record<'flops' | 'bytes' | 'dispatches', number>>;

/** The rates of work that took `milliseconds`, its least time by the roof as a share of it, and what limits it. */
export function limited({ flops, bytes, dispatches }: WorkCounts, milliseconds: number, roof: Roof) {
  const least: Record<Bound, number> = {
    memory: bytes / roof.gigabytesPerSecond / 1e6,
    arithmetic: flops / roof.gigaflops / 1e6,
    launch: (dispatches * roof.dispatchMicroseconds) / 1e3,
  };
  const bound = (Object.keys(least) as Bound[]).reduce((most, own) => (least[own] > least[most] ? own : most));
  return {
    gigaflops: flops / milliseconds / 1e6,
    gigabytesPerSecond: bytes / milliseconds / 1e6,
    leastMilliseconds: least[bound],
    percentOfRoof: (100 * least[bound]) / milliseconds,
    bound,
  };
}

export const roofText = ({ gigaflops, gigabytesPerSecond, dispatchMicroseconds }: Roof): string =>
  `${digits(gigaflops)} GFLOP/s, ${digits(gigabytesPerSecond)} GB/s, ${digits(dispatchMicroseconds)} microseconds a dispatch`;

/** The share of the roof as a cell; one above 100 % is marked, and `aboveRoof` explains it. */
export const roofCell = ({ percentOfRoof }: { readonly percentOfRoof: number }) =>
  `${digits(percentOfRoof)}${percentOfRoof > 100 ? '*' : ''}`;

/** The meaning of marked shares of rows; nothing where there is none. */
export function aboveRoof(rows: readonly { readonly percentOfRoof: number; readonly bound: Bound }[]): string[] {
  const reasons: Readonly<Record<Bound, string>> = {
    memory: 'operands stay in a cache, which is faster than the copies in memory that make the roof',
    arithmetic: 'products in f16 are faster than the f32 multiply-adds that make the roof, or the clock rose meanwhile',
    launch: 'dispatches of several kernels overlap, those of the probe wait for each other',
  };
  const bounds = new Set(rows.filter(({ percentOfRoof }) => percentOfRoof > 100).map(({ bound }) => bound));
  return [...bounds].map((bound) => `* above the roof, limited by ${bound}: ${reasons[bound]}`);
}

/** Measures all probes in the same rounds. */
export async function measureRoofline(device: Device, budget: Budget): Promise<Roofline> {
  using probes = new RoofProbes(device);
  const group = probes.groups.slice(0, 1);
  const all = [
    ...[...probes.all, ...probes.moves('read'), ...probes.moves('write')],
    probes.launches('dispatch, one more in a pass', DISPATCHES, () => dispatchAll(device, DISPATCHES, group)),
    probes.launches('submit of one dispatch', SUBMITS, () => {
      for (let i = 0; i < SUBMITS; i++) dispatchAll(device, 1, group);
    }),
  ];
  const { times } = await inRounds(
    all.map(({ entrant }) => entrant),
    budget,
  );
  const measured = all.flatMap((own, i) => (times[i].length > 0 ? [{ ...own, time: spread(times[i]) }] : []));
  const probed = measured.map(({ entrant: { name }, unit, value, time }): Probe => {
    const [low, high] = [value(time.lowerQuartile), value(time.upperQuartile)].sort((a, b) => a - b);
    return { name, unit, median: value(time.median), low, high };
  });
  return {
    roof: probes.roofOf(measured.map(({ entrant: { name }, time }) => ({ name, time }))),
    probes: [...probed, ...(await hostProbes(device, probes))],
    notStarted: all.filter((_, i) => times[i].length === 0).map(({ entrant }) => entrant.name),
  };
}

/** Round trips, and the host's time to encode: single tasks. */
async function hostProbes(device: Device, { count, groups }: RoofProbes): Promise<Probe[]> {
  const statistics = await timeSingle(
    {
      'dispatch, copy and read back 4 bytes': () => {
        dispatchAll(device, 1, groups.slice(0, 1));
        return device.read(count, 4);
      },
      'host time of a replayed dispatch': async () => {
        const start = performance.now();
        dispatchAll(device, DISPATCHES, groups);
        const overriddenDuration = (performance.now() - start) / DISPATCHES;
        await device.finish();
        return { overriddenDuration };
      },
      'host time of an eager dispatch': async () => {
        const overriddenDuration = device.step(() => {
          const counted = zeroTensor(device, [1], 'f32', 'launch probe');
          const start = performance.now();
          for (let dispatch = 0; dispatch < DISPATCHES; dispatch++) increment(device, counted);
          return (performance.now() - start) / DISPATCHES;
        });
        await device.finish();
        return { overriddenDuration };
      },
    },
    { milliseconds: 0 },
  );
  return Object.entries(statistics).map(([name, { p50, mad }]) => {
    return { name, unit: 'microseconds', median: 1000 * p50, low: 1000 * (p50 - mad), high: 1000 * (p50 + mad) };
  });
}
