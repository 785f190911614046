/** Rows of this build beside those of another, or of a saved run. */
import { treeText } from './provenance.ts';
import type { Run, SavedRun, Timed } from './run.ts';
import { changeOf, DOUBT, type Ratio, ratioOfRuns, SAME, spread } from './statistics.ts';
import { aligned, digits } from './table.ts';

export interface Compared {
  readonly name: string;
  readonly before: number;
  readonly now: number;
  /** Null for too few values. */
  readonly ratio: Ratio | null;
  readonly change: ReturnType<typeof changeOf>;
}

export interface Comparison {
  readonly what: string;
  readonly rows: readonly Compared[];
  /** Rows of this run, and of the other, that are alone. */
  readonly alone: readonly [here: number, there: number];
  /** How much longer known work took than in the saved run; null for two builds. */
  readonly drifts: readonly number[] | null;
}

/** Each interval has a share of the doubt, so that all hold together. */
export function compareSaved(run: Run<Timed>, before: SavedRun): Comparison {
  const earlier = new Map(before.rows.map((row) => [row.name, row.times]));
  const both = run.rows.filter(({ name }) => earlier.has(name));
  const drifts = run.anchors.flatMap(({ name, time }) => {
    const anchor = before.anchors.find((own) => own.name === name);
    return anchor ? [time.median / spread(anchor.times).median] : [];
  });
  const rows = both.map(({ name, time, times }) => {
    const was = earlier.get(name)!;
    const ratio = ratioOfRuns(times, was, drifts, DOUBT / both.length);
    return { name, before: spread(was).median, now: time.median, ratio, change: changeOf(ratio) };
  });
  const alone = [run.rows.length - both.length, earlier.size - both.length] as const;
  const what = `compared with ${before.date}, ${treeText(before)}, on ${before.adapter.description}`;
  return { what, rows, alone, drifts };
}

export function comparisonLines({ what, rows, alone, drifts }: Comparison): string[] {
  const cells = rows.map(({ name, before, now, ratio, change }) => [
    ...[name, digits(before), digits(now), ratio ? digits(ratio.ratio) : '-'],
    ...[ratio ? `${digits(ratio.low)} - ${digits(ratio.high)}` : 'too few values', change],
  ]);
  const count = (...changes: readonly Compared['change'][]) =>
    rows.filter(({ change }) => changes.includes(change)).length;
  const changed = count('faster', 'slower');
  const drift = drifts && drifts.length > 0 ? [Math.min(...drifts), Math.max(...drifts)] : null;
  const [here, there] = alone;
  return [
    `${what}: ${changed === 0 ? 'no change' : `${changed} of ${rows.length} rows changed`} (${count('same')} of ${rows.length} rows are the same within ${100 * SAME} %, ${count('undecided')} not decided)`,
    ...aligned([['row', 'ms before', 'ms now', 'now / before', 'interval', 'change'], ...cells], 1),
    `interval: it holds the true ratio with ${100 * (1 - DOUBT)} %${drifts ? ', all of them together' : ''}; a row has changed if its interval lies beyond ${100 * SAME} %.`,
    ...(drift
      ? [
          `Known work beside the rows takes ${digits(drift[0])} to ${digits(drift[1])} times as long as in that run; the intervals cover that. --compare with a folder or a commit measures both builds beside each other, which sees smaller changes.`,
        ]
      : []),
    ...(here > 0 ? [`rows of this run that the other lacks: ${here}`] : []),
    ...(there > 0 ? [`rows of the other run that were not measured: ${there}`] : []),
  ];
}
