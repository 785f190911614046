/** `insula bench roofline`: the limits of an adapter. */
import { type Provenance, provenance, provenanceLine } from '../bench/measure/provenance.ts';
import { measureRoofline, type Roofline, roofText } from '../bench/measure/roofline.ts';
import { aligned, digits } from '../bench/measure/table.ts';
import { writeFileSafely } from '../engine/files/files.ts';
import { openDevice } from '../engine/index.ts';
import { limitOptions } from './bench-run.ts';
import { command } from './command.ts';
import { deviceOptions } from './device.ts';
import { outputFile } from './options.ts';

const LIMITS = { seconds: 30, rounds: 12 };

export const benchRoofline = command({
  options: {
    ...limitOptions(LIMITS),
    out: outputFile('file for the results as JSON'),
    adapter: deviceOptions.adapter,
    floor: deviceOptions.floor,
  },
  async run({ seconds = LIMITS.seconds, rounds = LIMITS.rounds, out, adapter, floor }, { progress, signal }) {
    using device = await openDevice({ adapter, floor });
    const measured = await measureRoofline(device, { seconds, rounds, signal, onProgress: progress.ofBench() });
    const found = { ...provenance(device), ...measured };
    if (out !== undefined) await writeFileSafely(out, [`${JSON.stringify(found, null, 1)}\n`]);
    return { json: found, lines: rooflineLines(found) };
  },
});

function rooflineLines(found: Provenance & Roofline): string[] {
  const { roof, probes, notStarted } = found;
  const rows = probes.map(({ name, median, low, high, unit }) => [
    ...[name, digits(median), `${digits(low)} - ${digits(high)}`, unit],
  ]);
  const balance = roof.gigaflops / roof.gigabytesPerSecond;
  return [
    provenanceLine(found),
    ...aligned([['probe', 'median', 'quartiles', 'unit'], ...rows], 1),
    `roof: ${roofText(roof)}; a kernel needs ${digits(balance)} FLOPs per byte to be limited by arithmetic`,
    ...notStarted.map((name) => `left out, because --seconds were spent: ${name}`),
  ];
}
