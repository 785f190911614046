/** Rows of this build beside those of another, or of a saved run. */
import { treeText } from './provenance.ts';
import type { Run, SavedRun, Timed } from './run.ts';
import { changeOf, DOUBT, type Ratio, ratioOfRuns, spread } from './statistics.ts';

interface Compared {
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
