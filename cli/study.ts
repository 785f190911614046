/** `insula study`: the papers' claims, their runs over seeds, and one page of verdicts. */
import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type AnyRun, runsOf, type StudyRun, timedArms, trainedArms } from '../bench/study/arms.ts';
import { armsOf, type Claim, seedsOf, type Test } from '../bench/study/claims/claim.ts';
import { claims } from '../bench/study/claims/index.ts';
import { type Conclusion, conclusionOf, lackingOf, runsByArm } from '../bench/study/conclusion.ts';
import { differenceText, studyPage } from '../bench/study/page.ts';
import { performRun, performTimes } from '../bench/study/perform.ts';
import { fileOf, finishedRuns, performRuns, type SavedRun, seedOf } from '../bench/study/saved.ts';
import { LEAST_SEEDS, verdicts } from '../bench/study/statistics.ts';
import { askStart } from '../bench/tabletop/seeing-sets.ts';
import { TabletopWorld } from '../bench/tabletop/world.ts';
import { counted } from '../engine/files/errors.ts';
import { ensureFolder, writeFileSafely } from '../engine/files/files.ts';
import { nearest } from '../engine/files/nearest.ts';
import { InputError, quote } from '../engine/index.ts';
import { openTunedDevice } from '../kernels/tuning.ts';
import { pretrainedNames } from '../model/pretrained/index.ts';
import { presetNamed } from '../model/training/presets.ts';
import { unlessAborted } from '../model/training/run-record.ts';
import type { RunSettings } from '../model/training/run-settings.ts';
import { openStart } from '../model/training/start.ts';
import type { VisionLanguageFile } from '../model/training/vision-language-file.ts';
import { type Context, command, type Result } from './command.ts';
import { commandLine, installed } from './command-line.ts';
import { chooseDataset, coTrainingOf, readParaphrasing } from './data.ts';
import { deviceOptions, WORK_FOLDER } from './device.ts';
import { choice, flag, number, outputFolder, seedNumber, texts, type ValuesOf } from './options.ts';

const studyOptions = {
  all: flag('all claims, seed by seed: every arm has its first seed before any has its second'),
  seeds: number(`seeds of an arm, which decide; ${LEAST_SEEDS} by default`, 1, { to: 1000 }),
  'first-seed': seedNumber('the first of the seeds, which decide; that of the claim by default, 0 or 3'),
  runs: number('the most runs to perform now; a later call performs the others'),
  only: texts('arms to run; all of the claims by default'),
  report: flag('performs no run: verdicts and page are computed again from the runs that are there', {
    excludes: ['runs', 'overwrite', 'lacking'],
  }),
  lacking: flag('also performs runs again that an earlier version measured less than the claims need'),
  scenes: number('unseen scenes in which the policy of a run acts; 100 by default', 1),
  steps: number("training steps of a run, for a trial; the arm's own by default", 1),
  preset: choice(
    'tiny (default) or small: the sizes, and the vision-language model that runs begin from',
    pretrainedNames,
  ),
  out: outputFolder('folder of runs and page; by default bench/results/study, in a package .insula/study'),
  overwrite: flag('performs runs again that are in the folder with other settings, or damaged'),
  ...deviceOptions,
};
type Values = ValuesOf<typeof studyOptions>;

export const study = command({
  options: studyOptions,
  names: 'NAME ... of claims; without it they are listed with their verdicts',
  interruptible: true,
  notes: [
    'A finished run is a JSON file in the folder, shared by all claims, and is not performed again; an interrupt loses the run in progress, and the same command goes on. index.html has all claims with their verdicts, which are computed from these files by one rule.',
  ],
  run: (values: Values, context) => runStudy(values, context),
});

async function runStudy(values: Values, context: Context): Promise<Result> {
  const { names, progress, signal, words } = context;
  const { all, only, report, runs: most = Infinity, scenes = 100, steps, preset: presetName = 'tiny' } = values;
  const known = claims.map(({ name }) => name);
  const unknown = names.find((name) => !known.includes(name));
  if (unknown !== undefined)
    throw new InputError(`study: there is no claim ${quote(unknown)}; ${nearest(unknown, known)}`);
  const chosen = claims.filter(({ name }) => all || names.includes(name));
  const armNames = [...trainedArms, ...timedArms].map(({ name }) => name);
  const other = only?.find((name) => !armNames.includes(name));
  if (other !== undefined)
    throw new InputError(`study: --only: there is no arm ${quote(other)}; ${nearest(other, armNames)}`);
  const compared = new Set(chosen.flatMap(armsOf));
  const beside = chosen.length > 0 ? only?.find((name) => !compared.has(name)) : undefined;
  if (beside !== undefined)
    throw new InputError(
      `study: --only: no test of ${chosen.map(({ name }) => name).join(', ')} has the arm ${beside}`,
    );
  const folder = values.out ?? join(...(installed ? [WORK_FOLDER] : ['bench', 'results']), 'study');
  const runsFolder = join(folder, 'runs');
  const preset = presetNamed(presetName);
  const sizes = { preset, steps, scenes };
  const { seeds: count = LEAST_SEEDS, 'first-seed': first } = values;
  const deciding = (claim: Claim) => seedsOf(claim, { first, count });
  /** The first seed of all claims before the second of any. */
  const runsFor = (own: readonly Claim[]): AnyRun[] => {
    const all = Array.from({ length: count }, (_, turn) =>
      own.flatMap((claim) => runsOf(armsOf(claim), { ...sizes, seeds: [deciding(claim)[turn]] })),
    ).flat();
    return [...new Map(all.map((run) => [fileOf(run), run])).values()];
  };
  const wanted = runsFor(chosen).filter(({ arm }) => only?.includes(arm) ?? true);
  const start = await openStart(presetName);
  try {
    const hash = createHash('sha256')
      .update(await readFile(start.name))
      .digest('hex');
    const present = runsOf(armNames, { ...sizes, seeds: await seedsIn(runsFolder, runsFor(claims)) });
    const files = new Set(wanted.map(fileOf));
    const replaces = (run: AnyRun) => values.overwrite === true && files.has(fileOf(run));
    const finished = await finishedRuns(runsFolder, present, hash, replaces);
    const lacking = () => {
      const byArm = runsByArm(finished.values());
      return [...new Set(claims.flatMap((claim) => lackingOf(claim, byArm, deciding(claim))))];
    };
    const again = values.lacking ? lacking().filter((run) => files.has(fileOf(run))) : [];
    for (const run of again) finished.delete(fileOf(run));
    // A missing library for the page's figures is refused before the runs, not after them.
    await (await import('../model/report/plot.ts')).loadVega();
    const missing = wanted.filter((run) => !finished.has(fileOf(run)));
    const failed =
      !report && most > 0 && missing.length > 0
        ? await perform(wanted, finished, { start, hash, folder: runsFolder, most }, values, context)
        : [];
    // A run that was not performed again is still there.
    for (const run of again) if (!finished.has(fileOf(run))) finished.set(fileOf(run), run);
    const byArm = runsByArm(finished.values());
    const conclusions = claims.map((claim) => conclusionOf(claim, byArm, deciding(claim)));
    const page = chosen.length > 0 || report ? join(folder, 'index.html') : null;
    if (page) {
      await ensureFolder(folder);
      await writeFileSafely(page, [
        await studyPage({
          ...{ command: commandLine(words), conclusions, finished: [...finished.values()] },
          missing: runsFor(claims).filter((run) => !finished.has(fileOf(run))),
          lacking: lacking(),
        }),
      ]);
    }
    const less = lacking().filter((run) => files.has(fileOf(run)));
    const shown = conclusions.filter(({ claim }) => chosen.length === 0 || chosen.includes(claim));
    const lines = [
      ...shown.flatMap((own) => claimLines(own, runsFor([own.claim]), finished, chosen.length > 0)),
      ...failed.map((line) => `failed: ${line}`),
      ...(less.length > 0
        ? [`measured less than the claims need; --lacking performs them again: ${less.map(fileOf).join(', ')}`]
        : []),
      ...(page ? [`page: ${page}`] : []),
    ];
    const json = {
      claims: shown.map(({ claim: { tests, ...claim }, parts: _, ...own }) => ({ ...claim, ...own })),
      ...{ missing: wanted.map(fileOf).filter((file) => !finished.has(file)), failed, page },
    };
    return { json, lines, status: signal.aborted ? 130 : failed.length > 0 ? 1 : 0 };
  } finally {
    await start.close();
    progress.end();
  }
}

/** The seeds of runs, and of the files in a folder. */
async function seedsIn(folder: string, runs: readonly AnyRun[]): Promise<number[]> {
  const files = await readdir(folder).catch(() => []);
  const found = files.flatMap((file) => /-(\d+)\.json$/.exec(file)?.[1] ?? []).map(Number);
  return [...new Set([...runs.map(seedOf), ...found])].sort((a, b) => a - b);
}

interface Kept {
  readonly start: VisionLanguageFile;
  readonly hash: string;
  readonly folder: string;
  readonly most: number;
}

/** Performs the missing ones of `wanted`. Returns a line for each that failed. */
async function perform(
  wanted: readonly AnyRun[],
  finished: Map<string, SavedRun>,
  { start, hash, folder, most }: Kept,
  { adapter, floor, tuning }: Values,
  { progress, signal }: Context,
): Promise<string[]> {
  const note = (line: string) => progress.note(line);
  const { device } = await openTunedDevice({ adapter, floor, tuning }, note);
  let world: TabletopWorld | null = null;
  try {
    note(`study on ${device.description}`);
    const trained = wanted.find((run): run is StudyRun => 'settings' in run);
    const answers =
      trained && (await unlessAborted(signal, () => askStart(device, start, trained.questionScenes, signal)));
    if (signal.aborted) return [];
    const dataset = async (settings: RunSettings) => {
      const { preset, seed, paraphrases } = settings;
      const paraphrased = await readParaphrasing(paraphrases, progress);
      return paraphrased(await chooseDataset(settings, { episodes: preset.demonstrations, seed, signal }, progress));
    };
    const coTraining = async (settings: RunSettings) => {
      world ??= await TabletopWorld.create();
      return coTrainingOf(settings, world);
    };
    const sources = { start, hash, answers: answers!, dataset, coTraining, listener: progress, signal };
    const armOf = (run: AnyRun) => trainedArms.find(({ name }) => name === run.arm)!;
    const one = (run: AnyRun) =>
      'settings' in run ? performRun(device, run, armOf(run), sources) : performTimes(device, run, { signal });
    return await performRuns(wanted, finished, { folder, most, perform: one, signal, note });
  } finally {
    (world as TabletopWorld | null)?.delete();
    device.close();
  }
}

function claimLines(
  { claim, outcomes, verdict }: Conclusion,
  runs: readonly AnyRun[],
  finished: ReadonlyMap<string, SavedRun>,
  withTests: boolean,
): string[] {
  const done = runs.filter((run) => finished.has(fileOf(run))).length;
  const state = runs.length > 0 ? `; ${done} of ${counted(runs.length, 'run')}` : '';
  const testLine = (own: Conclusion['outcomes'][number]) =>
    `  ${testText(own.test)}: ${differenceText(own.test, own.interval)}; ${verdicts[own.verdict]}`;
  return [
    `${claim.number} ${claim.name}: ${claim.says}`,
    `  ${verdict}${state}`,
    ...(withTests ? outcomes.map(testLine) : []),
  ];
}

const testText = ({ arms, measure, scenes, says }: Test) =>
  `${measure}${scenes ? ` (${scenes})` : ''} of ${arms.join(' - ')} ${says}`;
