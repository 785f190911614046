/** Results of `insula bench policy` as lines for people. */
import type { Spread } from '../measure/measure.ts';
import { provenanceLine } from '../measure/provenance.ts';
import { comparisonOf } from '../measure/saved-run.ts';
import { aligned, changeCells, digits, quartiles } from '../measure/table.ts';
import type { PolicyResult, PolicyRow, SavedPolicyRun } from './policy.ts';

export function policyLines(result: PolicyResult): string[] {
  const { rows, sizes } = result;
  const { preset = 'tiny', batch } = sizes;
  const parts = [...new Set(rows.flatMap((row) => row.parts.map(({ name }) => name)))];
  const partCell = (row: PolicyRow, part: string) => {
    const own = row.parts.find(({ name }) => name === part);
    if (!own) return '-';
    return own.times === 1 ? digits(own.median) : `${own.times} x ${digits(own.median / own.times)}`;
  };
  const cells = rows.map((row) => [
    row.system,
    ...parts.map((part) => partCell(row, part)),
    digits(row.total.median),
    quartiles(row.total),
    row.tokens === null ? '-' : String(row.tokens),
  ]);
  return [
    provenanceLine(result),
    `preset ${preset}, random weights, batch ${batch}; milliseconds, medians of ${rows[0].total.rounds} rounds that interleave the systems`,
    ...aligned([['system', ...parts, 'total', 'quartiles', 'tokens'], ...cells], 1),
    'total: from an encoded observation to the chunk on the host, in calls of their own; where parts are timed, each waits for the adapter. tokens: those of a smooth chunk.',
  ];
}

/** The changes since an earlier run, system by system. */
export function policyComparison(before: SavedPolicyRun, after: PolicyResult): string[] {
  return comparisonOf(before, after, {
    key: ({ system }: { readonly system: string; readonly total: Spread }) => system,
    columns: ['system', 'before', 'now', 'now / before', 'quartiles apart'],
    left: 1,
    cells: (earlier, { system, total }) => [[system, ...changeCells(earlier.total, total)]],
    legend: 'now / before: total milliseconds; below 1 is faster.',
  });
}
