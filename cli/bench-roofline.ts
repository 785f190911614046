/** `insula bench roofline`: the limits of an adapter. */
import { provenanceLine } from '../bench/measure/provenance.ts';
import { roofline } from '../bench/measure/roofline.ts';
import { aligned, digits } from '../bench/measure/table.ts';
import { openDevice } from '../engine/index.ts';
import { limitOptions } from './bench-run.ts';
import { command } from './command.ts';
import { deviceOptions } from './device.ts';
import { flag } from './options.ts';

export const benchRoofline = command({
  options: {
    fresh: flag('measures again, even if the file of an earlier run exists for this adapter'),
    ...limitOptions({ seconds: 30, rounds: 12 }),
    adapter: deviceOptions.adapter,
    floor: deviceOptions.floor,
  },
  async run({ fresh, rounds = 12, seconds, adapter, floor }, { progress, signal }) {
    using device = await openDevice({ adapter, floor });
    const found = await roofline(device, {
      ...{ fresh, floor, rounds, signal, seconds: seconds ?? 30 },
      onProgress: progress.ofBench(),
    });
    if (found.kept && seconds !== undefined)
      progress.note('--seconds changed nothing: these are the numbers of an earlier run; --fresh measures again');
    return { json: found.roofline, lines: rooflineLines(found) };
  },
});

export function rooflineLines({ roofline: found, path, kept }: Awaited<ReturnType<typeof roofline>>): string[] {
  const { roof, probes } = found;
  const rows = probes.map(({ name, median, low, high, unit }) => [
    ...[name, digits(median), `${digits(low)} - ${digits(high)}`, unit],
  ]);
  const balance = roof.gigaflops / roof.gigabytesPerSecond;
  return [
    provenanceLine(found),
    ...aligned([['probe', 'median', 'quartiles', 'unit'], ...rows], 1),
    `roof: ${digits(roof.gigaflops)} GFLOP/s, ${digits(roof.gigabytesPerSecond)} GB/s (best copy), ${digits(roof.dispatchMicroseconds)} microseconds a dispatch; a kernel needs ${digits(balance)} FLOPs per byte to be limited by arithmetic`,
    kept ? `read from ${path}; --fresh measures again` : `written to ${path}`,
  ];
}
