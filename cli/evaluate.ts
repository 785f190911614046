/** `insula evaluate`: a trained policy measured over many observations. */
import { resolve } from 'node:path';
import { type RecordedStep, type Recording, recordingOf } from '../bench/tabletop/episode-recorder.ts';
import { evaluateClosedLoop } from '../bench/tabletop/evaluation.ts';
import { Film } from '../bench/tabletop/film.ts';
import { type LanguageRow, languageTable } from '../bench/tabletop/language.ts';
import { tabletopPolicy } from '../bench/tabletop/policy.ts';
import { recordedDataset } from '../bench/tabletop/recorded-dataset.ts';
import type { SceneSettings } from '../bench/tabletop/scene.ts';
import type { WorldObservation } from '../bench/tabletop/world.ts';
import { InputError } from '../engine/index.ts';
import { actingObjective, objectivesOf } from '../model/architecture/objectives/index.ts';
import type { Dataset } from '../model/data/dataset.ts';
import { evaluationSamples, expectNoLeRobot, writeLeRobot } from '../model/data/index.ts';
import { executionKinds, scheduleOf } from '../model/policy/execution.ts';
import { writeEpisodes } from '../model/report/episodes.ts';
import type { FilmedEpisode } from '../model/report/film-strip.ts';
import { fitBaselines } from '../model/training/baselines.ts';
import { BatchMaker } from '../model/training/batches.ts';
import type { CheckpointSettings } from '../model/training/checkpoint.ts';
import { fittingSamples, prepareData } from '../model/training/fitting.ts';
import { openLoopOf } from '../model/training/open-loop.ts';
import { predictedEpisodes } from '../model/training/predicted-episodes.ts';
import { command } from './command.ts';
import { TABLETOP } from './data.ts';
import { deviceOptions } from './device.ts';
import { choice, flag, number, outputFolder, seedNumber, text, type ValuesOf } from './options.ts';
import { takeNewFolder } from './outputs.ts';
import {
  executionOf,
  expectExecution,
  expectNamed,
  expectNoise,
  isSeeing,
  type Loaded,
  policyOptions,
  withPolicy,
} from './policy.ts';
import type { Progress } from './progress.ts';
import { ALL, evaluatedSceneOptions, kinds, scenesToEvaluate } from './scenes.ts';
import { evaluateSeeing, SCENES, type SeeingResult, seeingLines } from './seeing.ts';
import { type EvaluateResult, evaluateLines } from './text.ts';
import { type ClosedLoopSummary, closedLoopSummary, openLoopSummary } from './training-summary.ts';

/** The kinds of execution that call the policy every so many control steps. */
const inSteps = ['receding-horizon', 'real-time-chunking'];

const evaluateOptions = {
  ...policyOptions,
  episodes: number('closed-loop episodes in the built-in world; 20 by default', 1, { excludes: 'data' }),
  ...evaluatedSceneOptions,
  scenes: number(`scenes of each set for a vision-language model; ${SCENES} by default`, 1, { excludes: 'data' }),
  seed: seedNumber("chooses scenes and noise; by default the scenes of the training's seed, and noise 0"),
  execution: choice(
    'how chunks are carried out: open-loop (each whole), receding-horizon (the default: --execute-steps of each), temporal-ensembling (a new chunk at every control step, and the weighted mean of all predictions for it) or real-time-chunking (the next chunk is computed while one is carried out, and continues it)',
    executionKinds,
    { excludes: 'data' },
  ),
  'execute-steps': number(
    'control steps from one chunk to the next; by default 5, or as many as a shorter chunk has',
    1,
    {
      excludes: 'data',
      needs: { execution: [undefined, ...inSteps] },
    },
  ),
  delay: number(
    'control steps that pass while a chunk is computed; by default 1 for real-time chunking, otherwise 0',
    0,
    {
      excludes: 'data',
      needs: { execution: [undefined, ...inSteps] },
    },
  ),
  language: flag('also with other instructions: another object, another bin, forms and pairs that no training has', {
    excludes: ['data', 'record'],
  }),
  film: outputFolder('folder for pictures of a few episodes that succeeded and of a few that failed', {
    excludes: 'data',
  }),
  record: outputFolder('folder for the recorded episodes, or for predictions of held-out episodes, as LeRobot 3.0'),
  ...deviceOptions,
};
type EvaluateValues = ValuesOf<typeof evaluateOptions>;

export const evaluate = command({
  options: {
    ...evaluateOptions,
    checkpoint: text('file that insula train wrote, or a vision-language model: tiny, small or FILE; required'),
  },
  async run(values, { progress }): Promise<Evaluation> {
    const checkpoint = await expectNamed(values.checkpoint);
    const { record, film } = values;
    if (record !== undefined && film !== undefined && resolve(record) === resolve(film))
      throw new InputError(`--film ${film}: --record names this folder too; choose another one for the pictures`);
    if (await isSeeing(checkpoint)) {
      const json = await evaluateQuestions({ ...values, checkpoint }, progress);
      const more = `what each layer knows about a picture: insula inspect --probe --from ${checkpoint}`;
      return { json, lines: [...seeingLines(json), more, `measured on ${json.adapter}`] };
    }
    const json = await evaluatePolicy(values, progress);
    return { json, lines: evaluateLines(json) };
  },
});

interface Evaluation {
  readonly json: EvaluateResult | SeeingResult;
  readonly lines: string[];
}

/** A vision-language model is asked about sets of scenes of the built-in world, all of them by default. */
function evaluateQuestions(
  { checkpoint, variation, scenes, seed, adapter, floor, tuning, ...others }: EvaluateValues & { checkpoint: string },
  progress: Progress,
): Promise<SeeingResult> {
  const [unused] = Object.entries(others).find(([, value]) => value !== undefined) ?? [];
  if (unused !== undefined)
    throw new InputError(
      `--${unused}: a vision-language model is asked about scenes of the built-in world and does not act; leave it out`,
    );
  const variations = kinds.filter((kind) => variation === undefined || variation === ALL || variation === kind);
  return evaluateSeeing({ checkpoint, adapter, floor, tuning }, { variations, scenes, seed }, progress);
}

/** Closed loop in the built-in world for policies trained there; open loop on held-out episodes for others. */
async function evaluatePolicy(values: EvaluateValues, progress: Progress): Promise<EvaluateResult> {
  const { record, film, language, seed, episodes, task, variation, scenes } = values;
  if (scenes !== undefined) throw new InputError('--scenes: a policy acts in --episodes of each set; leave it out');
  if (record !== undefined) await expectNoLeRobot(record);
  const isInWorld = ({ run }: CheckpointSettings) => values.data === undefined && run.data === null;
  const check = (settings: CheckpointSettings) => {
    if (isInWorld(settings)) {
      expectExecution(values, settings);
      return;
    }
    const { execution, 'execute-steps': steps, delay } = values;
    const ofWorld = { episodes, task, variation, film, language, execution, 'execute-steps': steps, delay };
    const [unused] = Object.entries(ofWorld).find(([, value]) => value !== undefined) ?? [];
    if (unused !== undefined)
      throw new InputError(
        `--${unused}: the policy was trained on data and is measured on its held-out steps; leave it out`,
      );
    if (seed !== undefined && record === undefined)
      throw new InputError('--seed: the open-loop measurement has noise of its own; give --seed only with --record');
    if (seed !== undefined) expectNoise(settings);
  };
  const evaluated = async (loaded: Loaded): Promise<EvaluateResult> => {
    const inWorld = isInWorld(loaded.settings);
    const [result, recorded] = await (inWorld ? inClosedLoop : inOpenLoop)(loaded, values, progress);
    if (record !== undefined && recorded) {
      const onProgress = (done: number, total: number) => progress.count('write: episode', done, total);
      await writeLeRobot(record, recorded, {
        robot: inWorld ? TABLETOP : undefined,
        note: (line) => progress.note(line),
        onProgress,
      });
    }
    const { run, configuration } = loaded.settings;
    const noisy = actingObjective(objectivesOf(configuration))?.draw !== undefined;
    const schedule = inWorld ? scheduleOf(executionOf(values), configuration.horizon) : null;
    return {
      checkpoint: values.checkpoint!,
      system: run.system,
      ema: run.ema,
      seed: inWorld ? (seed ?? run.seed) : null,
      noiseSeed: noisy && (inWorld || record !== undefined) ? (seed ?? 0) : null,
      execution: schedule && (values.execution ?? 'receding-horizon'),
      executeSteps: schedule?.every ?? null,
      delay: schedule?.delay ?? null,
      closedLoop: null,
      language: null,
      openLoop: null,
      ...result,
      record: record ?? null,
      adapter: loaded.device.description,
    };
  };
  const leaves: (() => Promise<void>)[] = [];
  try {
    for (const [option, folder] of Object.entries({ record, film }))
      if (folder !== undefined) leaves.push(await takeNewFolder(option, folder, (line) => progress.note(line)));
    return await withPolicy(values, progress, { settings: check }, evaluated);
  } finally {
    for (const leave of leaves) await leave();
  }
}

/** The result, and the data set to record. */
type Evaluated = [Partial<EvaluateResult>, Dataset | null];

async function inClosedLoop(loaded: Loaded, values: EvaluateValues, progress: Progress): Promise<Evaluated> {
  const closedLoop: ClosedLoopSummary[] = [];
  const recordings: Recording[] = [];
  const films: FilmedEpisode[] = [];
  const all = scenesToEvaluate(values, loaded.settings.run);
  const language = values.language ? await inLanguage(all, loaded, values, progress, films) : null;
  for (const scenes of language ? [] : all) {
    const { evaluation, recorded, film } = await inScenes(scenes, loaded, values, progress);
    closedLoop.push(closedLoopSummary(evaluation));
    recordings.push(...recorded);
    films.push(...film.episodes(evaluation.episodes, `${scenes.task}, ${scenes.variation}`));
  }
  if (values.film !== undefined) await writeEpisodes(values.film, films, `Episodes of ${values.checkpoint}`);
  return [{ closedLoop: language ? null : closedLoop, language }, recordedDataset(recordings)];
}

/** The table of instructions; their episodes are added to `films`. */
function inLanguage(
  scenes: readonly SceneSettings[],
  { policy, settings }: Loaded,
  values: EvaluateValues,
  progress: Progress,
  films: FilmedEpisode[],
): Promise<LanguageRow[]> {
  const { seed, episodes } = values;
  return languageTable(({ onSaid }) => tabletopPolicy(policy, seed, onSaid), {
    ...{ scenes, episodes, seed: seed ?? settings.run.seed, ...executionOf(values) },
    onProgress: (done, total) => progress.closedLoop(done, total),
    onRow: (instruction, evaluation, film) => films.push(...film.episodes(evaluation.episodes, instruction)),
  });
}

async function inScenes(
  scenes: SceneSettings,
  { policy, settings }: Loaded,
  values: EvaluateValues,
  progress: Progress,
) {
  const { seed, episodes, record } = values;
  const steps: RecordedStep[][] = [];
  const keep = (index: number, observation: WorldObservation, action: Float32Array) => {
    steps[index] ??= [];
    steps[index].push({ observation, action });
  };
  const film = new Film();
  const evaluation = await evaluateClosedLoop(tabletopPolicy(policy, seed, film.onSaid), {
    film,
    episodes,
    seed: seed ?? settings.run.seed,
    scenes: [scenes],
    ...executionOf(values),
    onProgress: (done, total) => progress.closedLoop(done, total),
    onAction: record === undefined ? undefined : keep,
  });
  const recorded = steps.map((own, index) => {
    const { seed, instruction } = evaluation.episodes[index];
    return recordingOf(own, { seed, settings: scenes, instructions: [instruction] });
  });
  return { evaluation, recorded, film };
}

async function inOpenLoop(
  { policy, dataset, settings }: Loaded,
  { seed, record }: EvaluateValues,
  progress: Progress,
): Promise<Evaluated> {
  const { preset, seed: trained, batch } = settings.run;
  const { split } = prepareData(dataset, trained);
  const { configuration } = policy.model;
  const maker = new BatchMaker(policy.encoding, configuration, settings.run);
  const samples = evaluationSamples(split.heldOut, preset.heldOutSteps);
  const { meanChunk } = await fitBaselines(fittingSamples(split.train), policy.encoding, configuration);
  const { error } = await openLoopOf(policy, maker, samples, batch, meanChunk, {
    onProgress: (done, total) => progress.openLoop(done, total),
  });
  const onProgress = (done: number, total: number) => progress.count('predict: episode', done, total);
  const predict = () => predictedEpisodes(policy, dataset, split.heldOut, { seed, onProgress });
  return [{ openLoop: openLoopSummary(error) }, record === undefined ? null : await predict()];
}
