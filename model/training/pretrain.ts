/** Pretraining: a vision-language model learns from packs of questions. */
import { type Device, randomStream, streams } from '../../engine/index.ts';
import { defaultTokenizerJson, locationNames } from '../../tokenizers/index.ts';
import type { ModelConfiguration } from '../architecture/configuration.ts';
import { orderedRows } from '../architecture/initialise.ts';
import { Architecture, Model } from '../architecture/model.ts';
import { describedObjectives, type ObjectiveDescription } from '../architecture/objectives/index.ts';
import { columnStatistics, NORMALISED_BOUND } from '../data/index.ts';
import { Encoding } from '../policy/encoding.ts';
import { configurationOf, PACKED_QUESTIONS, packedQuestions } from '../systems/index.ts';
import type { Checkpoint, CheckpointSettings } from './checkpoint.ts';
import type { RunHistory } from './history.ts';
import { unlessLost } from './lost-device.ts';
import { CAMERA, fitSlots, PackMaker } from './pack-maker.ts';
import type { Pack, PackSource } from './packs.ts';
import { type RunListener, sha256 } from './prepare-run.ts';
import { presetNamed } from './presets.ts';
import { checkpointSettings, expectToFit } from './run.ts';
import { carryOut, type RecordedRun, type RecordOptions } from './run-record.ts';
import { type RunSettings, runSettings } from './run-settings.ts';
import { expectSameRun, type RunData } from './same-run.ts';
import type { ExampleSampler } from './trainer.ts';

/** The given settings, and defaults for the others: those of the preset's pretraining. */
export function pretrainingSettings(given: Partial<RunSettings> = {}): RunSettings {
  const { preset = presetNamed('tiny') } = given;
  return runSettings({ ...given, system: PACKED_QUESTIONS, preset: { ...preset, ...preset.pretraining } });
}

export interface PretrainingOptions {
  /** From `pretrainingSettings`, or from the checkpoint. */
  readonly settings: RunSettings;
  readonly source: PackSource;
  /** The checkpoint to resume from; it is closed once it is read. */
  readonly resume?: Checkpoint;
  readonly listener: RunListener;
}

/** Pretraining that is ready to start on an adapter. */
export interface PreparedPretraining extends PretrainingOptions, RecordedRun<Pack> {
  readonly data: RunData;
  readonly encoding: Encoding;
  readonly configuration: ModelConfiguration;
}

/** @throws InputError if the questions differ from those of the run to resume, or if the model cannot run */
export async function preparePretraining(options: PretrainingOptions): Promise<PreparedPretraining> {
  const { settings, source, resume, listener } = options;
  const data = await dataOf(source);
  const begun = resume?.settings;
  if (begun) expectSameRun({ settings: begun.run, data: begun.data }, { settings, data });
  const encoding = begun ? new Encoding(begun.encoding) : encodingOf(settings, source);
  const configuration = begun?.configuration ?? configurationFor(settings, source, encoding);
  // A model that cannot run is refused before an adapter is opened.
  new Architecture(configuration);
  listener.note(`tokens: ${configuration.blocks.map(({ name, length }) => `${name} ${length}`).join(', ')}`);
  return {
    ...options,
    ...{ data, encoding, configuration },
    objectives: describedObjectives(configuration),
    heldOut: source.heldOut.slice(0, settings.preset.heldOutSteps),
    baselines: null,
  };
}

/** Packs that stand for all when a resumed run is compared. */
const COMPARED_PACKS = 64;

async function dataOf(source: PackSource): Promise<RunData> {
  const first = Array.from({ length: COMPARED_PACKS }, (_, index) => source.at(index));
  const text = JSON.stringify([...source.heldOut, ...first]);
  return {
    ...{ name: PACKED_QUESTIONS, rate: 1, actionDimension: 1, stateDimension: 0, cameras: [CAMERA] },
    ...{ instructions: 0, weights: null, statistics: await sha256(text) },
  };
}

function encodingOf({ preset }: RunSettings, { states }: PackSource): Encoding {
  return new Encoding({
    text: defaultTokenizerJson(),
    ...(preset.vocabulary !== undefined && { leastRows: preset.vocabulary }),
    ...{ stateAsText: true, stateBins: preset.stateBins, cameras: [CAMERA], actions: null, locations: true },
    // No question has actions; those of the model have one dimension, from -1 to 1.
    statistics: {
      ...{ bound: NORMALISED_BOUND, states: states ?? null },
      actions: columnStatistics([Float32Array.of(-1, 1)], 1),
    },
  });
}

function configurationFor(
  { preset, precision }: RunSettings,
  source: PackSource,
  encoding: Encoding,
): ModelConfiguration {
  const { image, ...vision } = preset.vision;
  const { classes } = source;
  const counts = classes && { kinds: classes.kinds.length, colours: classes.colours.length };
  const slots = fitSlots(source, encoding);
  return configurationOf(packedQuestions(slots, counts, preset.depth), {
    ...preset,
    vocabulary: encoding.vocabularySize,
    vision: { ...vision, imageHeight: image, imageWidth: image, cameras: 1 },
    // The system states the lengths of its blocks.
    ...{ promptTokens: 0, targetTokens: 0 },
    ...{ horizon: 1, actionDimension: 1, stateDimension: 0, precision },
  });
}

export interface PretrainingResult {
  readonly finished: boolean;
  /** Training steps done; `resumedAt` of them before this part of the run. */
  readonly step: number;
  readonly resumedAt: number;
  /** The caller disposes of it. */
  readonly model: Model;
  readonly encoding: Encoding;
  readonly source: PackSource;
  readonly settings: CheckpointSettings;
  readonly history: RunHistory;
  /** Descriptions of the losses in `history`. */
  readonly objectives: readonly ObjectiveDescription[];
  readonly seconds: { readonly compile: number; readonly train: number; readonly evaluate: number };
}

interface PretrainOptions extends RecordOptions {
  /** As in `TrainOptions`. */
  readonly onResult?: (result: PretrainingResult) => Promise<void>;
}

/** As `runTraining`. */
export async function runPretraining(
  device: Device,
  prepared: PreparedPretraining,
  options: PretrainOptions,
): Promise<PretrainingResult> {
  const { settings, source, encoding, configuration, objectives } = prepared;
  await expectToFit(device, prepared, options);
  const kept = checkpointSettings(device, prepared);
  const maker = new PackMaker(encoding, configuration, settings, source.slots);
  const sampler: ExampleSampler<Pack> = {
    batch: (step, size) => Array.from({ length: size }, (_, i) => source.at(step * size + i)),
  };
  const begin = () => initialModel(device, configuration, encoding, settings);
  return unlessLost(device, prepared, options, begin, async (model, own, mark) => {
    const run = { model, maker, sampler, mark };
    const { measured, ...done } = await carryOut(own, kept, run, source.heldOut, options);
    return { finished: measured, ...done, model, encoding, source, settings: kept, objectives };
  });
}

/** Random values, but the rows of places and of numbers begin in their order. */
async function initialModel(
  device: Device,
  configuration: ModelConfiguration,
  encoding: Encoding,
  { seed }: RunSettings,
): Promise<Model> {
  const model = new Model(device, configuration);
  model.initialise(seed);
  const table = model.architecture.blockInputs.tokens.rows(model.parameters);
  const values = Float32Array.from(await table.read());
  const [, width] = table.shape;
  const orders = [
    locationNames().map((name) => encoding.answerTokens(name)),
    Array.from({ length: encoding.settings.stateBins }, (_, bin) => encoding.text.encode(` ${bin}`)),
  ];
  orders.forEach((order, number) => {
    const ids = order.filter(({ length }) => length === 1).map(([id]) => id);
    const rows = orderedRows(ids.length, width, randomStream(seed, 2 ** 32 - 1 - number, streams.initialisation));
    for (const [i, id] of ids.entries()) values.set(rows.subarray(i * width, (i + 1) * width), id * width);
  });
  table.write(values);
  return model;
}
