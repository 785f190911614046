/** The limits of an adapter: arithmetic, bandwidth and launch cost, measured once by probe kernels and kept for later commands. */
import * as v from 'valibot';
import { readJsonFile } from '../../engine/files/json-schema.ts';
import { type Device, InputError, type Tensor, tensor, zeroTensor } from '../../engine/index.ts';
import { dealings, type Movement, move } from './bandwidth.ts';
import { multiplyAdd, multiplyAddFlops } from './fused-multiply-add.ts';
import { bindGroups, dispatchAll, increment } from './launch.ts';
import { type Measured, measure, type RoundOptions, type Spread, spread, type Task } from './measure.ts';
import { provenance, provenanceFields } from './provenance.ts';
import { adapterPath, writeAdapterFile } from './tuning.ts';

const ROOFLINE_FORMAT = 'insula roofline 1';

const probeSchema = v.object({
  name: v.string(),
  unit: v.picklist(['GFLOP/s', 'GB/s', 'microseconds']),
  median: v.number(),
  lowerQuartile: v.number(),
  upperQuartile: v.number(),
});
type Probe = v.InferOutput<typeof probeSchema>;

/** The limits that a kernel is compared with. */
export const roofSchema = v.object({
  /** f32, fused multiply-adds in registers. */
  gigaflops: v.number(),
  /** The best copy, bytes read and bytes written. */
  gigabytesPerSecond: v.number(),
  /** One more dispatch in a pass, with a bind group of its own. */
  dispatchMicroseconds: v.number(),
});
export type Roof = v.InferOutput<typeof roofSchema>;

const rooflineSchema = v.object({
  format: v.literal(ROOFLINE_FORMAT),
  ...provenanceFields,
  roof: roofSchema,
  probes: v.array(probeSchema),
  seconds: v.number(),
});
type Roofline = v.InferOutput<typeof rooflineSchema>;

const DISPATCHES = 256;
const SUBMITS = 32;
const ROUND_TRIPS = 16;
const MEGABYTES = { software: 64, hardware: 128 } as const;

const names = {
  arithmetic: 'fused multiply-add in registers',
  dispatch: 'dispatch, one more in a pass',
  bindGroup: 'dispatch with a bind group of its own',
  submit: 'submit of one dispatch',
  roundTrip: 'dispatch, copy and read back 4 bytes',
  hostReplayed: 'host time of a replayed dispatch',
  hostEager: 'host time of an eager dispatch',
} as const;

/** The arithmetic probe as a task, for a run of its own or beside other rows. */
export function arithmeticProbe(device: Device): { name: string; task: Task; flops: number } {
  // These sizes take a few milliseconds and keep every core busy.
  const [threads, trips] = device.software ? [2 ** 12, 200] : [2 ** 19, 128];
  return {
    name: names.arithmetic,
    task: { prepare: () => () => void multiplyAdd(device, threads, trips) },
    flops: multiplyAddFlops(threads, trips),
  };
}

/** A probe as a task to measure beside others, and its result. */
interface Probing {
  readonly task: Task;
  result(measured: Measured): Probe;
}

/** The probes that make the roof, to measure beside others: arithmetic, copies in every form, dispatches. */
export class RoofProbes implements Disposable {
  readonly all: readonly Probing[];
  readonly source: Tensor;
  readonly target: Tensor;
  readonly count: Tensor;
  readonly groups: readonly GPUBindGroup[];

  constructor(private readonly device: Device) {
    const floats = (MEGABYTES[device.software ? 'software' : 'hardware'] * 2 ** 20) / 4;
    this.source = tensor(device, new Float32Array(floats), [floats]);
    this.target = tensor(device, new Float32Array(floats), [floats]);
    this.count = tensor(device, [0], [1]);
    this.groups = bindGroups(device, this.count, DISPATCHES);
    const { name, task, flops } = arithmeticProbe(device);
    this.all = [
      { task, result: (measured) => rate(name, 'GFLOP/s', flops, measured) },
      ...this.moves('copy'),
      launches(names.bindGroup, DISPATCHES, () => dispatchAll(device, DISPATCHES, this.groups)),
    ];
  }

  moves(movement: Movement): Probing[] {
    const { device, source, target } = this;
    const operands = { source, target, bytes: source.byteLength };
    return dealings.map((dealing) => ({
      task: repeated(() => move(device, movement, dealing, operands)),
      result: (measured) => rate(`${movement}, ${dealing.name}`, 'GB/s', measured.bytes, measured),
    }));
  }

  roofOf(measured: readonly Measured[]): Roof {
    const probes = this.all.map(({ result }, i) => result(measured[i]));
    const copies = probes.slice(1, 1 + dealings.length);
    return {
      gigaflops: probes[0].median,
      gigabytesPerSecond: Math.max(...copies.map(({ median }) => median)),
      dispatchMicroseconds: probes[1 + dealings.length].median,
    };
  }

  [Symbol.dispose](): void {
    for (const made of [this.source, this.target, this.count]) made.dispose();
  }
}

/** Measures all probes in the same rounds. */
async function measureRoofline(device: Device, options: RoundOptions): Promise<Roofline> {
  const begin = performance.now();
  using probes = new RoofProbes(device);
  const group = probes.groups.slice(0, 1);
  const all = [
    ...[...probes.all, ...probes.moves('read'), ...probes.moves('write')],
    launches(names.dispatch, DISPATCHES, () => dispatchAll(device, DISPATCHES, group)),
    launches(names.submit, SUBMITS, () => {
      for (let i = 0; i < SUBMITS; i++) dispatchAll(device, 1, group);
    }),
  ];
  const tasks = all.map(({ task }) => task);
  const measured = await measure(device, tasks, { ...options, timestamps: false });
  return {
    format: ROOFLINE_FORMAT,
    ...provenance(device),
    roof: probes.roofOf(measured),
    probes: [
      ...all.map(({ result }, i) => result(measured[i])),
      ...(await hostProbes(device, probes.count, probes.groups)),
    ],
    seconds: (performance.now() - begin) / 1000,
  };
}

/** The probes that are measured one at a time: round trips, and the host's time to encode. */
async function hostProbes(device: Device, count: Tensor, groups: readonly GPUBindGroup[]): Promise<Probe[]> {
  const [trips, replayed, eager]: number[][] = [[], [], []];
  for (let i = 0; i < ROUND_TRIPS; i++) {
    await device.finish();
    const start = performance.now();
    dispatchAll(device, 1, groups.slice(0, 1));
    await device.read(count, 4);
    trips.push(performance.now() - start);

    const encode = performance.now();
    dispatchAll(device, DISPATCHES, groups);
    replayed.push((performance.now() - encode) / DISPATCHES);
    await device.finish();

    eager.push(
      device.step(() => {
        const own = zeroTensor(device, [1], 'f32', 'launch probe');
        const first = performance.now();
        for (let dispatch = 0; dispatch < DISPATCHES; dispatch++) increment(device, own);
        return (performance.now() - first) / DISPATCHES;
      }),
    );
  }
  return [
    microseconds(names.roundTrip, spread(trips), 1000),
    microseconds(names.hostReplayed, spread(replayed), 1000),
    microseconds(names.hostEager, spread(eager), 1000),
  ];
}

function repeated(work: () => void): Task {
  return { prepare: () => work };
}

/** The microseconds of one of `count` dispatches or submits. */
const launches = (name: string, count: number, work: () => void): Probing => ({
  task: repeated(work),
  result: ({ wall }) => microseconds(name, wall, 1000 / count),
});

function rate(name: string, unit: Probe['unit'], amount: number, { wall }: Measured): Probe {
  const of = (milliseconds: number) => amount / milliseconds / 1e6;
  return {
    ...{ name, unit, median: of(wall.median) },
    ...{ lowerQuartile: of(wall.upperQuartile), upperQuartile: of(wall.lowerQuartile) },
  };
}

function microseconds(name: string, { median, lowerQuartile, upperQuartile }: Spread, factor: number): Probe {
  return {
    ...{ name, unit: 'microseconds', median: factor * median },
    ...{ lowerQuartile: factor * lowerQuartile, upperQuartile: factor * upperQuartile },
  };
}

/**
 * The roofline kept for the device, or measured now and then kept. With `fresh` it is measured in any case. A device that was
 * opened on the `floor`, with the default limits and no features, has a file of its own.
 */
export async function roofline(
  device: Device,
  { fresh = false, floor = false, ...options }: RoundOptions & { fresh?: boolean; floor?: boolean },
): Promise<{ roofline: Roofline; path: string; kept: boolean }> {
  const path = adapterPath(device.description, floor ? '.floor.roofline.json' : '.roofline.json');
  const read = () =>
    readJsonFile(path, rooflineSchema, 'a roofline').catch((error) => {
      if (error instanceof InputError) return null; // it is measured and written again
      throw error;
    });
  const known = fresh ? null : await read();
  if (known) return { roofline: known, path, kept: true };
  const measured = await measureRoofline(device, options);
  await writeAdapterFile(path, measured);
  return { roofline: measured, path, kept: false };
}
