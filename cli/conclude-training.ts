/** The measurements of `insula train` in the built-in world, between training steps and at the end, with report and summary. */
import { join } from 'node:path';
import { type Evaluation, evaluateClosedLoop } from '../bench/tabletop/evaluation.ts';
import { Film } from '../bench/tabletop/film.ts';
import { tabletopPolicy } from '../bench/tabletop/policy.ts';
import { askStart } from '../bench/tabletop/seeing-sets.ts';
import { writeJson } from '../engine/files/files.ts';
import { InputError } from '../engine/index.ts';
import { evaluationSamples } from '../model/data/index.ts';
import type { KeptAnswers } from '../model/inspect/answers.ts';
import { swappedLosses } from '../model/inspect/swapped.ts';
import type { Policy } from '../model/policy/policy.ts';
import type { ClosedLoopRates } from '../model/training/history.ts';
import type { PreparedRun } from '../model/training/prepare-run.ts';
import type { RunResult } from '../model/training/run.ts';
import { unlessAborted } from '../model/training/run-record.ts';
import type { RunSettings } from '../model/training/run-settings.ts';
import { openStart } from '../model/training/start.ts';
import { commandLine } from './command-line.ts';
import type { Progress } from './progress.ts';
import { scenesOf } from './scenes.ts';
import { summarise, type TrainSummary } from './training-summary.ts';

const CLOSED_LOOP_EPISODES = 50;
/** Episodes of a closed loop between training steps. */
const ACTING_EPISODES = 10;
/** Scenes of the questions about what a policy still knows of its start. */
const KEPT_SCENES = 12;

export interface MeasuredRun {
  readonly folder: { readonly path: string; readonly checkpoint: string };
  readonly settings: RunSettings;
  /** The command as typed. */
  readonly words: readonly string[];
  readonly progress: Progress;
  readonly signal: AbortSignal;
}

/** Runs the closed loop in the built-in world, and writes report and summary. */
export async function concluded(
  run: MeasuredRun,
  { dataset }: PreparedRun,
  result: RunResult,
  dataSeconds: number,
  adapter: string,
): Promise<TrainSummary> {
  const { settings, words, signal } = run;
  const { path, checkpoint } = run.folder;
  const start = performance.now();
  const acting = result.finished && settings.data === null;
  const film = new Film();
  const samples = evaluationSamples(result.split.heldOut, settings.preset.heldOutSteps);
  const swapped = result.finished
    ? await unlessAborted(signal, () => swappedLosses(result.policy, settings, samples, signal))
    : null;
  const kept = acting && swapped ? await unlessAborted(signal, () => keptAnswers(result, run)) : null;
  const closedLoop = acting
    ? await unlessAborted(signal, () => closedLoopOf(result.policy, run, CLOSED_LOOP_EPISODES, film))
    : null;
  const finished = swapped !== null && (!acting || closedLoop !== null);
  const { compile, train, evaluate } = result.seconds;
  const evaluating = evaluate + (performance.now() - start) / 1000;
  const seconds = { data: dataSeconds, compile, train, evaluate: evaluating };
  const summary = summarise({ ...result, finished }, closedLoop, checkpoint, adapter, seconds, { swapped, kept });
  if (finished) {
    summary.report = join(path, 'report.html');
    // The figures' library takes half a second to load.
    const [{ writeReport }, { writeEpisodes }, { reportOf }] = await Promise.all([
      import('../model/report/report.ts'),
      import('../model/report/episodes.ts'),
      import('../model/report/run-report.ts'),
    ]);
    const { scenes, measure } = summary.closedLoop ?? {};
    const films = film.episodes(closedLoop?.episodes ?? []);
    const acted = closedLoop && { ...closedLoop, films, measure: `${scenes}: ${measure}` };
    const report = await reportOf(commandLine(words), result, acted, dataset, adapter, seconds, { swapped, kept });
    await writeReport(summary.report, report);
    await writeEpisodes(join(path, 'episodes'), films);
  }
  await writeJson(join(path, 'summary.json'), summary);
  return summary;
}

/** The questions that a policy's start can answer, asked of the start and of its model with the policy's weights; null without a start. */
async function keptAnswers(
  { policy: { model } }: RunResult,
  { settings: { from }, progress, signal }: MeasuredRun,
): Promise<KeptAnswers | null> {
  if (from === null) return null;
  // A resumed run has its weights from the checkpoint, and the file may be gone.
  const start = await openStart(from).catch((error) => {
    if (!(error instanceof InputError)) throw error;
    progress.note(`questions of the start are not asked: ${error.message}`);
  });
  if (!start) return null;
  try {
    const before = await askStart(model.device, start, KEPT_SCENES, signal);
    const after = await askStart(model.device, start, KEPT_SCENES, signal, model);
    return before && after && { scenes: KEPT_SCENES, before, after };
  } finally {
    await start.close();
  }
}

/** The rates of a few episodes, between training steps. */
export async function actingRates(policy: Policy, run: MeasuredRun): Promise<ClosedLoopRates> {
  const { episodes, decodes: _, ...rates } = await closedLoopOf(policy, run, ACTING_EPISODES);
  return { ...rates, episodes: episodes.length };
}

function closedLoopOf(
  policy: Policy,
  { settings, progress, signal }: MeasuredRun,
  episodes: number,
  film?: Film,
): Promise<Evaluation> {
  return evaluateClosedLoop(tabletopPolicy(policy, 0, film?.onSaid), {
    ...{ film, episodes },
    seed: settings.seed,
    scenes: scenesOf(settings),
    onProgress: (done, total) => progress.closedLoop(done, total),
    signal,
  });
}
