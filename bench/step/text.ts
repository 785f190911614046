/** Results of `insula bench step` as lines for people. */
import type { Spread } from '../measure/measure.ts';
import { provenanceLine } from '../measure/provenance.ts';
import { comparisonOf } from '../measure/saved-run.ts';
import { aligned, changeCells, digits, quartiles } from '../measure/table.ts';
import type { SavedStepRun, StepResult, StepRow } from './run.ts';

export function stepLines(result: StepResult): string[] {
  const { rows, sizes } = result;
  const { preset = 'tiny', batch } = sizes;
  const header = [
    'system',
    'ms a step',
    'quartiles',
    'samples/s',
    'tokens/s',
    'GFLOP/s',
    'host ms',
    'us a dispatch',
    'dispatches',
    'pipelines',
    'attention',
    'arenas MB',
    'x least',
    'memory MB',
    'first step s',
  ];
  const cells = (row: StepRow) => [
    row.system,
    digits(row.wall.median),
    quartiles(row.wall),
    digits(row.samplesPerSecond),
    digits(row.tokensPerSecond),
    digits(row.gigaflops),
    digits(row.host.median),
    digits(row.encodingMicrosecondsPerDispatch),
    String(row.dispatches),
    String(row.pipelines),
    percent(row.attention),
    digits(row.arenaBytes / 1e6),
    digits(row.arenaBytes / row.lowerBoundBytes),
    digits(row.memoryBytes / 1e6),
    digits(row.firstSeconds),
  ];
  return [
    provenanceLine(result),
    `preset ${preset}, batch ${batch}; medians of ${rows[0].wall.rounds} rounds that interleave the systems`,
    ...aligned([header, ...rows.map(cells)], 1),
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

const percent = (share: number | null) => (share === null ? '-' : `${(100 * share).toFixed(1)} %`);

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
