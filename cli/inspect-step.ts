/** `insula inspect --step`: the operations of a training step, and their GPU times. */
import { provenance } from '../bench/measure/provenance.ts';
import { aligned, digits } from '../bench/measure/table.ts';
import { writeFileSafely } from '../engine/files/files.ts';
import { InputError, type ListedOperation } from '../engine/index.ts';
import { openTunedDevice } from '../kernels/tuning.ts';
import { chromeTrace } from '../model/inspect/chrome-trace.ts';
import { MeasuredStep, measuredConfiguration } from '../model/inspect/measured-step.ts';
import { totalsByKernel } from '../model/inspect/step-reading.ts';
import { presetNamed } from '../model/training/presets.ts';
import type { TrainingStep } from '../model/training/training-step.ts';
import { type SubjectValues, withTableFile } from './inspect-subject.ts';
import type { Progress } from './progress.ts';
import { expectUsedSizes } from './step-options.ts';

/** The captured list of a training step on random batches; with `trace`, that file gets the GPU times of its dispatches. */
export async function inspectStep(
  { system = 'knowledge-insulation', table, trace, adapter, floor, tuning, ...sizes }: SubjectValues,
  progress: Progress,
) {
  expectUsedSizes('inspect', [system], sizes);
  const configuration = await withTableFile(measuredConfiguration(system, sizes), table, progress);
  const batch = sizes.batch ?? presetNamed(sizes.preset ?? 'tiny').batch;
  using device = (await openTunedDevice({ adapter, floor, tuning }, (line) => progress.note(line))).device;
  device.pipelines.atOnce = 1; // a driver that prints what it compiles (RADV_DEBUG, IGC_ShaderDumpEnable) prints one after the other
  if (trace !== undefined && !device.features.has('timestamp-query'))
    throw new InputError('--trace: this adapter has no timestamps; leave it out, or take another --adapter');
  using measured = new MeasuredStep(device, system, configuration, batch, sizes);
  await measured.run();
  await device.finish();
  const [operations, statistics] = [measured.step.list(), measured.step.stats()];
  if (trace !== undefined) {
    await measured.run();
    const times = await device.profile(() => measured.run());
    await writeFileSafely(trace, [JSON.stringify(chromeTrace(times, device.description))]);
  }
  const json = { ...provenance(device), system, batch, statistics, operations };
  return { json, lines: stepLines(system, batch, statistics, operations) };
}

function stepLines(
  system: string,
  batch: number,
  statistics: ReturnType<TrainingStep['stats']>,
  operations: readonly ListedOperation[],
): string[] {
  const { dispatches, submits, arenaBytes, lowerBoundBytes, constantBytes, memory } = statistics;
  const { activations: arenas, ...others } = memory;
  const megabytes = Object.entries(others).map(([name, bytes]) => `${name} ${digits(bytes / 1e6)} MB`);
  const numbers = operations.map(({ phase, operation, grid, flops = 0, bytes }, i) => [
    String(i + 1),
    phase,
    operation,
    grid ? grid.join(' x ') : '',
    digits(flops / 1e6),
    digits(bytes / 1e3),
  ]);
  const table = aligned([['', 'part', 'operation', 'workgroups', 'MFLOP', 'KB'], ...numbers], 4);
  const totals = totalsByKernel(operations).map(({ operation, times, flops, bytes }) => [
    ...[operation, String(times)],
    ...[flops, bytes].map((number) => digits(number / 1e6)),
  ]);
  const words = [
    "bindings (* written; arena:byte, or the name of a tensor that outlives the step); the kernel's constants",
    ...operations.map(({ bindings, parameters }) => `${bindingsText(bindings)}; ${variantOf(parameters)}`),
  ];
  return [
    `${system}, batch ${batch}: ${dispatches} dispatches, and ${operations.length - dispatches} copies and clears, in ${submits} submit${submits === 1 ? '' : 's'}`,
    megabytes.join(', '),
    `activations: ${digits(arenas / 1e6)} MB in ${arenaBytes.length} arenas, ${digits(arenas / lowerBoundBytes)} x the lower bound of any plan; constants ${digits(constantBytes / 1e6)} MB`,
    ...aligned([['operation', 'times', 'MFLOP', 'MB'], ...totals], 1),
    '',
    ...table.map((line, i) => `${line}  ${words[i]}`),
  ];
}

function bindingsText(bindings: ListedOperation['bindings']): string {
  return bindings
    .map(({ name, access, tensor, arena, offset }) => {
      const storage = arena === undefined ? tensor : `${arena}:${offset}`;
      return `${access === 'read' ? '' : '*'}${name} ${storage}`;
    })
    .join(', ');
}

/** Numeric parameters, and the names of replaced declarations. */
function variantOf(parameters: ListedOperation['parameters'] = {}): string {
  return Object.entries(parameters)
    .map(([name, value]) => (typeof value === 'number' ? `${name}=${value}` : name))
    .join(' ');
}
