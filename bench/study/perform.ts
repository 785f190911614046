/** Runs of a study on an adapter: a training run with all measurements, or systems that are timed in turn. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as v from 'valibot';
import type { Device } from '../../engine/index.ts';
import type { Dataset } from '../../model/data/dataset.ts';
import { evaluationSamples } from '../../model/data/index.ts';
import type { StartAnswers } from '../../model/inspect/answers.ts';
import { Encoding } from '../../model/policy/encoding.ts';
import { Policy } from '../../model/policy/policy.ts';
import { BatchMaker } from '../../model/training/batches.ts';
import type { CoTraining } from '../../model/training/co-training.ts';
import { type OpenLoopError, openLoopOf } from '../../model/training/open-loop.ts';
import { type PreparedRun, prepareRun, type RunListener } from '../../model/training/prepare-run.ts';
import { type RunResult, runTraining } from '../../model/training/run.ts';
import type { RunSettings } from '../../model/training/run-settings.ts';
import type { VisionLanguageFile } from '../../model/training/vision-language-file.ts';
import { provenance } from '../measure/provenance.ts';
import { runPolicyBench } from '../step/policy.ts';
import { runStepBench } from '../step/run.ts';
import { type EpisodeResult, evaluateClosedLoop } from '../tabletop/evaluation.ts';
import { wentForOriginal } from '../tabletop/language.ts';
import { exchanged } from '../tabletop/make-scene.ts';
import { tabletopPolicy } from '../tabletop/policy.ts';
import { probeWorld } from '../tabletop/probe.ts';
import { simplePlacing } from '../tabletop/scene.ts';
import { askStart } from '../tabletop/seeing-sets.ts';
import type { Arm, OtherScenes, StudyRun, TimedRun } from './arms.ts';
import { type SavedRun, savedSchema } from './saved.ts';

/** The sources that the runs of a study have in common. */
interface StudySources {
  readonly start: VisionLanguageFile;
  /** SHA-256 of the start's file. */
  readonly hash: string;
  readonly answers: StartAnswers;
  dataset(settings: RunSettings): Promise<Dataset>;
  coTraining(settings: RunSettings): Promise<CoTraining | undefined>;
  readonly listener: RunListener & { closedLoop(done: number, total: number): void };
  readonly signal: AbortSignal;
}

/** The measurements of an arm beside those of all. */
type Measured = Pick<Arm, 'others' | 'probes'>;

/** Trains and measures one run, and keeps no checkpoint. Throws the reason of an aborted signal. */
export async function performRun(
  device: Device,
  run: StudyRun,
  { others, probes }: Measured,
  sources: StudySources,
): Promise<SavedRun> {
  const { settings } = run;
  const { start, hash, listener, signal } = sources;
  const seconds: Record<string, number> = {};
  const timed = async <T>(part: string, work: () => Promise<T>): Promise<T> => {
    const begin = performance.now();
    const result = await work();
    seconds[part] = (performance.now() - begin) / 1000;
    return result;
  };
  const dataset = await timed('data', () => sources.dataset(settings));
  const coTraining = settings.cotrain > 0 ? await sources.coTraining(settings) : undefined;
  const from = settings.from === null ? undefined : start;
  const prepared = await timed('prepare', () => prepareRun({ settings, dataset, coTraining, from, listener }));
  const folder = await mkdtemp(join(tmpdir(), 'insula-study-'));
  try {
    const checkpointPath = join(folder, 'checkpoint.safetensors');
    let measured: Awaited<ReturnType<typeof measuredPolicy>> | undefined;
    const onResult = async (result: RunResult) => {
      if (!result.finished) throw signal.reason;
      measured = await measuredPolicy(device, { ...run, others, probes }, prepared, result, sources, timed);
    };
    const options = { checkpointPath, signal, onResult };
    const { policy, history, objectives, openLoop, ...result } = await runTraining(device, prepared, options);
    policy.model.dispose();
    Object.assign(seconds, result.seconds);
    // A skipped step has no row.
    const secondsAt = (step: number) => history.training.findLast((row) => row.step <= step)?.seconds ?? 0;
    const acting = (history.acting ?? []).map(({ step, openLoop: error }) => ({
      ...{ step, seconds: secondsAt(step), ...error },
    }));
    const heldOut = history.heldOut.map((row) => ({ ...row, seconds: secondsAt(row.step) }));
    // The file has fewer fields than the results.
    return v.parse(savedSchema, {
      format: 'insula study run 1',
      ...{ ...run, start: from ? hash : null, ...provenance(device), objectives },
      ...{ heldOut, baselines: history.baselines, acting, openLoop: openLoop!.error },
      ...{ ...measured, seconds },
    });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** The measurements of a trained policy, while it is on the device. */
async function measuredPolicy(
  device: Device,
  { settings, scenes, questionScenes, others = [], probes: isProbed }: Omit<StudyRun, 'arm'> & Measured,
  { baselines: { meanChunk } }: PreparedRun,
  { policy, split }: RunResult,
  { start, answers, listener, signal }: StudySources,
  timed: <T>(part: string, work: () => Promise<T>) => Promise<T>,
) {
  const maker = new BatchMaker(policy.encoding, policy.model.configuration, settings);
  const beginnings = evaluationSamples(split.heldOut).filter(({ step, part }) => step === part.from);
  const firstChunks = async (): Promise<OpenLoopError> =>
    (await openLoopOf(policy, maker, beginnings, settings.batch, meanChunk, { signal })).error;
  const acted = (other?: OtherScenes) => {
    const isExchanged = other === 'other object';
    const variation = other === undefined || isExchanged ? 'simple' : other;
    return evaluateClosedLoop(tabletopPolicy(policy), {
      ...{ episodes: scenes, seed: settings.seed, scenes: [{ ...simplePlacing, variation }], signal },
      ...(isExchanged && { change: (scene) => exchanged(scene, 'object') }),
      onProgress: (done, total) => listener.closedLoop(done, total),
    });
  };
  const { episodes, decodes } = await timed('closedLoop', () => acted());
  const elsewhere: [OtherScenes, EpisodeResult[]][] = [];
  const actElsewhere = async () => {
    for (const other of others) elsewhere.push([other, (await acted(other)).episodes]);
  };
  await timed('otherScenes', actElsewhere);
  const original = (name: OtherScenes, own: EpisodeResult) =>
    name === 'other object' ? { ...own, original: wentForOriginal(own, 'object') } : own;
  const probed = async () => {
    using before = await start.loadModel(device);
    const options = { scenes: 3 * questionScenes, seed: 0, variation: 'simple', signal } as const;
    const of = async (own: Policy) => (await probeWorld(own, options)).classes;
    return { start: await of(new Policy(before, new Encoding(start.encoding))), trained: await of(policy) };
  };
  const asked = () => (settings.from === null ? null : askStart(device, start, questionScenes, signal, policy.model));
  return {
    ...{ episodes, decodes, firstChunks: await timed('firstChunks', firstChunks) },
    others: Object.fromEntries(elsewhere.map(([name, all]) => [name, all.map((own) => original(name, own))])),
    questions: {
      start: settings.from === null ? null : answers,
      trained: await timed('questions', async () => asked()),
    },
    probes: isProbed ? await timed('probes', probed) : null,
  };
}

/** Seconds of a timing at the most, of which compilation takes a part. */
const TIMING = 240;

/** Times systems in turn. Throws the reason of an aborted signal. */
export async function performTimes(
  device: Device,
  run: TimedRun,
  { signal, rounds = 30 }: { readonly signal: AbortSignal; readonly rounds?: number },
): Promise<SavedRun> {
  const { timed, systems, batch, preset } = run.options;
  const budget = { seconds: TIMING, rounds, signal };
  const { rows } =
    timed === 'step'
      ? await runStepBench(device, { systems, preset, batch }, budget)
      : await runPolicyBench(device, { systems, preset, batch, steps: 10 }, budget);
  signal.throwIfAborted();
  return v.parse(savedSchema, { format: 'insula study times 1', ...run, ...provenance(device), rows });
}
