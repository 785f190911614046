/** The finished runs of a study in a folder, one JSON file each, and the runner that adds the missing ones. */
import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { fileError, writeFileSafely } from '../../engine/files/files.ts';
import { count, readJsonFile, share } from '../../engine/files/json-schema.ts';
import { InputError } from '../../engine/index.ts';
import { heldOutRow, historySchema } from '../../model/training/history.ts';
import { unlessAborted } from '../../model/training/run-record.ts';
import { runSettings } from '../../model/training/run-settings.ts';
import { provenanceFields } from '../measure/provenance.ts';
import type { StudyRun } from './study.ts';

/** Objects to point at while the gripper is free and the share placed nearly right; other questions and the share of right tokens. */
const questions = v.object({ objects: count(), near: v.nullable(share), others: count(), tokens: v.nullable(share) });
const episode = { seed: count(), success: v.boolean(), rightObject: v.boolean(), stageScore: share, steps: count() };

export const savedSchema = v.object({
  format: v.literal('insula study run 1'),
  study: v.string(),
  variant: v.string(),
  /** All settings of the training run that its version of the program had. */
  settings: v.record(v.string(), v.unknown()),
  scenes: count(1),
  questionScenes: count(1),
  /** SHA-256 of the vision-language model that the run began from. */
  start: v.string(),
  ...provenanceFields,
  /** The losses, each with its baseline, which predicts without looking. */
  objectives: v.array(v.object({ name: v.string(), title: v.string(), baseline: v.nullable(v.string()) })),
  /** Losses on held-out data, with the seconds of training up to there. */
  heldOut: v.array(v.object({ ...heldOutRow.entries, seconds: v.number() })),
  baselines: historySchema.entries.baselines,
  /** null for data that have no simulated world. */
  episodes: v.nullable(v.array(v.object(episode))),
  /** Answers of the start, and of the start with the weights of the trained policy; null if that lacks some of them. */
  questions: v.object({ start: questions, trained: v.nullable(questions) }),
  seconds: v.record(v.string(), v.number()),
});
export type SavedRun = v.InferOutput<typeof savedSchema>;

export const fileOf = ({ variant, settings }: StudyRun | SavedRun): string => `${variant}-${settings.seed}.json`;

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

/**
 * The finished ones of `runs`, by file. A file that cannot be used counts as missing if `replaces` says yes to its run.
 *
 * @throws InputError if a file is damaged, or holds a run of other settings or of another start
 */
export async function finishedRuns(
  folder: string,
  runs: readonly StudyRun[],
  start: string,
  replaces: (run: StudyRun) => boolean,
): Promise<Map<string, SavedRun>> {
  const finished = new Map<string, SavedRun>();
  for (const run of runs) {
    const path = join(folder, fileOf(run));
    if (!existsSync(path)) continue;
    try {
      const saved = await readJsonFile(path, savedSchema, 'a finished run of insula study');
      const { study, variant, scenes, questionScenes } = saved;
      // Settings that came after the run have the values that they have by default.
      const settings = { ...runSettings({ preset: run.settings.preset }), ...saved.settings };
      const begun = { study, variant, settings, scenes, questionScenes, start: saved.start };
      const differs = difference(begun, { ...run, start });
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

interface RunnerOptions {
  readonly folder: string;
  /** The most runs to perform. */
  readonly most?: number;
  readonly perform: (run: StudyRun) => Promise<SavedRun>;
  readonly signal?: AbortSignal;
  readonly note: (line: string) => void;
}

/** Performs missing runs and writes each to its file. An aborted signal ends it, and loses the run in progress. */
export async function performRuns(
  runs: readonly StudyRun[],
  finished: Map<string, SavedRun>,
  { folder, most = Infinity, perform, signal, note }: RunnerOptions,
): Promise<void> {
  await mkdir(folder, { recursive: true }).catch((error) => {
    throw fileError(error, folder, 'make this folder');
  });
  const missing = runs.filter((run) => !finished.has(fileOf(run)));
  for (const [i, run] of missing.slice(0, most).entries()) {
    note(`${run.study}: run ${i + 1} of ${missing.length} missing ones: ${run.variant}, seed ${run.settings.seed}`);
    const saved = await unlessAborted(signal, () => perform(run));
    if (!saved) return;
    const fields = Object.entries(saved).map(([name, value]) => `"${name}": ${JSON.stringify(value)}`);
    await writeFileSafely(join(folder, fileOf(run)), [`{\n${fields.join(',\n')}\n}\n`]);
    finished.set(fileOf(run), saved);
  }
}
