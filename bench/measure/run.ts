/** The envelope of every benchmark: rows with their times, known work measured beside them, how the run went, and how it compares. */
import * as v from 'valibot';
import { readJsonFile } from '../../engine/files/json-schema.ts';
import { type Device, InputError, quote } from '../../engine/index.ts';
import { type Provenance, provenance, provenanceFields, treeText } from './provenance.ts';
import { type Budget, type Entrant, inRounds, type Rounds } from './rounds.ts';
import { serveRequests } from './serve.ts';
import { changeOf, DOUBT, type Ratio, ratioOfRuns, type Spread, spread } from './statistics.ts';
import { type Timer, timers } from './work.ts';

/** One thing that was timed, with its milliseconds in each round. */
export interface Timed {
  readonly name: string;
  readonly time: Spread;
  readonly times: readonly number[];
}

export interface Run<Row> extends Provenance {
  readonly format: string;
  readonly options: object;
  readonly timer: Timer;
  readonly rows: readonly Row[];
  /** Known work that says how fast the machine was meanwhile. */
  readonly anchors: readonly Timed[];
  /** Seconds until every row had run once, most of them compilation; and seconds of the whole run. */
  readonly startSeconds: number;
  readonly seconds: number;
  readonly ended: Rounds['ended'];
  /** Rows that there was no time for. */
  readonly notStarted: readonly string[];
}

/** The part of a run that a later one is compared with. */
const timedSchema = v.object({ name: v.string(), times: v.pipe(v.array(v.number()), v.minLength(1)) });
const savedFields = {
  ...provenanceFields,
  timer: v.picklist(timers),
  rows: v.array(timedSchema),
  anchors: v.array(timedSchema),
};
export type SavedRun = v.InferOutput<v.ObjectSchema<typeof savedFields, undefined>>;

const formatOf = (command: string) => `insula ${command} 2`;

/** Reads a run that `command` saved with --out. @throws InputError if the file cannot be read or is not such a run */
export function readSavedRun(path: string, command: string): Promise<SavedRun> {
  const schema = v.object({ format: v.literal(formatOf(command)), ...savedFields });
  return readJsonFile(path, schema, `a run that 'insula ${command} --out' saved`);
}

/** @throws InputError if a saved run is of another adapter or timer, or has none of the rows */
function expectComparable(
  { path, saved }: { readonly path: string; readonly saved: SavedRun },
  adapter: string,
  names: readonly string[],
  timer: Timer,
): void {
  const { description } = saved.adapter;
  if (description !== adapter)
    throw new InputError(
      `--compare ${path}: that run is of ${quote(description)}, but this adapter is ${quote(adapter)}`,
    );
  if (saved.timer !== timer)
    throw new InputError(
      `--compare ${path}: that run has ${saved.timer} times, this one ${timer}; give --timer ${saved.timer}`,
    );
  if (!names.some((name) => saved.rows.some((row) => row.name === name)))
    throw new InputError(
      `--compare ${path}: that run has none of these rows: it measured ${quote(saved.rows[0]?.name ?? 'nothing')}, this one ${quote(names[0])}; give the same options`,
    );
}

interface Measurement<Row> {
  readonly command: string;
  readonly rows: readonly Row[];
  readonly anchors: readonly Entrant[];
  readonly options: object;
  readonly timer?: Timer;
  /** Whether more rounds would change nothing, by the times of the rows. */
  settled?(times: readonly (readonly number[])[]): boolean;
}

export interface RunBudget extends Budget {
  /** A saved run that the run will be compared with. */
  readonly before?: { readonly path: string; readonly saved: SavedRun };
}

/** Measures the work of rows, and anchors, in the same rounds. Rows without a sample are left out. */
export async function measureRun<Row extends { readonly work: Entrant }>(
  device: Device,
  { before, ...budget }: RunBudget,
  { command, rows, anchors, options, timer = 'wall', settled }: Measurement<Row>,
): Promise<Run<Row & { readonly timed: Timed }>> {
  const works = rows.map(({ work }) => work);
  const names = works.map(({ name }) => name);
  if (before) expectComparable(before, device.description, names, timer);
  await serveRequests(device.description, works);
  // Rounds that settle the answer do not settle a comparison.
  const settles =
    settled && !before ? (all: readonly (readonly number[])[]) => settled(all.slice(anchors.length)) : undefined;
  const { times, ...course } = await inRounds([...anchors, ...works], budget, settles);
  const timedOf = ({ name }: Entrant, at: number): Timed => ({ name, time: spread(times[at]), times: times[at] });
  const all = rows.map((row, i) => ({ ...row, timed: timedOf(row.work, anchors.length + i) }));
  const hasTimes = (own: Timed) => own.times.length > 0;
  return {
    format: formatOf(command),
    ...provenance(device),
    options,
    timer,
    ...course,
    rows: all.filter(({ timed }) => hasTimes(timed)),
    anchors: anchors.map(timedOf).filter(hasTimes),
    notStarted: all.filter(({ timed }) => !hasTimes(timed)).map(({ timed }) => timed.name),
  };
}

const endings: Readonly<Record<Rounds['ended'], string>> = {
  settled: 'more would not change the answer',
  rounds: 'all that --rounds allows',
  seconds: '--seconds were spent',
  interrupted: 'interrupted',
};

/** How long a run took, why it ended, and how much it had no time for. */
export function courseLine({ rows, startSeconds, seconds, ended, notStarted }: Run<Timed>): string {
  const rounds = Math.max(0, ...rows.map(({ times }) => times.length));
  return `${rounds} rounds that interleave all rows, in ${seconds.toFixed(0)} s, of which compiling and first runs took ${startSeconds.toFixed(0)} s; then ${endings[ended]}${notStarted.length > 0 ? `; ${notStarted.length} rows had no time to compile: give more --seconds, or run it again, because drivers keep compiled kernels` : ''}`;
}

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

/** The rows of a run beside those of a saved one. Each interval has a share of the doubt, so that all hold together. */
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
