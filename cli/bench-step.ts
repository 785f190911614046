/** `insula bench step`: training steps of several systems, compared. */
import { provenanceLine } from '../bench/measure/provenance.ts';
import { courseLine } from '../bench/measure/run.ts';
import { aligned, digits, quartiles } from '../bench/measure/table.ts';
import { runStepBench, type StepRow, type StepRun, sizesText } from '../bench/step/run.ts';
import { formatPercent } from '../model/report/markup.ts';
import { nearSystems } from '../model/systems/index.ts';
import { presetNamed } from '../model/training/presets.ts';
import { benchOptions, runBench } from './bench-run.ts';
import { command } from './command.ts';
import { stepNotes } from './notes.ts';
import { choices } from './options.ts';
import { expectUsedSizes, measuredSystems, stepSizeOptions } from './step-options.ts';

const DEFAULT_SYSTEMS = ['knowledge-insulation', 'joint-training', 'pi0'];

export const benchStep = command({
  options: {
    system: choices(
      `systems, separated by commas; ${DEFAULT_SYSTEMS.join(',')} by default`,
      measuredSystems,
      {},
      nearSystems,
    ),
    ...stepSizeOptions,
    ...benchOptions(),
  },
  notes: stepNotes,
  interruptible: true,
  async run({ system: systems = DEFAULT_SYSTEMS, ...values }, context) {
    const sizes = Object.fromEntries(
      Object.keys(stepSizeOptions).map((name) => [name, values[name as keyof typeof stepSizeOptions]]),
    ) as Partial<typeof values>;
    expectUsedSizes('bench step', systems, sizes);
    const batch = values.batch ?? presetNamed(values.preset ?? 'tiny').batch;
    return runBench(values, context, {
      ...{ command: 'bench step', lines: stepLines },
      run: (device, budget) => runStepBench(device, { systems, ...sizes, batch }, budget),
    });
  },
});

/** The cells of a row by the names of their columns. */
const columns: Readonly<Record<string, (row: StepRow) => string>> = {
  system: ({ system }) => system,
  'ms a step': ({ time }) => digits(time.median),
  quartiles: ({ time }) => quartiles(time),
  'samples/s': ({ samplesPerSecond }) => digits(samplesPerSecond),
  'tokens/s': ({ tokensPerSecond }) => digits(tokensPerSecond),
  'GFLOP/s': ({ gigaflops }) => digits(gigaflops),
  'host ms': ({ host }) => digits(host.median),
  'us a dispatch': ({ encodingMicrosecondsPerDispatch }) => digits(encodingMicrosecondsPerDispatch),
  dispatches: ({ dispatches }) => String(dispatches),
  pipelines: ({ pipelines }) => String(pipelines),
  attention: ({ attention }) => percent(attention),
  'arenas MB': ({ arenaBytes }) => digits(arenaBytes / 1e6),
  'x least': ({ arenaBytes, lowerBoundBytes }) => digits(arenaBytes / lowerBoundBytes),
  'memory MB': ({ memoryBytes }) => digits(memoryBytes / 1e6),
  'first step s': ({ firstSeconds }) => digits(firstSeconds),
};

export function stepLines(run: StepRun): string[] {
  const cells = run.rows.map((row) => Object.values(columns).map((cell) => cell(row)));
  return [
    provenanceLine(run),
    `${sizesText(run.options)}; medians; ${courseLine(run)}`,
    ...aligned([Object.keys(columns), ...cells], 1),
    'host ms: time to write numbers, encode and submit. us a dispatch: time to encode and submit one. arenas MB: memory of activations; x least: the same, divided by the least that any plan takes.',
    ...run.rows.flatMap(compilationLine),
    ...run.rows.flatMap(kernelLines),
  ];
}

/** The five pipelines with the longest first use. */
function compilationLine({ system, compiled }: StepRow): string[] {
  if (compiled.length === 0) return [];
  const total = compiled.reduce((sum, { milliseconds }) => sum + milliseconds, 0);
  const slowest = [...compiled].sort((a, b) => b.milliseconds - a.milliseconds).slice(0, 5);
  const named = slowest.map(({ label, milliseconds }) => `${label} ${digits(milliseconds)} ms`);
  return [
    `${system}: the first use of ${compiled.length} pipelines took ${digits(total / 1000)} s: ${named.join(', ')}, ...`,
  ];
}

function kernelLines({ system, kernels, profiled }: StepRow): string[] {
  if (kernels.length === 0) return [`${system}: no times by kernel, because this adapter has no timestamps`];
  const shown = kernels.filter(({ share }) => share >= 0.01);
  const rest = kernels.slice(shown.length).reduce((sum, { share }) => sum + share, 0);
  const rows = shown.map((own) => [
    own.kernel,
    String(own.dispatches),
    percent(own.share),
    digits(own.milliseconds),
    digits(own.gigaflops),
    digits(own.gigabytesPerSecond),
  ]);
  return [
    '',
    `${system}: GPU time by kernel, ${digits(profiled!)} ms in one step whose dispatches each have a pass of their own, which costs time`,
    ...aligned([['kernel', 'dispatches', 'share', 'ms', 'GFLOP/s', 'GB/s'], ...rows], 1),
    ...(rest > 0 ? [`others: ${percent(rest)}`] : []),
  ];
}

const percent = (share: number | null) => (share === null ? '-' : formatPercent(share, 1));
