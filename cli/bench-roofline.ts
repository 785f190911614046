/** `insula bench roofline`. */

import { provenanceLine } from '../bench/measure/provenance.ts';
import { type Roofline, roofline } from '../bench/measure/roofline.ts';
import { aligned, digits } from '../bench/measure/table.ts';
import { openDevice } from '../engine/index.ts';
import type { Progress } from './progress.ts';

export const benchRooflineOptions = {
  fresh: { type: 'boolean', help: 'measures again, where the numbers of an earlier run are kept for this adapter' },
  rounds: { type: 'number', help: 'rounds that interleave all probes; 12 by default, at least 3', least: 3 },
} as const;

export async function benchRoofline(
  options: { fresh?: boolean; rounds?: number; adapter?: string; floor?: boolean },
  progress: Progress,
): Promise<{ json: Roofline; lines: string[] }> {
  const device = await openDevice(options);
  try {
    const found = await roofline(device, {
      fresh: options.fresh,
      rounds: options.rounds ?? 12,
      seconds: 30,
      onProgress: (what, done, total) => progress.count(what, done, total),
    });
    return { json: found.roofline, lines: rooflineLines(found) };
  } finally {
    device.close();
  }
}

export function rooflineLines({
  roofline: { roof, probes, ...source },
  path,
  kept,
}: Awaited<ReturnType<typeof roofline>>): string[] {
  const rows = probes.map(({ name, median, lowerQuartile, upperQuartile, unit }) => [
    ...[name, digits(median), `${digits(lowerQuartile)} - ${digits(upperQuartile)}`, unit],
  ]);
  const balance = roof.gigaflops / roof.gigabytesPerSecond;
  return [
    provenanceLine(source),
    ...aligned([['probe', 'median', 'quartiles', 'unit'], ...rows], 1),
    `roof: ${digits(roof.gigaflops)} GFLOP/s, ${digits(roof.gigabytesPerSecond)} GB/s (best copy), ${digits(roof.dispatchMicroseconds)} microseconds a dispatch; a kernel needs ${digits(balance)} FLOPs a byte to be bound by arithmetic`,
    kept ? `kept in ${path}; --fresh measures again` : `kept in ${path}`,
  ];
}
