/** The main job: train a system on the built-in world or on a data set, measure it, and write checkpoint and report. */
import { basename, join, resolve } from 'node:path';
import { openTunedDevice } from '../bench/measure/tuning.ts';
import { CLOSED_LOOP_MEASURE, type Evaluation, evaluateClosedLoop } from '../bench/tabletop/evaluation.ts';
import { tabletopPolicy } from '../bench/tabletop/policy.ts';
import { TabletopWorld } from '../bench/tabletop/world.ts';
import { writeFileSafely } from '../engine/files/files.ts';
import { reportOf } from '../model/report/run-report.ts';
import { OPEN_LOOP_MEASURE } from '../model/training/open-loop.ts';
import { type RunResult, runTraining, unlessAborted } from '../model/training/run.ts';
import { chooseData, coTrainingOf, listed, reworded } from './choose-data.ts';
import type { Progress } from './progress.ts';
import { type RunFolder, runFolder } from './run-folder.ts';
import {
  checkResumed,
  chosen,
  givenEncoding,
  TABLETOP,
  type TrainOptions,
  WORK_FOLDER,
  withoutUnused,
} from './train-options.ts';

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
  /** Of the held-out questions of co-training: answered word for word. */
  answers: { asked: number; right: number } | null;
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
  const encodingFor = await givenEncoding(options);
  const { device } = await openTunedDevice(options, (line) => progress.note(line));
  const { questions } = options;
  const world = share > 0 && questions === undefined ? await TabletopWorld.create() : null;
  try {
    const begin = performance.now();
    const source = { episodes: preset.demonstrations, seed, signal, frameSize: preset.vision.image };
    const chosenData = await chooseData(withoutUnused(options, resume?.settings), source, progress);
    const dataset = await reworded(chosenData, options.paraphrases, progress);
    const encoding = encodingFor(dataset);
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
      coTraining: await coTrainingOf(share, seed, questions, world),
      ...encoding,
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
      const { writeReport } = await import('../model/report/report.ts');
      await writeReport(
        summary.report,
        await reportOf(
          options.command,
          result,
          closedLoop && { ...closedLoop, measure: CLOSED_LOOP_MEASURE },
          dataset,
          device.description,
          seconds,
        ),
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
  { finished, step, history, openLoop, answers }: RunResult,
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
    answers: answers && { asked: answers.length, right: answers.filter(({ answer, said }) => answer === said).length },
    closedLoop: closedLoop && closedLoopSummary(closedLoop),
    seconds,
  };
}
