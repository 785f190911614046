/** The finished runs of the studies in a folder, one JSON file each, and the runner that adds missing ones. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import * as v from 'valibot';
import { ensureFolder, writeFileSafely } from '../../engine/files/files.ts';
import { count, readJsonFile, share } from '../../engine/files/json-schema.ts';
import { InputError } from '../../engine/index.ts';
import { heldOutRow, historySchema } from '../../model/training/history.ts';
import { unlessAborted } from '../../model/training/run-record.ts';
import { type RunSettings, runSettings } from '../../model/training/run-settings.ts';
import { provenanceFields } from '../measure/provenance.ts';
import type { StudyRun, TimedRun } from './arms.ts';

const either = <T extends v.GenericSchema>(own: T) => v.optional(v.nullable(own), null);
const decodes = v.nullable(v.object({ chunks: count(1), malformed: count() }));
/** Root mean square errors of normalised actions: of one sample, of the mean of several, of the best constant chunk. */
const actionError = {
  observations: count(),
  oneSample: v.number(),
  meanOfSeveral: v.nullable(v.number()),
  bestConstant: v.number(),
};
/** `original`: it went for what the scene's own instruction names, though another was given. */
const episode = v.object({
  ...{ seed: count(), success: v.boolean(), rightObject: v.boolean(), stageScore: share, steps: count() },
  original: v.optional(v.boolean()),
});
/** Objects to point at while the gripper is free and the share placed nearly right; other questions and the share of right tokens. */
const questions = v.object({ objects: count(), near: v.nullable(share), others: count(), tokens: v.nullable(share) });
const probe = v.object({ question: v.string(), baseline: share, layers: v.array(share) });

/** A trained arm. Fields that are `either` came later: null in runs that were not measured so. */
const trainedSchema = v.object({
  format: v.literal('insula study run 1'),
  arm: v.string(),
  /** All settings of the training run that its version of the program had. */
  settings: v.record(v.string(), v.unknown()),
  scenes: count(1),
  questionScenes: count(1),
  /** SHA-256 of the vision-language model that the run began from; null for random weights. */
  start: v.nullable(v.string()),
  ...provenanceFields,
  /** The losses, each with its baseline, which predicts without looking. */
  objectives: v.array(v.object({ name: v.string(), title: v.string(), baseline: v.nullable(v.string()) })),
  /** Losses on held-out data, with the seconds of training up to there. */
  heldOut: v.array(v.object({ ...heldOutRow.entries, seconds: v.number() })),
  baselines: historySchema.entries.baselines,
  /** Open-loop errors on held-out observations between training steps, of one sample. */
  acting: either(
    v.array(v.object({ step: count(), seconds: v.number(), oneSample: v.number(), bestConstant: v.number() })),
  ),
  /** The same after training, on more observations, and on the first observation of each held-out episode. */
  openLoop: either(v.object({ ...actionError, decodes })),
  firstChunks: either(v.object(actionError)),
  /** The closed loop in simple scenes, with their own instructions. */
  episodes: v.array(episode),
  decodes: either(v.object({ chunks: count(1), malformed: count() })),
  /** The same in other scenes, or with other instructions, by their name. */
  others: either(v.record(v.string(), v.array(episode))),
  /** Answers of the start, and of the start with the weights of the trained policy; null without a start, or if that lacks some of them. */
  questions: v.object({ start: v.nullable(questions), trained: v.nullable(questions) }),
  /** Linear probes of the rows of a picture by layer, the tower's output first: the accuracy on held-out things. */
  probes: either(v.object({ start: v.array(probe), trained: v.array(probe) })),
  seconds: v.record(v.string(), v.number()),
});
export type TrainedRun = v.InferOutput<typeof trainedSchema>;

/** Systems that were timed in turn in one process, in milliseconds by round. */
const timedSchema = v.object({
  format: v.literal('insula study times 1'),
  arm: v.string(),
  seed: count(),
  ...provenanceFields,
  options: v.record(v.string(), v.unknown()),
  rows: v.array(
    v.object({
      system: v.string(),
      times: v.pipe(v.array(v.number()), v.minLength(1)),
      /** Medians of the parts of a call. */
      parts: v.optional(v.array(v.object({ name: v.string(), times: count(1), median: v.number() }))),
      tokens: v.optional(v.nullable(count())),
    }),
  ),
});
export type TimedResult = v.InferOutput<typeof timedSchema>;

export const savedSchema = v.variant('format', [trainedSchema, timedSchema]);
export type SavedRun = TrainedRun | TimedResult;

export const seedOf = (run: SavedRun | StudyRun | TimedRun): number =>
  'settings' in run ? (run.settings.seed as number) : run.seed;
export const fileOf = (run: SavedRun | StudyRun | TimedRun): string => `${run.arm}-${seedOf(run)}.json`;

/** The first difference between two values as they are in JSON, in words; null if there is none. */
function difference(before: unknown, now: unknown, place = ''): string | null {
  const [own, other] = [before, now].map((value) => JSON.stringify(value));
  if (own === other) return null;
  if (!isRecord(before) || !isRecord(now)) return `${place.slice(1)} is ${own} there, and now ${other}`;
  for (const name of Object.keys({ ...before, ...now })) {
    const found = difference(before[name], now[name], `${place}.${name}`);
    if (found !== null) return found;
  }
  return null;
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** The part of a run that decides its result, as it is compared with a saved one. */
function decisive(run: StudyRun | TimedRun | SavedRun, start: string): unknown {
  if (!('settings' in run)) return { arm: run.arm, seed: run.seed, options: run.options };
  const { arm, scenes, questionScenes } = run;
  // Measurements between steps change nothing.
  const { actEvery, ...settings } = run.settings as Partial<RunSettings>;
  // Settings that came after the run have the values that they have by default; a preset's words decide nothing.
  const { description, pretraining, ...sizes } = settings.preset!;
  const own = { ...runSettings(settings), actEvery: null, preset: sizes };
  return {
    arm,
    settings: own,
    scenes,
    questionScenes,
    start: 'start' in run ? run.start : settings.from ? start : null,
  };
}

/**
 * The finished ones of `runs`, by file. A file that cannot be used counts as missing if `replaces` says yes to its run.
 *
 * @throws InputError if a file is damaged, or holds a run of other settings or of another start
 */
export async function finishedRuns(
  folder: string,
  runs: readonly (StudyRun | TimedRun)[],
  start: string,
  replaces: (run: StudyRun | TimedRun) => boolean,
): Promise<Map<string, SavedRun>> {
  const finished = new Map<string, SavedRun>();
  for (const run of runs) {
    const path = join(folder, fileOf(run));
    if (!existsSync(path)) continue;
    try {
      const saved = await readJsonFile(path, savedSchema, 'a finished run of insula study');
      const differs = difference(decisive(saved, start), decisive(run, start));
      if (differs !== null) throw new InputError(`${path}: ${differs}`);
      finished.set(fileOf(run), saved);
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      if (!replaces(run))
        throw new InputError(`${error.message}; choose another folder with --out, or run it again with --overwrite`);
    }
  }
  return finished;
}

interface RunnerOptions<R> {
  readonly folder: string;
  /** The most runs to perform. */
  readonly most?: number;
  readonly perform: (run: R) => Promise<SavedRun>;
  readonly signal?: AbortSignal;
  readonly note: (line: string) => void;
}

/**
 * Performs missing runs and writes each to its file. An aborted signal ends it, and loses the run in progress. One that is refused or
 * diverges does not keep the others from being performed: a line of the result names it.
 */
export async function performRuns<R extends StudyRun | TimedRun>(
  runs: readonly R[],
  finished: Map<string, SavedRun>,
  { folder, most = Infinity, perform, signal, note }: RunnerOptions<R>,
): Promise<string[]> {
  const failed: string[] = [];
  await ensureFolder(folder);
  const missing = runs.filter((run) => !finished.has(fileOf(run)));
  for (const [i, run] of missing.slice(0, most).entries()) {
    note(`run ${i + 1} of ${missing.length} missing ones: ${run.arm}, seed ${seedOf(run)}`);
    const saved = await unlessAborted(signal, () => perform(run)).catch((error) => {
      if (!(error instanceof InputError)) throw error;
      failed.push(`${fileOf(run)}: ${error.message}`);
      note(failed[failed.length - 1]);
    });
    if (saved === null) break;
    if (!saved) continue;
    const fields = Object.entries(saved).map(([name, value]) => `"${name}": ${JSON.stringify(value)}`);
    await writeFileSafely(join(folder, fileOf(run)), [`{\n${fields.join(',\n')}\n}\n`]);
    finished.set(fileOf(run), saved);
  }
  return failed;
}
