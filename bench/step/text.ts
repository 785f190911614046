/** Results of `insula bench step` as lines for people. */
import { formatPercent } from '../../model/report/markup.ts';
import type { Spread } from '../measure/measure.ts';
import { provenanceLine } from '../measure/provenance.ts';
import { comparisonOf } from '../measure/saved-run.ts';
import { aligned, changeCells, digits, quartiles } from '../measure/table.ts';
import type { SavedStepRun, StepResult, StepRow } from './run.ts';

/** The cells of a row by the names of their columns. */
const columns: Readonly<Record<string, (row: StepRow) => string>> = {
  system: ({ system }) => system,
  'ms a step': ({ wall }) => digits(wall.median),
  quartiles: ({ wall }) => quartiles(wall),
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

export function stepLines(result: StepResult): string[] {
  const { rows, sizes } = result;
  const { preset = 'tiny', batch } = sizes;
  const cells = rows.map((row) => Object.values(columns).map((cell) => cell(row)));
  return [
    provenanceLine(result),
    `preset ${preset}, batch ${batch}; medians of ${rows[0].wall.rounds} rounds that interleave the systems`,
    ...aligned([Object.keys(columns), ...cells], 1),
    'host ms: time to write numbers, encode and submit. us a dispatch: time to encode and submit one. arenas MB: memory of activations; x least: the same, divided by the least that any plan takes.',
    ...rows.flatMap(compilationLine),
    ...rows.flatMap(kernelLines),
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

function kernelLines({ system, kernels, busy }: StepRow): string[] {
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
    `${system}: GPU time by kernel, ${percent(busy)} of the wall time of a step in all; each dispatch is in a pass of its own, which costs time`,
    ...aligned([['kernel', 'dispatches', 'share', 'ms', 'GFLOP/s', 'GB/s'], ...rows], 1),
    ...(rest > 0 ? [`others: ${percent(rest)}`] : []),
  ];
}

const percent = (share: number | null) => (share === null ? '-' : formatPercent(share, 1));

/** The changes since an earlier run, system by system and kernel by kernel. */
export function comparisonLines(before: SavedStepRun, after: StepResult): string[] {
  return comparisonOf(before, after, {
    key: ({ system }) => system,
    columns: ['system', '', 'before', 'now', 'now / before', 'quartiles apart'],
    left: 2,
    cells: (earlier, row) => {
      const single = (what: string, was: number, is: number) => {
        return [row.system, what, digits(was), digits(is), digits(is / was), ''];
      };
      const spread = (what: string, was: Spread, is: Spread) => [row.system, what, ...changeCells(was, is)];
      const kernels = row.kernels.flatMap(({ kernel, milliseconds, share }) => {
        const own = earlier.kernels.find((other) => other.kernel === kernel);
        return own && share >= 0.01 ? [single(`ms of ${kernel}`, own.milliseconds, milliseconds)] : [];
      });
      return [
        spread('ms a step', earlier.wall, row.wall),
        spread('host ms', earlier.host, row.host),
        single('arenas MB', earlier.arenaBytes / 1e6, row.arenaBytes / 1e6),
        ...kernels,
      ];
    },
    legend: 'now / before: below 1 is faster. The times of single kernels are noisy: each is from one run.',
  });
}
