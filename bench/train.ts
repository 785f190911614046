/** The main job: train a system on the built-in world or on a data set, measure it, and write checkpoint and report. */
import { mkdir, rmdir } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { fileError, writeFileSafely } from '../engine/files.ts';
import { InputError } from '../engine/index.ts';
import type { Dataset } from '../model/data/dataset.ts';
import { openDataset } from '../model/data/index.ts';
import { systemNamed } from '../model/systems/index.ts';
import { type Checkpoint, type CheckpointSettings, openCheckpoint } from '../model/training/checkpoint.ts';
import { OPEN_LOOP_MEASURE } from '../model/training/open-loop.ts';
import { presetNamed } from '../model/training/presets.ts';
import { type RunResult, runTraining } from '../model/training/run.ts';
import type { Progress } from './progress.ts';
import { reportOf } from './report.ts';
import { demonstrations } from './tabletop/demonstrations.ts';
import { type Evaluation, evaluateClosedLoop } from './tabletop/evaluation.ts';
import { tabletopPolicy } from './tabletop/policy.ts';
import { openTunedDevice } from './tuning.ts';

export const TABLETOP = 'tabletop';
/** Everything a run leaves lies in here, below the folder it was started in. */
export const WORK_FOLDER = '.insula';
const CLOSED_LOOP_EPISODES = 20;

export interface TrainOptions {
  system?: string;
  preset?: string;
  /** Folder of a data set; the built-in world without. */
  data?: string;
  dataset?: string;
  steps?: number;
  batch?: number;
  horizon?: number;
  seed?: number;
  out?: string;
  resume?: boolean;
  adapter?: string;
  floor?: boolean;
  /** A tuning file in place of the one kept for the adapter. */
  tuning?: string;
  /** As typed, for the report. */
  command: string;
}

export interface TrainSummary {
  finished: boolean;
  step: number;
  checkpoint: string;
  report: string | null;
  adapter: string;
  heldOut: { tokenLoss?: number; flowLoss?: number } | null;
  /** Held-out loss divided by that of the predictor that looks at nothing. */
  ratios: { tokenToUnigram?: number; flowToConstantVelocity?: number };
  openLoop: { measure: string; oneSampleToConstant: number; meanOfEightToConstant: number } | null;
  closedLoop: { success: number; rightObject: number; episodes: number } | null;
  seconds: Record<string, number>;
}

/** The data set that options name: the built-in world's demonstrations, or one read from a folder. */
export async function chooseDataset(
  options: { data?: string; dataset?: string },
  { episodes, seed }: { episodes: number; seed: number },
  progress: Progress,
): Promise<Dataset> {
  if (options.data !== undefined) {
    if (options.dataset === undefined)
      throw new InputError(`--data ${options.data}: which set? Name one with --dataset`);
    return openDataset(options.data, options.dataset);
  }
  if (options.dataset !== undefined && options.dataset !== TABLETOP)
    throw new InputError(
      `--dataset ${options.dataset}: say where it lies with --data FOLDER; without it there is only '${TABLETOP}'`,
    );
  return demonstrations({
    episodes,
    seed,
    cacheFolder: join(WORK_FOLDER, 'cache'),
    onProgress: (done, total) => progress.count('demonstrations', done, total),
  });
}

/** @throws InputError where an option, the data or the checkpoint to resume is wrong; a folder made for the run goes again */
export async function train(options: TrainOptions, progress: Progress, signal: AbortSignal): Promise<TrainSummary> {
  const { system, preset } = chosen(options);
  const out = options.out ?? join(WORK_FOLDER, `${options.dataset ?? TABLETOP}-${system.name}-${preset.name}`);
  const resume = options.resume ? await openCheckpoint(checkpointIn(out)) : undefined;
  const removeEmpty = resume ? undefined : await makeFolder(out);
  try {
    if (resume) checkResumed(resume, checkpointIn(out), options);
    return await trainIn(out, options, resume, progress, signal);
  } catch (error) {
    await removeEmpty?.();
    throw error;
  } finally {
    await resume?.close();
  }
}

/** What a run goes on with, or what the options say. */
function chosen(options: TrainOptions, settings?: CheckpointSettings) {
  const preset = presetNamed(settings?.preset ?? options.preset ?? 'tiny');
  return {
    system: systemNamed(settings?.system ?? options.system ?? 'knowledge-insulation'),
    preset,
    seed: settings?.seed ?? options.seed ?? 0,
    batch: settings?.batch ?? options.batch ?? preset.batch,
  };
}

const checkpointIn = (folder: string) => join(folder, 'checkpoint.safetensors');

/** Makes a folder and those above it; the function it returns removes those that were made and are still empty. */
async function makeFolder(path: string): Promise<() => Promise<void>> {
  const first = await mkdir(path, { recursive: true }).catch((error) => {
    throw fileError(error, `--out ${path}`, 'make this folder');
  });
  return async () => {
    let folder = resolve(path);
    while (first !== undefined && folder.startsWith(resolve(first))) {
      const removed = await rmdir(folder).then(
        () => true,
        () => false,
      );
      if (!removed) return;
      folder = dirname(folder);
    }
  };
}

async function trainIn(
  out: string,
  options: TrainOptions,
  resume: Checkpoint | undefined,
  progress: Progress,
  signal: AbortSignal,
): Promise<TrainSummary> {
  const { system, preset, seed, batch } = chosen(options, resume?.settings);
  const { device } = await openTunedDevice(options, (line) => progress.note(line));
  try {
    const begin = performance.now();
    const dataset = await chooseDataset(options, { episodes: preset.demonstrations, seed }, progress);
    const dataSeconds = (performance.now() - begin) / 1000;
    progress.note(`${system.name}, preset ${preset.name}, on ${device.description}`);
    const checkpointPath = checkpointIn(out);
    const result = await runTraining({
      device,
      dataset,
      system,
      preset,
      seed,
      steps: options.steps ?? resume?.progress.steps ?? preset.steps,
      batch,
      horizon: options.horizon,
      checkpointPath,
      resume,
      signal,
      listener: progress,
    });
    const closed = performance.now();
    const closedLoop = result.finished && dataset.name === TABLETOP ? await closedLoopOf(result, seed, progress) : null;
    const closedSeconds = (performance.now() - closed) / 1000;
    const { compile, train, evaluate } = result.seconds;
    const seconds = { data: dataSeconds, compile, train, evaluate: evaluate + closedSeconds };
    const summary = summarise(result, closedLoop, checkpointPath, device.description, seconds);
    if (result.finished) {
      summary.report = join(out, 'report.html');
      // The figures' library takes half a second to load, which other commands need not wait for.
      const { writeReport } = await import('../model/inspect/report.ts');
      await writeReport(
        summary.report,
        await reportOf(options.command, result, closedLoop, dataset, device.description, seconds),
      );
    }
    await writeFileSafely(join(out, 'summary.json'), [`${JSON.stringify(summary, null, 2)}\n`]);
    result.policy.model.dispose();
    return summary;
  } finally {
    device.close();
  }
}

/** A run goes on with what it was begun with. */
function checkResumed({ settings, progress }: Checkpoint, path: string, options: TrainOptions): void {
  const differs = (name: string, given: string | number | undefined, kept: string | number) => {
    if (given !== undefined && given !== kept)
      throw new InputError(
        `--${name} ${given}: the run in ${path} was begun with ${kept}; leave it out, or begin anew elsewhere with --out`,
      );
  };
  differs('system', options.system, settings.system);
  differs('preset', options.preset, settings.preset);
  differs('seed', options.seed, settings.seed);
  differs('batch', options.batch, settings.batch);
  differs('horizon', options.horizon, settings.configuration.horizon);
  differs('dataset', options.dataset ?? TABLETOP, settings.dataset);
  const steps = options.steps ?? progress.steps;
  if (steps < progress.step)
    throw new InputError(`--steps ${steps}: the run in ${path} has done ${progress.step} already`);
}

function closedLoopOf({ policy }: RunResult, seed: number, progress: Progress): Promise<Evaluation> {
  return evaluateClosedLoop(tabletopPolicy(policy), {
    episodes: CLOSED_LOOP_EPISODES,
    seed,
    onProgress: (done, total) => progress.count('closed loop', done, total),
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
    heldOut: last ? { tokenLoss: last.tokenLoss, flowLoss: last.flowLoss } : null,
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
    closedLoop: closedLoop && {
      success: closedLoop.success,
      rightObject: closedLoop.rightObject,
      episodes: closedLoop.episodes.length,
    },
    seconds,
  };
}
