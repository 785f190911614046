/** `insula inspect --step`: the operations of a training step, and their GPU times. */
import { provenance } from '../bench/measure/provenance.ts';
import { aligned, digits } from '../bench/measure/table.ts';
import { writeFileSafely } from '../engine/files/files.ts';
import { InputError, type ListedOperation, type StepStatistics } from '../engine/index.ts';
import { openTunedDevice } from '../kernels/tuning.ts';
import { chromeTrace } from '../model/inspect/chrome-trace.ts';
import { MeasuredStep, measuredConfiguration } from '../model/inspect/measured-step.ts';
import { nearSystems, PACKED_QUESTIONS } from '../model/systems/index.ts';
import { presetNamed } from '../model/training/presets.ts';
import { command } from './command.ts';
import { deviceOptions } from './device.ts';
import { choice, flag, outputFile } from './options.ts';
import { expectUsedSizes, measuredSystems, stepSizeOptions } from './step-options.ts';

export const inspect = command({
  options: {
    step: flag('the operations of a captured training step: kernel, grid, FLOPs, bytes, arenas; required'),
    system: choice(
      `one of those that insula systems lists, or ${PACKED_QUESTIONS}; knowledge-insulation by default`,
      measuredSystems,
      {},
      nearSystems,
    ),
    ...stepSizeOptions,
    out: outputFile('file for the list as JSON'),
    trace: outputFile('file for the GPU times of every dispatch, for chrome://tracing and Perfetto'),
    ...deviceOptions,
  },
  async run({ step, system = 'knowledge-insulation', out, trace, adapter, floor, tuning, ...sizes }, { progress }) {
    if (!step) throw new InputError('inspect: give --step, which lists the operations of a training step');
    expectUsedSizes('inspect', [system], sizes);
    const configuration = measuredConfiguration(system, sizes);
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
    const result = { ...provenance(device), system, batch, statistics, operations };
    if (out !== undefined) await writeFileSafely(out, [`${JSON.stringify(result, null, 1)}\n`]);
    return { json: result, lines: inspectLines(system, batch, statistics, operations) };
  },
});

function inspectLines(
  system: string,
  batch: number,
  statistics: StepStatistics,
  operations: readonly ListedOperation[],
): string[] {
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
    "bindings (* written; arena:byte, or the name of a tensor that outlives the step); the kernel's constants",
    ...operations.map(({ bindings, parameters }) => `${bindingsText(bindings)}; ${variantOf(parameters)}`),
  ];
  return [
    `${system}, batch ${batch}: ${dispatches} dispatches, and ${operations.length - dispatches} copies and clears, in ${submits} submit${submits === 1 ? '' : 's'}`,
    `activations: ${digits(arenas / 1e6)} MB in ${arenaBytes.length} arenas, ${digits(arenas / lowerBoundBytes)} x the lower bound of any plan; constants ${digits(constantBytes / 1e6)} MB`,
    ...totals(operations),
    '',
    ...table.map((line, i) => `${line}  ${words[i]}`),
  ];
}

/** Sums by kernel, in decreasing order of FLOPs. */
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
