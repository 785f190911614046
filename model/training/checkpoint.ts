/**
 * A checkpoint is one safetensors file: the weights under their public names, the optimizer's moments behind `optimizer/`, and
 * everything else as JSON in its metadata. It is written beside its place and renamed, so it is whole or not there.
 */
import { InputError } from '../../engine/errors.ts';
import { type Device, readSafetensors } from '../../engine/index.ts';
import { writeSafetensors } from '../../engine/safetensors-writer.ts';
import type { AdamW } from '../../kernels/index.ts';
import type { ModelConfiguration } from '../architecture/configuration.ts';
import { Model } from '../architecture/model.ts';
import type { EncodingSettings } from '../policy/encoding.ts';
import type { RunHistory } from './history.ts';

/** Bumped when what a checkpoint means changes. */
const FORMAT = 1;
const METADATA = 'insula';

/** What a checkpoint keeps beside its tensors. */
export interface CheckpointSettings {
  readonly system: string;
  readonly preset: string;
  readonly dataset: string;
  readonly rate: number;
  readonly seed: number;
  readonly batch: number;
  readonly configuration: ModelConfiguration;
  readonly encoding: EncodingSettings;
  /** Adapter that trained it: other adapters round differently. */
  readonly adapter: string;
}

export interface Progress {
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
  progress: Progress,
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
  readonly progress: Progress;
  /** The model with the checkpoint's weights, on `device`. */
  loadModel(device: Device): Promise<Model>;
  /** Gives `optimizer` the checkpoint's moments. */
  loadOptimizer(optimizer: AdamW): Promise<void>;
  close(): Promise<void>;
}

/** @throws InputError where the file is missing, cut off, or no checkpoint of this project */
export async function openCheckpoint(path: string): Promise<Checkpoint> {
  const file = await readSafetensors(path);
  const text = file.metadata.get(METADATA);
  if (text === undefined) {
    await file.close();
    throw new InputError(
      `${path}: a safetensors file, but not a checkpoint of Insula: its metadata has no "${METADATA}"`,
    );
  }
  const { format, settings, progress, optimizerStep } = parse(path, text);
  if (format !== FORMAT)
    throw new InputError(`${path}: checkpoint format ${format}; this version reads format ${FORMAT}`);
  return {
    settings,
    progress,
    async loadModel(device) {
      const model = new Model(device, settings.configuration);
      try {
        for (const parameter of model.parameters)
          parameter.write(await file.readFloat32(parameter.name, { shape: [...parameter.shape] }));
      } catch (error) {
        model.dispose();
        throw error;
      }
      return model;
    },
    async loadOptimizer(optimizer) {
      const tensors = new Map<string, Float32Array>();
      for (const [name, tensor] of optimizer.state().tensors)
        tensors.set(name, await file.readFloat32(`optimizer/${name}`, { shape: [...tensor.shape] }));
      optimizer.restore({ step: optimizerStep, tensors });
    },
    close: () => file.close(),
  };
}

function parse(
  path: string,
  text: string,
): { format: number; settings: CheckpointSettings; progress: Progress; optimizerStep: number } {
  try {
    return JSON.parse(text);
  } catch {
    throw new InputError(`${path}: the metadata of this checkpoint is not JSON: the file is damaged`);
  }
}
