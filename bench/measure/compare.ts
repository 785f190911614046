/** A run beside another build in the same rounds, or beside a saved run. */
import { comparedWith, type Provenance } from './provenance.ts';
import type { Run, SavedRun, Timed } from './run.ts';
import { changeOf, DOUBT, pairedRatio, type Ratio, ratioOfRuns, SAME, spread } from './statistics.ts';
import { aligned, digits } from './table.ts';

export interface Compared {
  readonly name: string;
  readonly before: number;
  readonly now: number;
  /** Null for too few rounds. */
  readonly ratio: Ratio | null;
  readonly change: ReturnType<typeof changeOf>;
}

export interface Comparison {
  readonly with: string;
  readonly rows: readonly Compared[];
  /** Rows of this run, and of the other, that are alone. */
  readonly alone: readonly [here: number, there: number];
  /** How much longer known work took than in the saved run; null for builds in the same rounds. */
  readonly drifts: readonly number[] | null;
}

/** Compares with the other build whose times the run holds. Each interval has a share of the doubt, so that all hold together. */
export function compareBuilds(run: Run<Timed>, build: string): Comparison {
  const both = run.rows.filter(({ otherTimes }) => otherTimes);
  const rows = both.map((row) =>
    compared(row, row.otherTimes!, pairedRatio(row.times, row.otherTimes!, DOUBT / both.length)),
  );
  return {
    with: `compared with ${build}, measured in the same rounds`,
    rows,
    // The other build is asked for rows of this one alone.
    alone: [run.rows.length - both.length, 0],
    drifts: null,
  };
}

export function compareSaved(run: Run<Timed>, before: SavedRun & Provenance): Comparison {
  const earlier = new Map(before.rows.map((row) => [row.name, row.times]));
  const both = run.rows.filter(({ name }) => earlier.has(name));
  const drifts = run.anchors.flatMap(({ name, time }) => {
    const anchor = before.anchors.find((own) => own.name === name);
    return anchor ? [time.median / spread(anchor.times).median] : [];
  });
  const rows = both.map((row) => {
    const was = earlier.get(row.name)!;
    return compared(row, was, ratioOfRuns(row.times, was, drifts, DOUBT / both.length));
  });
  const alone = [run.rows.length - both.length, earlier.size - both.length] as const;
  return { with: comparedWith(before), rows, alone, drifts };
}

const compared = ({ name, time }: Timed, before: readonly number[], ratio: Ratio | null): Compared => ({
  ...{ name, before: spread(before).median, now: time.median, ratio, change: changeOf(ratio) },
});

export function comparisonLines({ with: other, rows, alone, drifts }: Comparison): string[] {
  const cells = rows.map(({ name, before, now, ratio, change }) => [
    ...[name, digits(before), digits(now), ratio ? digits(ratio.ratio) : '-'],
    ...[ratio ? `${digits(ratio.low)} - ${digits(ratio.high)}` : 'too few rounds', change],
  ]);
  const count = (...changes: readonly Compared['change'][]) =>
    rows.filter(({ change }) => changes.includes(change)).length;
  const changed = count('faster', 'slower');
  const drift = drifts && drifts.length > 0 ? [Math.min(...drifts), Math.max(...drifts)] : null;
  const [here, there] = alone;
  return [
    `${other}: ${changed === 0 ? 'no change' : `${changed} of ${rows.length} rows changed`} (${count('same')} of ${rows.length} rows are the same within ${100 * SAME} %, ${count('undecided')} not decided)`,
    ...aligned([['row', 'ms before', 'ms now', 'now / before', 'interval', 'change'], ...cells], 1),
    `interval: all of them hold the true ratios with ${100 * (1 - DOUBT)} %; a row has changed if its interval lies beyond ${100 * SAME} %.`,
    ...(drift
      ? [
          `Known work beside the rows takes ${digits(drift[0])} to ${digits(drift[1])} times as long as in that run; the intervals cover that. --compare with a folder or a commit measures both builds in the same rounds, which sees smaller changes.`,
        ]
      : []),
    ...(here > 0 ? [`rows of this run that the other lacks: ${here}`] : []),
    ...(there > 0 ? [`rows of the other run that were not measured: ${there}`] : []),
  ];
}
