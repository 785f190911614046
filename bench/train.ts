/** The main job: train a system on the built-in world or on a data set, measure it, and write checkpoint and report. */
import { basename, join, resolve } from 'node:path';
import { writeFileSafely } from '../engine/files.ts';
import { InputError, quote } from '../engine/index.ts';
import { openPath } from '../engine/paths.ts';
import type { Dataset } from '../model/data/dataset.ts';
import {
  mixRobots,
  openDataset,
  ownSlotMap,
  readParaphrases,
  slotMapNamed,
  withParaphrases,
} from '../model/data/index.ts';
import { OPEN_LOOP_MEASURE } from '../model/training/open-loop.ts';
import { type RunResult, runTraining, unlessAborted } from '../model/training/run.ts';
import type { Progress } from './progress.ts';
import { reportOf } from './report.ts';
import { type RunFolder, runFolder } from './run-folder.ts';
import { demonstrations } from './tabletop/demonstrations.ts';
import { CLOSED_LOOP_MEASURE, type Evaluation, evaluateClosedLoop } from './tabletop/evaluation.ts';
import { tabletopPolicy } from './tabletop/policy.ts';
import { worldCoTraining } from './tabletop/questions.ts';
import { TabletopWorld } from './tabletop/world.ts';
import {
  checkResumed,
  chosen,
  type DataOptions,
  givenEncoding,
  TABLETOP,
  type TrainOptions,
  withoutUnused,
} from './train-options.ts';
import { openTunedDevice } from './tuning.ts';

/** Everything a run leaves lies in here, below the folder it was started in. */
export const WORK_FOLDER = '.insula';
const CLOSED_LOOP_EPISODES = 20;

export interface TrainSummary {
  finished: boolean;
  step: number;
  checkpoint: string;
  report: string | null;
  adapter: string;
  heldOut: { tokenLoss?: number; flowLoss?: number; answerLoss?: number } | null;
  /** Held-out loss divided by that of the predictor that looks at nothing. */
  ratios: { tokenToUnigram?: number; flowToConstantVelocity?: number };
  openLoop: { measure: string; oneSampleToConstant: number; meanOfEightToConstant: number } | null;
  closedLoop: ClosedLoopSummary | null;
  seconds: Record<string, number>;
}

export interface ClosedLoopSummary {
  measure: string;
  /** Shares of the episodes. */
  success: number;
  rightObject: number;
  episodes: number;
}

export const closedLoopSummary = ({ success, rightObject, episodes }: Evaluation): ClosedLoopSummary => ({
  measure: CLOSED_LOOP_MEASURE,
  success,
  rightObject,
  episodes: episodes.length,
});

/**
 * The data set that options name: the built-in world's demonstrations, or one read from a folder or file. Of several
 * in a folder `usual` is read where none is named; frames of videos have at most `frameSize` pixels on a side.
 */
export async function chooseDataset(
  options: DataOptions,
  {
    episodes,
    seed,
    signal,
    ...reading
  }: {
    episodes: number;
    seed: number;
    signal?: AbortSignal;
    usual?: string;
    frameSize?: number;
    /** Bytes of actions and states to hold in memory; a larger data set's episodes are loaded one by one. */
    memory?: number;
  },
  progress: Progress,
): Promise<Dataset> {
  const { data, dataset: name, cameras, rate } = options;
  if (data !== undefined) {
    const hertz = rate === undefined ? undefined : Number(rate);
    if (hertz !== undefined && !(hertz > 0 && Number.isFinite(hertz)))
      throw new InputError(`--rate ${rate}: expected control steps a second, a number above 0`);
    const chosen = cameras === 'none' ? [] : cameras?.split(',').map((camera) => camera.trim());
    const dataset = await openDataset(data, name, { ...reading, cameras: chosen, rate: hertz });
    if (dataset.description) progress.note(`${dataset.name}: ${dataset.description}`);
    return dataset;
  }
  if (options.dataset !== undefined && options.dataset !== TABLETOP)
    throw new InputError(
      `--dataset ${options.dataset}: say where it lies with --data FOLDER; without it there is only '${TABLETOP}'`,
    );
  return demonstrations({
    episodes,
    seed,
    cacheFolder: join(WORK_FOLDER, 'cache'),
    onProgress: (done, total) => progress.count('demonstrations: episode', done, total),
    signal,
  });
}

const listed = (text: string | undefined) => text?.split(',').map((part) => part.trim()) ?? [];

/** As `chooseDataset`; several data sets are a mixture of robots, and so is one whose robot is named. */
export async function chooseData(
  options: DataOptions,
  reading: Parameters<typeof chooseDataset>[1],
  progress: Progress,
): Promise<Dataset> {
  const [folders, robots] = [listed(options.data), listed(options.robot)];
  const usual = reading.usual?.includes(',') ? reading.usual : undefined;
  const names = listed(options.dataset ?? usual);
  const count = Math.max(folders.length, names.length);
  if (folders.length === 0 && robots.length > 0)
    throw new InputError('--robot: say where its data lie with --data FOLDER');
  if (folders.length === 0 || (count === 1 && robots.length === 0)) return chooseDataset(options, reading, progress);
  for (const [option, { length }] of [
    ['data', folders],
    ['dataset', names],
    ['robot', robots],
  ] as const)
    if (length > 1 && length !== count) throw new InputError(`--${option}: ${length} for ${count} data sets`);
  const datasets = [];
  for (let i = 0; i < count; i++) {
    const own = { ...options, data: folders[i] ?? folders[0], dataset: names[i] ?? names[0] };
    datasets.push(await chooseDataset(own, reading, progress));
  }
  const maps = datasets.map((dataset, i) =>
    robots.length > 0 ? slotMapNamed(robots[i] ?? robots[0]) : ownSlotMap(dataset),
  );
  const width = Math.max(...maps.map((map) => map.width));
  return mixRobots(datasets.map((dataset, i) => ({ dataset, slots: { ...maps[i], width } })));
}

/** The data set with the paraphrases of a file. @throws InputError where none of them is of one of its instructions */
export async function reworded(dataset: Dataset, path: string | undefined, progress: Progress): Promise<Dataset> {
  if (path === undefined) return dataset;
  const paraphrases = await readParaphrases(await openPath(path));
  const known = new Set(dataset.episodes.flatMap(({ instructions }) => instructions));
  const used = [...paraphrases.keys()].filter((text) => known.has(text)).length;
  if (used === 0) {
    const such = known.size > 0 ? `, such as ${quote([...known][0])}` : ': it has none';
    throw new InputError(`${path}: it has no wordings for any instruction of "${dataset.name}"${such}`);
  }
  progress.note(`${path}: other wordings for ${used} of ${known.size} instructions`);
  return withParaphrases(dataset, paraphrases);
}

/**
 * @throws InputError where an option, the data or the checkpoint to resume is wrong, and what `signal` is aborted with where that is
 * before the first step; a folder made for the run goes again
 */
export async function train(options: TrainOptions, progress: Progress, signal: AbortSignal): Promise<TrainSummary> {
  const { system, preset } = chosen(options);
  const named =
    options.dataset ??
    (options.data === undefined
      ? TABLETOP
      : listed(options.data)
          .map((own) => basename(resolve(own)))
          .join(','));
  const usual = join(WORK_FOLDER, `${named}-${system.name}-${preset.name}`);
  const { out, resume, overwrite } = options;
  const folder = await runFolder({ out, usual, resume, overwrite }, (line) => progress.note(line));
  try {
    if (folder.resume) checkResumed(folder.resume, folder.checkpoint, options);
    return await trainIn(folder, options, progress, signal);
  } finally {
    await folder.resume?.close();
    await folder.leave();
  }
}

async function trainIn(
  { path, checkpoint, resume }: RunFolder,
  options: TrainOptions,
  progress: Progress,
  signal: AbortSignal,
): Promise<TrainSummary> {
  const { system, preset, seed, batch, share, moments } = chosen(options, resume?.settings);
  const given = await givenEncoding(options);
  const { device } = await openTunedDevice(options, (line) => progress.note(line));
  const world = share > 0 ? await TabletopWorld.create() : null;
  try {
    const begin = performance.now();
    const source = { episodes: preset.demonstrations, seed, signal, frameSize: preset.vision.image };
    const chosenData = await chooseData(withoutUnused(options, resume?.settings), source, progress);
    const dataset = await reworded(chosenData, options.paraphrases, progress);
    const dataSeconds = (performance.now() - begin) / 1000;
    progress.note(`${system.name}, preset ${preset.name}, on ${device.description}`);
    const steps = options.steps ?? resume?.progress.steps ?? preset.steps;
    if (resume) progress.note(`${checkpoint}: going on from step ${resume.progress.step} of ${steps}`);
    const result = await runTraining({
      device,
      dataset,
      system,
      preset,
      seed,
      steps,
      batch,
      accumulate: options.accumulate,
      recompute: options.recompute,
      moments,
      augment: options.augment,
      coTraining: world ? worldCoTraining(world, seed, share) : undefined,
      ...given,
      horizon: options.horizon,
      checkpointPath: checkpoint,
      resume,
      signal,
      listener: progress,
    });
    const closed = performance.now();
    const acting = result.finished && dataset.name === TABLETOP;
    const closedLoop = acting ? await unlessAborted(signal, () => closedLoopOf(result, seed, progress, signal)) : null;
    const finished = result.finished && (!acting || closedLoop !== null);
    const closedSeconds = (performance.now() - closed) / 1000;
    const { compile, train, evaluate } = result.seconds;
    const seconds = { data: dataSeconds, compile, train, evaluate: evaluate + closedSeconds };
    const summary = summarise({ ...result, finished }, closedLoop, checkpoint, device.description, seconds);
    if (finished) {
      summary.report = join(path, 'report.html');
      // The figures' library takes half a second to load, which other commands need not wait for.
      const { writeReport } = await import('../model/inspect/report.ts');
      await writeReport(
        summary.report,
        await reportOf(options.command, result, closedLoop, dataset, device.description, seconds),
      );
    }
    await writeFileSafely(join(path, 'summary.json'), [`${JSON.stringify(summary, null, 2)}\n`]);
    result.policy.model.dispose();
    return summary;
  } finally {
    world?.delete();
    device.close();
  }
}

function closedLoopOf(
  { policy }: RunResult,
  seed: number,
  progress: Progress,
  signal: AbortSignal,
): Promise<Evaluation> {
  return evaluateClosedLoop(tabletopPolicy(policy), {
    episodes: CLOSED_LOOP_EPISODES,
    seed,
    onProgress: (done, total) => progress.closedLoop(done, total),
    signal,
  });
}

function summarise(
  { finished, step, history, openLoop }: RunResult,
  closedLoop: Evaluation | null,
  checkpoint: string,
  adapter: string,
  seconds: Record<string, number>,
): TrainSummary {
  const last = history.heldOut.at(-1);
  const { unigram, constantVelocity } = history.baselines;
  const ratio = (loss?: number, baseline?: number) =>
    loss === undefined || baseline === undefined ? undefined : loss / baseline;
  const error = openLoop?.error;
  return {
    finished,
    step,
    checkpoint,
    report: null,
    adapter,
    heldOut: last ? { tokenLoss: last.tokenLoss, flowLoss: last.flowLoss, answerLoss: last.answerLoss } : null,
    ratios: {
      tokenToUnigram: ratio(last?.tokenLoss, unigram),
      flowToConstantVelocity: ratio(last?.flowLoss, constantVelocity),
    },
    openLoop: error
      ? {
          measure: OPEN_LOOP_MEASURE,
          oneSampleToConstant: error.oneSample / error.bestConstant,
          meanOfEightToConstant: error.meanOfSeveral / error.bestConstant,
        }
      : null,
    closedLoop: closedLoop && closedLoopSummary(closedLoop),
    seconds,
  };
}
