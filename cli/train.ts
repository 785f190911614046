/** `insula train`: trains a system on the built-in world or on a data set, measures it, and writes checkpoint and report. */
import { basename, join, resolve } from 'node:path';
import { TabletopWorld } from '../bench/tabletop/world.ts';
import { counted } from '../engine/files/errors.ts';
import { InputError } from '../engine/index.ts';
import { expectDevice, openTunedDevice } from '../kernels/tuning.ts';
import { padded } from '../model/data/index.ts';
import { isLarge } from '../model/training/memory-plan.ts';
import { expectRules, parametersOf } from '../model/training/parameter-rules.ts';
import { type PreparedRun, prepareRun } from '../model/training/prepare-run.ts';
import { withoutLacking } from '../model/training/recommended.ts';
import { expectToFit, runTraining } from '../model/training/run.ts';
import { expectTokens, type RunSettings, systemOf } from '../model/training/run-settings.ts';
import { expectPresetSizes, openStart, type Start } from '../model/training/start.ts';
import { EventFile } from '../model/training/tensorboard.ts';
import { command, type Result } from './command.ts';
import { commandLine } from './command-line.ts';
import { actingRates, concluded, type MeasuredRun } from './conclude-training.ts';
import { chooseData, coTrainingOf, readParaphrasing, TABLETOP } from './data.ts';
import { deviceOptions, memoryFor, memoryOption, WORK_FOLDER } from './device.ts';
import { givenEncoding } from './given-encoding.ts';
import { trainingNotes } from './notes.ts';
import { flag, outputFolder } from './options.ts';
import { PLANNED_DEMONSTRATIONS, type PlanSummary, plannedFrom, planOf, planOption } from './plan.ts';
import { Progress } from './progress.ts';
import { publicOptions, publicStart } from './published.ts';
import { type RunFolder, resumedSettings, runFolder } from './run-folder.ts';
import { givenSettings, runOptions, settingsOfRun } from './run-options.ts';
import { trainLines } from './text.ts';
import type { TrainSummary } from './training-summary.ts';

export const train = command({
  options: {
    ...runOptions,
    out: outputFolder('folder for checkpoint and report; a new one in .insula by default'),
    resume: flag('resumes the run in --out, or the last run without --out'),
    overwrite: flag('replaces the run in --out, or the last run without --out', { excludes: 'resume' }),
    ...publicOptions('from'),
    plan: planOption,
    memory: memoryOption,
    ...deviceOptions,
  },
  interruptible: true,
  notes: trainingNotes,
  async run(
    {
      out,
      resume,
      overwrite,
      plan,
      memory,
      adapter,
      floor,
      tuning,
      'text-tokenizer': textTokenizer,
      partial,
      ...values
    },
    { progress, signal, words },
  ): Promise<TrainResult> {
    const named = givenSettings(values);
    const start = resume ? undefined : await publicStart(named.from, { textTokenizer, partial, preset: named.preset });
    const given = { ...named, ...(start && { preset: start.preset }) };
    try {
      const folder = await runFolder({ out, usual: usualFolder(settingsOfRun(given)), resume, overwrite }, (line) =>
        progress.note(line),
      );
      try {
        const settings = settingsOf(given, folder);
        const device = { adapter, floor, tuning };
        return await trainIn({ folder, start, given, settings, device, plan, memory, words, progress, signal });
      } finally {
        await folder.resume?.close();
        await folder.leave();
      }
    } finally {
      await start?.close();
    }
  },
});

function usualFolder({ data, dataset, system, preset, task, variation }: RunSettings): string {
  const world = [TABLETOP, ...[task, variation].filter((word) => word !== null)].join('-');
  const named = dataset ?? data?.map((own) => basename(resolve(own))) ?? [world];
  return join(WORK_FOLDER, `${named.join(',')}-${system}-${preset.name}`);
}

/** The settings of a new run, or of a resumed one with more steps or moved data. */
function settingsOf(given: Partial<RunSettings>, folder: RunFolder): RunSettings {
  const settings = folder.resume ? resumedSettings('train', given, folder) : settingsOfRun(given);
  const { actEvery, steps } = settings;
  if (actEvery !== null && actEvery > steps)
    throw new InputError(`--act-every ${actEvery}: the run has ${counted(steps, 'step')}; give fewer, or leave it out`);
  expectTokens(settings);
  systemOf(settings);
  // The data may have less: they are checked once they are open.
  expectRules(settings, { images: true, state: true });
  if (settings.questions !== null && settings.cotrain === 0)
    throw new InputError(
      `--questions: ${settings.system} is trained without questions; give --cotrain, or leave it out`,
    );
  return settings;
}

interface Run extends MeasuredRun {
  readonly folder: RunFolder;
  /** The published policy that the run begins from. */
  readonly start?: Awaited<ReturnType<typeof publicStart>>;
  readonly given: Partial<RunSettings>;
  readonly device: { readonly adapter?: string; readonly floor?: boolean; readonly tuning?: string };
  readonly plan?: boolean;
  readonly memory?: number;
}

type TrainResult = Result<TrainSummary | PlanSummary>;

async function trainIn(run: Run): Promise<TrainResult> {
  const { settings, progress, signal, words } = run;
  const opens = !run.folder.resume && settings.from !== null;
  const from = run.start ?? (opens ? await openStart(settings.from!) : undefined);
  let world: TabletopWorld | null = null;
  const openWorld = async () => {
    world ??= await TabletopWorld.create();
    return world;
  };
  try {
    if (from) expectPresetSizes(from, settings.preset);
    const begin = performance.now();
    // Demonstrations of the built-in world take a while, and nothing about them can be refused.
    if (!settings.data) await expectDevice(run.device);
    const { demonstrations } = settings.preset;
    const isMade = settings.data === null && !run.folder.resume;
    const fewSuffice = isMade && demonstrations > PLANNED_DEMONSTRATIONS;
    if (fewSuffice && run.plan) progress.note(plannedFrom(PLANNED_DEMONSTRATIONS, 'demonstrations'));
    else if (fewSuffice && (run.memory !== undefined || isLarge(parametersOf(settings, { images: true, state: true }))))
      await expectFewToFit(run, from, openWorld);
    const episodes = fewSuffice && run.plan ? PLANNED_DEMONSTRATIONS : demonstrations;
    const prepared = await prepare(run, from, openWorld, episodes);
    const dataSeconds = (performance.now() - begin) / 1000;
    // A missing library for the report's figures is refused before the training, not after it.
    await (await import('../model/report/plot.ts')).loadVega();
    const { device } = await openTunedDevice(run.device, (line) => progress.note(line));
    try {
      progress.note(`${settings.system}, preset ${settings.preset.name}, on ${device.description}`);
      const memory = memoryFor(device, run.memory);
      if (run.plan) return await planOf(device, prepared, memory);
      const { checkpoint, resume } = run.folder;
      if (resume) progress.note(`${resume.path}: resuming from step ${resume.progress.step} of ${settings.steps}`);
      const events = new EventFile(run.folder.path, settings, resume?.progress);
      const finished = { ...run, settings: prepared.settings };
      let summary: TrainSummary | undefined;
      const { policy } = await runTraining(device, prepared, {
        ...{ checkpointPath: checkpoint, signal, memory },
        onHistory: (history) => events.write(history),
        closedLoop: settings.data === null ? (policy) => actingRates(policy, run) : undefined,
        onResult: async (result) => {
          summary = await concluded(finished, prepared, result, dataSeconds, device.description);
        },
      });
      policy.model.dispose();
      const again = words.filter((word) => word !== '--resume' && word !== '--overwrite');
      const lines = trainLines(summary!, prepared.objectives, commandLine([...again, '--resume']));
      return { json: summary!, lines, status: summary!.finished ? 0 : 130 };
    } finally {
      device.close();
    }
  } finally {
    (world as TabletopWorld | null)?.delete();
    await from?.close();
  }
}

/** Reads and checks settings and data, before an adapter is opened. */
async function prepare(
  { folder: { resume }, start, given: options, settings: wanted, progress, signal }: Run,
  from: Start | undefined,
  openWorld: () => Promise<TabletopWorld>,
  episodes: number,
): Promise<PreparedRun> {
  const { preset, seed, questions } = wanted;
  const given = resume ? undefined : await givenEncoding(wanted);
  const paraphrased = await readParaphrasing(wanted.paraphrases, progress);
  const source = { episodes, seed, signal, frameSize: preset.vision.image };
  const chosen = paraphrased(await chooseData(wanted, source, progress));
  // A published policy has more dimensions than most robots.
  const width = resume?.settings.encoding.robots
    ? resume.settings.configuration.actionDimension
    : start?.actionDimension;
  const dataset = width ? padded(chosen, width, wanted.from ?? 'the run') : chosen;
  const { settings, notes } = resume ? { settings: wanted, notes: [] } : withoutLacking(wanted, options, dataset);
  for (const line of notes) progress.note(line);
  if (settings.subtask === 'places' && options.subtask === undefined && !resume)
    progress.note(
      `${settings.system} also says places before it acts, beyond its paper; --subtask none leaves them out`,
    );
  const asked = settings.cotrain > 0;
  if (asked && questions === null && settings.data)
    progress.note('the questions are about the built-in world; --questions gives others, --cotrain 0 leaves them out');
  const coTraining = asked ? await coTrainingOf(settings, questions === null ? await openWorld() : null) : undefined;
  return prepareRun({ settings, dataset, coTraining, given: given?.(dataset), resume, from, listener: progress });
}

/** Refuses a run that does not fit before all demonstrations are made. */
async function expectFewToFit(run: Run, ...given: [Start | undefined, () => Promise<TabletopWorld>]) {
  const quiet = Object.assign(new Progress(), { note() {}, count() {} });
  const few = await prepare({ ...run, progress: quiet }, ...given, PLANNED_DEMONSTRATIONS);
  const { device } = await openTunedDevice(run.device, () => {});
  try {
    await expectToFit(device, few, { memory: memoryFor(device, run.memory) });
  } finally {
    device.close();
  }
}
