/** `insula inspect --step`: what a training step does, operation by operation, and when. */

import { type Provenance, provenance } from '../bench/measure/provenance.ts';
import { aligned, digits } from '../bench/measure/table.ts';
import { openTunedDevice } from '../bench/measure/tuning.ts';
import { writeFileSafely } from '../engine/files/files.ts';
import { type DispatchTime, InputError, type ListedOperation, type StepStatistics } from '../engine/index.ts';
import { presetNamed } from '../model/index.ts';
import { configurationFor, MeasuredStep, type StepSizes, stepSizeOptions } from '../model/inspect/measured-step.ts';
import { text } from './options.ts';
import type { Progress } from './progress.ts';

export const inspectOptions = {
  step: { type: 'boolean', help: 'the operations of a captured training step: kernel, grid, FLOPs, bytes, arenas' },
  system: text('knowledge-insulation by default'),
  ...stepSizeOptions,
  out: text('file for the list as JSON'),
  trace: text('file for the GPU times of every dispatch, for chrome://tracing and Perfetto'),
} as const;

export interface InspectOptions extends StepSizes {
  step?: boolean;
  system?: string;
  out?: string;
  trace?: string;
  adapter?: string;
  floor?: boolean;
  tuning?: string;
}

export interface InspectedStep extends Provenance {
  readonly system: string;
  readonly batch: number;
  readonly statistics: StepStatistics;
  readonly operations: readonly ListedOperation[];
}

/** @throws InputError where an option is wrong, and for --trace where the adapter has no timestamps */
export async function inspectStep(
  { step, system = 'knowledge-insulation', out, trace, batch, ...options }: InspectOptions,
  progress: Progress,
): Promise<{ json: InspectedStep; lines: string[] }> {
  if (!step) throw new InputError('inspect: say what: --step lists the operations of a training step');
  const configuration = configurationFor(system, options);
  const size = batch ?? presetNamed(options.preset ?? 'tiny').batch;
  const { device } = await openTunedDevice(options, (line) => progress.note(line));
  try {
    if (trace !== undefined && !device.features.has('timestamp-query'))
      throw new InputError('--trace: this adapter has no timestamps; leave it out, or take another --adapter');
    using measured = new MeasuredStep(device, system, configuration, size, options.recompute);
    await measured.run();
    await device.finish();
    const [operations, statistics] = [measured.step.list(), measured.step.stats()];
    if (trace !== undefined) {
      await measured.run();
      const times = await device.profile(() => measured.run());
      await writeFileSafely(trace, [JSON.stringify(chromeTrace(times, device.description))]);
    }
    const result = { ...provenance(device), system, batch: size, statistics, operations };
    if (out !== undefined) await writeFileSafely(out, [`${JSON.stringify(result, null, 1)}\n`]);
    return { json: result, lines: inspectLines(result) };
  } finally {
    device.close();
  }
}

/** The trace event format: complete events in microseconds. */
export function chromeTrace(times: readonly DispatchTime[], adapter: string) {
  const place = { pid: 1, tid: 1 };
  return {
    displayTimeUnit: 'ms',
    traceEvents: [
      { name: 'process_name', ph: 'M', ...place, args: { name: adapter } },
      { name: 'thread_name', ph: 'M', ...place, args: { name: 'training step' } },
      ...times.map(({ label, begin, nanoseconds, workgroups, flops, bytes }) => ({
        name: label,
        cat: label.split(' ')[0],
        ph: 'X',
        ...place,
        ts: begin / 1000,
        dur: nanoseconds / 1000,
        args: { workgroups, flops, bytes, 'GFLOP/s': flops / nanoseconds, 'GB/s': bytes / nanoseconds },
      })),
    ],
  };
}

function inspectLines({ system, batch, statistics, operations }: InspectedStep): string[] {
  const { dispatches, submits, arenaBytes, lowerBoundBytes, constantBytes } = statistics;
  const arenas = arenaBytes.reduce((sum, bytes) => sum + bytes, 0);
  const numbers = operations.map(({ operation, grid, flops = 0, bytes }, i) => [
    String(i + 1),
    operation,
    grid ? grid.join(' x ') : '',
    digits(flops / 1e6),
    digits(bytes / 1e3),
  ]);
  const table = aligned([['', 'operation', 'workgroups', 'MFLOP', 'KB'], ...numbers], 3);
  const words = [
    'bindings (* written; arena:byte, or the name of what outlives the step); what the kernel was specialised with',
    ...operations.map(({ bindings, parameters }) => `${placesOf(bindings)}; ${variantOf(parameters)}`),
  ];
  return [
    `${system}, batch ${batch}: ${dispatches} dispatches, and ${operations.length - dispatches} copies and clears, in ${submits} submit${submits === 1 ? '' : 's'}`,
    `activations: ${digits(arenas / 1e6)} MB in ${arenaBytes.length} arenas, ${digits(arenas / lowerBoundBytes)} x the least any plan takes; constants ${digits(constantBytes / 1e6)} MB`,
    ...totals(operations),
    '',
    ...table.map((line, i) => `${line}  ${words[i]}`),
  ];
}

/** By kernel, those with the most FLOPs first. */
function totals(operations: readonly ListedOperation[]): string[] {
  const byKernel = new Map<string, ListedOperation[]>();
  for (const own of operations) byKernel.set(own.operation, [...(byKernel.get(own.operation) ?? []), own]);
  const rows = [...byKernel].map(([operation, all]) => {
    const [flops, bytes] = [
      all.reduce((sum, own) => sum + (own.flops ?? 0), 0),
      all.reduce((sum, own) => sum + own.bytes, 0),
    ];
    return { flops, cells: [operation, String(all.length), digits(flops / 1e6), digits(bytes / 1e6)] };
  });
  rows.sort((a, b) => b.flops - a.flops);
  return aligned([['operation', 'times', 'MFLOP', 'MB'], ...rows.map(({ cells }) => cells)], 1);
}

function placesOf(bindings: ListedOperation['bindings']): string {
  return bindings
    .map(({ name, access, tensor, arena, offset }) => {
      const place = arena === undefined ? tensor : `${arena}:${offset}`;
      return `${access === 'read' ? '' : '*'}${name} ${place}`;
    })
    .join(', ');
}

/** Parameters that are numbers, and the names of the declarations that are replaced. */
function variantOf(parameters: ListedOperation['parameters'] = {}): string {
  return Object.entries(parameters)
    .map(([name, value]) => (typeof value === 'number' ? `${name}=${value}` : name))
    .join(' ');
}
