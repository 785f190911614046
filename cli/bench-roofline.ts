/** `insula bench roofline`: the limits of an adapter. */
import { provenanceLine } from '../bench/measure/provenance.ts';
import { roofline } from '../bench/measure/roofline.ts';
import { aligned, digits } from '../bench/measure/table.ts';
import { openDevice } from '../engine/index.ts';
import { command } from './command.ts';
import { deviceOptions } from './device.ts';
import { flag, number } from './options.ts';

export const benchRoofline = command({
  options: {
    fresh: flag('measures again, even if the file of an earlier run exists for this adapter'),
    rounds: number('rounds that interleave all probes; 12 by default, at least 3', 3),
    adapter: deviceOptions.adapter,
    floor: deviceOptions.floor,
  },
  async run({ fresh, rounds, adapter, floor }, { progress }) {
    using device = await openDevice({ adapter, floor });
    const found = await roofline(device, {
      ...{ fresh, floor },
      rounds: rounds ?? 12,
      seconds: 30,
      onProgress: (what, done, total) => progress.count(what, done, total),
    });
    if (found.kept && rounds !== undefined)
      progress.note('--rounds changed nothing: these are the numbers of an earlier run; --fresh measures again');
    return { json: found.roofline, lines: rooflineLines(found) };
  },
});

export function rooflineLines({ roofline: found, path, kept }: Awaited<ReturnType<typeof roofline>>): string[] {
  const { roof, probes } = found;
  const rows = probes.map(({ name, median, lowerQuartile, upperQuartile, unit }) => [
    ...[name, digits(median), `${digits(lowerQuartile)} - ${digits(upperQuartile)}`, unit],
  ]);
  const balance = roof.gigaflops / roof.gigabytesPerSecond;
  return [
    provenanceLine(found),
    ...aligned([['probe', 'median', 'quartiles', 'unit'], ...rows], 1),
    `roof: ${digits(roof.gigaflops)} GFLOP/s, ${digits(roof.gigabytesPerSecond)} GB/s (best copy), ${digits(roof.dispatchMicroseconds)} microseconds a dispatch; a kernel needs ${digits(balance)} FLOPs per byte to be limited by arithmetic`,
    kept ? `read from ${path}; --fresh measures again` : `written to ${path}`,
  ];
}
