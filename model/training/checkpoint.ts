/**
 * A checkpoint is one safetensors file: the weights under their public names, the optimizer's moments behind `optimizer/`, and
 * everything else as JSON in its metadata. It is written beside its place and renamed, so it is whole or not there.
 */
import { parseJson } from '../../engine/files/bytes.ts';
import { InputError, quote } from '../../engine/files/errors.ts';
import { writeSafetensors } from '../../engine/files/safetensors-writer.ts';
import { type Device, readSafetensors, type SafetensorsFile } from '../../engine/index.ts';
import type { AdamW, ChosenVariants, MomentStorage } from '../../kernels/index.ts';
import type { ModelConfiguration } from '../architecture/configuration.ts';
import { Model } from '../architecture/model.ts';
import { type Dataset, statisticsFromJson } from '../data/index.ts';
import type { EncodingSettings } from '../policy/encoding.ts';
import type { BatchOptions } from './batches.ts';
import type { RunHistory } from './history.ts';
import type { TrainingStepOptions } from './training-step.ts';

/** Bumped when what a checkpoint means changes. */
const FORMAT = 1;
const METADATA = 'insula';

/** What a checkpoint keeps beside its tensors. */
export interface CheckpointSettings extends TrainingStepOptions, BatchOptions {
  readonly system: string;
  readonly preset: string;
  readonly dataset: string;
  readonly rate: number;
  readonly seed: number;
  readonly batch: number;
  /** Different wordings of instructions in the data, paraphrases among them: training draws from them. */
  readonly wordings?: number;
  /** Part of every batch that is vision-language examples; none where it is not said. */
  readonly coTraining?: number;
  /** Where the images that they ask about lay, if they are not of the built-in world. */
  readonly questions?: string;
  /** Weights of a mixture's robots, where they were given. */
  readonly weights?: Dataset['weights'];
  /** Storage of AdamW's moments; f32 where it is not said. */
  readonly moments?: MomentStorage;
  readonly configuration: ModelConfiguration;
  readonly encoding: EncodingSettings;
  /** Adapter that trained it: other adapters round differently. */
  readonly adapter: string;
  /** Kernels that a tuning chose; where it is not said, the shipped ones. */
  readonly variants?: ChosenVariants;
}

export interface TrainingProgress {
  readonly step: number;
  /** Steps of the whole run: the learning rate depends on them. */
  readonly steps: number;
  readonly history: RunHistory;
}

export async function saveCheckpoint(
  path: string,
  model: Model,
  optimizer: AdamW,
  settings: CheckpointSettings,
  progress: TrainingProgress,
): Promise<void> {
  const moments = [...optimizer.state().tensors].map(([name, tensor]) => ({ name: `optimizer/${name}`, tensor }));
  const weights = [...model.parameters].map((tensor) => ({ name: tensor.name, tensor }));
  await writeSafetensors(
    path,
    [...weights, ...moments].map(({ name, tensor }) => ({
      name,
      dtype: 'F32' as const,
      shape: [...tensor.shape],
      data: () => tensor.read(),
    })),
    {
      metadata: {
        format: 'pt',
        [METADATA]: JSON.stringify({ format: FORMAT, settings, progress, optimizerStep: optimizer.steps }),
      },
    },
  );
}

/** An opened checkpoint: settings at once, tensors when asked for. */
export interface Checkpoint {
  readonly settings: CheckpointSettings;
  readonly progress: TrainingProgress;
  /** The model with the checkpoint's weights, on `device`. */
  loadModel(device: Device): Promise<Model>;
  /** Gives `optimizer` the checkpoint's moments. */
  loadOptimizer(optimizer: AdamW): Promise<void>;
  close(): Promise<void>;
}

/** @throws InputError where the file is missing, cut off, damaged, or no checkpoint of this project */
export async function openCheckpoint(path: string): Promise<Checkpoint> {
  const file = await readSafetensors(path);
  try {
    return checkpointIn(file);
  } catch (error) {
    await file.close();
    throw error;
  }
}

function checkpointIn(file: SafetensorsFile): Checkpoint {
  const { settings, progress, optimizerStep } = contentsOf(file);
  return {
    settings,
    progress,
    async loadModel(device) {
      const model = new Model(device, settings.configuration);
      try {
        for (const parameter of model.parameters)
          parameter.write(await readFinite(file, parameter.name, parameter.shape));
      } catch (error) {
        model.dispose();
        throw error;
      }
      return model;
    },
    async loadOptimizer(optimizer) {
      const tensors = new Map<string, Float32Array>();
      for (const [name, tensor] of optimizer.state().tensors)
        tensors.set(name, await readFinite(file, `optimizer/${name}`, tensor.shape));
      optimizer.restore({ step: optimizerStep, tensors });
    },
    close: () => file.close(),
  };
}

interface Contents {
  readonly format: number;
  readonly settings: CheckpointSettings;
  readonly progress: TrainingProgress;
  readonly optimizerStep: number;
}

function contentsOf({ name, metadata }: SafetensorsFile): Contents {
  const text = metadata.get(METADATA);
  if (text === undefined)
    throw new InputError(
      `${name}: a safetensors file, but not a checkpoint of Insula: its metadata has no "${METADATA}"`,
    );
  const contents = parseJson(new TextEncoder().encode(text), name, "damaged: the checkpoint's metadata is not JSON");
  const { format, settings, progress, optimizerStep } = (contents ?? {}) as Partial<Contents>;
  if (format !== FORMAT)
    throw new InputError(`${name}: checkpoint format ${quote(format)}; this version reads format ${FORMAT}`);
  const whole = settings?.configuration?.blocks && settings.encoding?.cameras && progress?.history;
  if (!whole || optimizerStep === undefined)
    throw new InputError(`${name}: damaged: the checkpoint's metadata lacks a part`);
  const { statistics, robots = {} } = settings.encoding;
  for (const own of [...(statistics ? [statistics] : []), ...Object.values(robots).map((robot) => robot.statistics)])
    statisticsFromJson(own, name);
  return { format, settings, progress, optimizerStep };
}

async function readFinite(file: SafetensorsFile, name: string, shape: readonly number[]): Promise<Float32Array> {
  const values = await file.readFloat32(name, { shape });
  const bad = values.findIndex((value) => !Number.isFinite(value));
  if (bad >= 0)
    throw new InputError(`${file.name}: damaged: tensor ${quote(name)} holds ${values[bad]} at element ${bad}`);
  return values;
}
