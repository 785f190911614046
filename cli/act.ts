/** A trained policy on one observation of an episode, or measured over many. */

import { openTunedDevice } from '../bench/measure/tuning.ts';
import { recordedDataset } from '../bench/tabletop/demonstrations.ts';
import { EpisodeRecorder } from '../bench/tabletop/episode-recorder.ts';
import { evaluateClosedLoop } from '../bench/tabletop/evaluation.ts';
import { tabletopPolicy } from '../bench/tabletop/policy.ts';
import type { Observation } from '../bench/tabletop/world.ts';
import { type Device, InputError, quote } from '../engine/index.ts';
import type { Dataset } from '../model/data/dataset.ts';
import {
  actionExamples,
  chunk,
  episodeNamed,
  evaluationSamples,
  expectNoLeRobot,
  instructionsAt,
  loadSamples,
  mixDatasets,
  wholeEpisodes,
  writeLeRobot,
} from '../model/data/index.ts';
import { Encoding, type RawObservation } from '../model/policy/encoding.ts';
import { Policy } from '../model/policy/policy.ts';
import { fitBaselines } from '../model/training/baselines.ts';
import { askedOf, BatchMaker, observationAt } from '../model/training/batches.ts';
import { type CheckpointSettings, openCheckpoint } from '../model/training/checkpoint.ts';
import { fittingSamples, prepareData } from '../model/training/fitting.ts';
import { OPEN_LOOP_MEASURE, openLoopError } from '../model/training/open-loop.ts';
import { predictedEpisodes } from '../model/training/predicted-episodes.ts';
import { presetNamed } from '../model/training/presets.ts';
import { chooseData } from './choose-data.ts';
import type { Progress } from './progress.ts';
import { type ClosedLoopSummary, closedLoopSummary } from './train.ts';
import { type DataOptions, TABLETOP, withoutUnused } from './train-options.ts';

export interface PolicyOptions extends DataOptions {
  checkpoint?: string;
  adapter?: string;
  floor?: boolean;
  /** A tuning file in place of the one kept for the adapter. */
  tuning?: string;
  seed?: number;
}

export interface ActResult {
  episode: string;
  step: number;
  instruction: string | null;
  /** What the data set calls its action dimensions. */
  names: readonly string[] | null;
  /** [horizon][dimension] in the units of the data; null where the episode has ended. */
  demonstrated: (number[] | null)[];
  predicted: number[][];
  /** What was asked about the picture, or the next subtask, where the policy was trained with questions. */
  says: { asked: string; answer: string } | null;
  latency: { part: string; milliseconds: number }[];
  adapter: string;
}

/** One chunk beside the demonstrated one, and the latency of a second, warm call by part. */
export async function act(
  options: PolicyOptions & { episode?: string; step?: number; ask?: string },
  progress: Progress,
): Promise<ActResult> {
  return withPolicy(options, progress, async ({ policy, dataset, device }) => {
    const episode = episodeNamed(dataset, options.episode);
    const step = options.step ?? 0;
    if (!Number.isInteger(step) || step < 0 || step >= episode.length)
      throw new InputError(`--step ${step}: episode ${quote(episode.id)} has steps 0 to ${episode.length - 1}`);
    const [whole] = wholeEpisodes([episode]);
    const [sample] = await loadSamples([{ part: whole, step, instruction: instructionsAt(episode, step)[0] ?? null }]);
    const observation = await observationAt(sample, policy.encoding.settings.cameras);
    const says = await spoken(policy, observation, options.ask, episode.subtask?.(step) ?? null);
    const { horizon } = policy.model.configuration;
    const { data, valid } = chunk(sample.part, step, horizon);
    const { seed } = options;
    const [predicted] = await policy.act([observation], { seed });
    const latency: ActResult['latency'] = [];
    const onLatency = (name: string, milliseconds: number) => latency.push({ part: name, milliseconds });
    await policy.act([observation], { seed, onLatency });
    const dimension = data.length / horizon;
    const row = (values: Float32Array, i: number) => Array.from(values.subarray(i * dimension, (i + 1) * dimension));
    return {
      episode: episode.id,
      step,
      instruction: sample.instruction,
      names: dataset.actionNames?.length === dimension ? dataset.actionNames : null,
      demonstrated: Array.from(valid, (real, i) => (real ? row(data, i) : null)),
      predicted: Array.from({ length: horizon }, (_, i) => row(predicted, i)),
      says,
      latency,
      adapter: device.description,
    };
  });
}

/** The answer to a question about the picture, or, of a policy that learned subtasks, the next one. */
async function spoken(
  policy: Policy,
  observation: RawObservation,
  ask: string | undefined,
  demonstrated: string | null,
): Promise<ActResult['says']> {
  const { cameras, locations } = policy.encoding.settings;
  if (ask === undefined) {
    if (!locations || demonstrated === null) return null;
    const [answer] = await policy.say([{ ...observation, asks: 'subtask' }]);
    return { asked: `next subtask (demonstrated: ${demonstrated})`, answer };
  }
  const image = observation.images[cameras[0]];
  if (!image) throw new InputError(`--ask: no camera shows anything at this step that could be asked about`);
  const [answer] = await policy.say([await askedOf({ prompt: ask, image: async () => image }, cameras)]);
  return { asked: ask, answer };
}

export interface EvaluateResult {
  closedLoop: ClosedLoopSummary | null;
  openLoop: {
    measure: string;
    observations: number;
    oneSampleToConstant: number;
    meanOfEightToConstant: number;
  } | null;
  /** Folder of the LeRobot data set that was asked for. */
  record: string | null;
  adapter: string;
}

type EvaluateOptions = PolicyOptions & {
  episodes?: number;
  /** Folder for a LeRobot data set of what the policy did, or of its predictions. */
  record?: string;
};

/** Closed loop in the built-in world for policies trained there; open loop on held-out episodes for others. */
export async function evaluate(options: EvaluateOptions, progress: Progress): Promise<EvaluateResult> {
  const { record } = options;
  if (record !== undefined) await expectNoLeRobot(record);
  return withPolicy(options, progress, async (loaded) => {
    const inWorld = loaded.dataset.name === TABLETOP;
    const [result, recorded] = await (inWorld ? inClosedLoop : inOpenLoop)(loaded, options, progress);
    if (record !== undefined && recorded) {
      const onProgress = (done: number, total: number) => progress.count('write: episode', done, total);
      await writeLeRobot(record, recorded, { robot: inWorld ? TABLETOP : undefined, onProgress });
    }
    return { closedLoop: null, openLoop: null, ...result, record: record ?? null, adapter: loaded.device.description };
  });
}

/** The result, and what was asked to be recorded. */
type Evaluated = [Partial<EvaluateResult>, Dataset | null];

async function inClosedLoop(
  { policy, settings }: Loaded,
  { seed, episodes, record }: EvaluateOptions,
  progress: Progress,
): Promise<Evaluated> {
  const recorders: EpisodeRecorder[] = [];
  const keep = (index: number, observation: Observation, action: Float32Array) => {
    recorders[index] ??= new EpisodeRecorder();
    recorders[index].add(observation, action);
  };
  const evaluation = await evaluateClosedLoop(tabletopPolicy(policy, seed), {
    episodes,
    seed: seed ?? settings.seed,
    onProgress: (done, total) => progress.closedLoop(done, total),
    onAction: record === undefined ? undefined : keep,
  });
  const recordings = recorders.flatMap((recorder, index) => {
    const { seed, instruction } = evaluation.episodes[index];
    return [recorder.recording(seed, [instruction])];
  });
  return [{ closedLoop: closedLoopSummary(evaluation) }, recordedDataset(recordings)];
}

async function inOpenLoop(
  { policy, dataset, settings }: Loaded,
  { seed, record }: EvaluateOptions,
  progress: Progress,
): Promise<Evaluated> {
  const { split } = prepareData(dataset, settings.seed);
  const preset = presetNamed(settings.preset);
  const { configuration } = policy.model;
  const maker = new BatchMaker(policy.encoding, configuration, settings.seed);
  const samples = evaluationSamples(split.heldOut, preset.heldOutSteps);
  const batches = [];
  for (let start = 0; start < samples.length; start += settings.batch)
    batches.push(await maker.make(actionExamples(samples.slice(start, start + settings.batch)), start));
  const { meanChunk } = await fitBaselines(fittingSamples(split.train), policy.encoding, configuration.horizon);
  const error = await openLoopError(policy, batches, meanChunk, (done, total) => progress.openLoop(done, total));
  const openLoop = {
    measure: OPEN_LOOP_MEASURE,
    observations: error.observations,
    oneSampleToConstant: error.oneSample / error.bestConstant,
    meanOfEightToConstant: error.meanOfSeveral / error.bestConstant,
  };
  const onProgress = (done: number, total: number) => progress.count('predict: episode', done, total);
  const predict = () => predictedEpisodes(policy, dataset, split.heldOut, { seed, onProgress });
  return [{ openLoop }, record === undefined ? null : await predict()];
}

interface Loaded {
  policy: Policy;
  dataset: Dataset;
  device: Device;
  settings: CheckpointSettings;
}

/** One of several data sets that a policy was trained on is a mixture of one robot, with the slots of then. */
function asTrained(dataset: Dataset, { encoding: { robots = {} } }: CheckpointSettings): Dataset {
  const names = Object.keys(robots);
  if (dataset.robots || names.length === 0) return dataset;
  const robot = names.length === 1 ? names[0] : dataset.name;
  if (!robots[robot])
    throw new InputError(
      `"${dataset.name}" is none of the robots that the policy was trained on (${names.join(', ')}): name data and --robot as in training`,
    );
  return mixDatasets([{ dataset, slots: robots[robot].slots }]);
}

async function withPolicy<T>(
  options: PolicyOptions,
  progress: Progress,
  work: (loaded: Loaded) => Promise<T>,
): Promise<T> {
  if (options.checkpoint === undefined)
    throw new InputError('which policy? Name its file with --checkpoint; insula train writes one');
  const checkpoint = await openCheckpoint(options.checkpoint);
  try {
    const { settings } = checkpoint;
    if (options.data === undefined && settings.dataset !== TABLETOP)
      throw new InputError(
        `${options.checkpoint} was trained on "${settings.dataset}": say where it lies with --data FOLDER`,
      );
    const { demonstrations: episodes, vision } = presetNamed(settings.preset);
    const source = { episodes, seed: settings.seed, usual: settings.dataset, frameSize: vision.image };
    const dataset = asTrained(await chooseData(withoutUnused(options, settings), source, progress), settings);
    for (const [what, own, trained] of [
      ['action', dataset.actionDimension, settings.configuration.actionDimension],
      ['state', dataset.stateDimension, settings.encoding.statistics?.states?.mean.length ?? dataset.stateDimension],
    ] as const)
      if (own !== trained)
        throw new InputError(
          `"${dataset.name}" has ${own} ${what} dimensions; ${options.checkpoint} was trained with ${trained}`,
        );
    if (dataset.name !== settings.dataset && !settings.dataset.split(',').includes(dataset.name))
      progress.note(
        `"${dataset.name}" is not what ${options.checkpoint} was trained on: its actions keep the units and ranges of "${settings.dataset}"`,
      );
    const { device } = await openTunedDevice(options, (line) => progress.note(line));
    try {
      using model = await checkpoint.loadModel(device);
      return await work({ policy: new Policy(model, new Encoding(settings.encoding)), dataset, device, settings });
    } finally {
      device.close();
    }
  } finally {
    await checkpoint.close();
  }
}
