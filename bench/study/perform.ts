/** One run of a study on an adapter: training, closed loop, and the questions that the start could answer. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as v from 'valibot';
import type { Device } from '../../engine/index.ts';
import type { Dataset } from '../../model/data/dataset.ts';
import type { StartAnswers } from '../../model/inspect/answers.ts';
import { prepareRun, type RunListener } from '../../model/training/prepare-run.ts';
import { type RunResult, runTraining } from '../../model/training/run.ts';
import type { RunSettings } from '../../model/training/run-settings.ts';
import type { VisionLanguageFile } from '../../model/training/vision-language-file.ts';
import { provenance } from '../measure/provenance.ts';
import { type Evaluation, evaluateClosedLoop } from '../tabletop/evaluation.ts';
import { tabletopPolicy } from '../tabletop/policy.ts';
import type { SceneSettings } from '../tabletop/scene.ts';
import { askStart } from '../tabletop/seeing-sets.ts';
import { type SavedRun, savedSchema } from './saved.ts';
import type { StudyRun } from './study.ts';

/** The sources that the runs of a study have in common. */
interface StudySources {
  readonly start: VisionLanguageFile;
  /** SHA-256 of the start's file. */
  readonly hash: string;
  readonly answers: StartAnswers;
  dataset(settings: RunSettings): Promise<Dataset>;
  scenes(settings: RunSettings): readonly SceneSettings[];
  readonly listener: RunListener & { closedLoop(done: number, total: number): void };
  readonly signal: AbortSignal;
}

/** Measures one run, and keeps no checkpoint. Throws the reason of an aborted signal. */
export async function performRun(device: Device, run: StudyRun, sources: StudySources): Promise<SavedRun> {
  const { settings, scenes, questionScenes } = run;
  const { start, hash, answers, listener, signal } = sources;
  const seconds: Record<string, number> = {};
  const timed = async <T>(part: string, work: () => Promise<T>): Promise<T> => {
    const begin = performance.now();
    const result = await work();
    seconds[part] = (performance.now() - begin) / 1000;
    return result;
  };
  const dataset = await timed('data', () => sources.dataset(settings));
  const prepared = await timed('prepare', () => prepareRun({ settings, dataset, from: start, listener }));
  const folder = await mkdtemp(join(tmpdir(), 'insula-study-'));
  try {
    const checkpointPath = join(folder, 'checkpoint.safetensors');
    const after: { acted: Evaluation | null; trained: unknown } = { acted: null, trained: null };
    const onResult = async ({ policy, finished }: RunResult) => {
      if (!finished) throw signal.reason;
      const closedLoop = () =>
        evaluateClosedLoop(tabletopPolicy(policy), {
          ...{ episodes: scenes, seed: settings.seed, scenes: sources.scenes(settings), signal },
          onProgress: (done, total) => listener.closedLoop(done, total),
        });
      after.acted = settings.data === null ? await timed('closedLoop', closedLoop) : null;
      after.trained = await timed('questions', () => askStart(device, start, questionScenes, signal, policy.model));
    };
    const options = { checkpointPath, signal, onResult };
    const { policy, history, objectives, ...result } = await runTraining(device, prepared, options);
    policy.model.dispose();
    Object.assign(seconds, result.seconds);
    // A skipped step has no row.
    const secondsAt = (step: number) => history.training.findLast((row) => row.step <= step)?.seconds ?? 0;
    // The file has fewer fields than a result of the closed loop.
    return v.parse(savedSchema, {
      format: 'insula study run 1',
      ...{ ...run, start: hash, ...provenance(device), objectives },
      heldOut: history.heldOut.map((row) => ({ ...row, seconds: secondsAt(row.step) })),
      baselines: history.baselines,
      episodes: after.acted?.episodes ?? null,
      questions: { start: answers, trained: after.trained },
      seconds,
    });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
