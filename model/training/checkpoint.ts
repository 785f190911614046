/**
 * A checkpoint is one safetensors file: the weights under their public names, the optimizer's moments under
 * `optimizer/`, and everything else as JSON in its metadata. In a run with a moving average of the weights, the averages, which act,
 * have the public names, and the weights that training goes on from are `optimizer/trainingWeight/<name>`. In a run with low-rank
 * adaptation the frozen weights lie in a file of their own beside it (base-file.ts). A temporary file is written and renamed, so a checkpoint
 * is never incomplete.
 */
import type * as v from 'valibot';
import { InputError, quote, reasonOf } from '../../engine/files/errors.ts';
import { checked } from '../../engine/files/json-schema.ts';
import { writeSafetensors } from '../../engine/files/safetensors-writer.ts';
import type { Device, SafetensorsFile, Tensor } from '../../engine/index.ts';
import type { AdamW, Moment } from '../../kernels/index.ts';
import { actingConfiguration } from '../architecture/acting-configuration.ts';
import type { ModelConfiguration } from '../architecture/configuration.ts';
import { Architecture, type Model } from '../architecture/model.ts';
import { BASE_FORMAT, type BaseReference, openBase, writeBase } from './base-file.ts';
import { checkEncoding } from './checkpoint-check.ts';
import {
  CHECKPOINT_FORMAT,
  type CheckpointSettings,
  checkpointSchema,
  type TrainingProgress,
} from './checkpoint-schema.ts';
import { contentsOf, expectFitting, loadModel, metadataOf, openSaved, tensorToWrite, withBase } from './saved-model.ts';
import { VISION_LANGUAGE_FORMAT } from './vision-language-file.ts';

export type { CheckpointSettings, TrainingProgress } from './checkpoint-schema.ts';

/** @throws NotFiniteError for a state that diverged, InputError for the file system; the file of this path is then unchanged */
export async function saveCheckpoint(
  path: string,
  model: Model,
  optimizer: AdamW,
  settings: CheckpointSettings,
  progress: TrainingProgress,
  /** The file of the frozen weights, from `saveBase`; without it they are in the checkpoint. */
  base?: BaseReference,
  /** Called once the new file is whole, before it takes the place of the old one. */
  beforeRename?: () => Promise<void>,
): Promise<void> {
  const kept = base ? frozenIn(model) : new Set<string>();
  await optimizer.averaged(async () => {
    const moments = [...optimizer.state().tensors].map(([name, tensor]) => ({ name: `optimizer/${name}`, tensor }));
    const weights = [...model.parameters].filter(({ name }) => !kept.has(name)).map(namedTensor);
    const contents = { settings, progress, optimizerStep: optimizer.steps, ...(base && { base: referenceTo(base) }) };
    await writeCheckpoint(path, [...weights, ...moments], contents, beforeRename);
  });
}

/** Writes the frozen weights of a model into the folder of its checkpoints. */
export function saveBase(checkpointPath: string, model: Model): Promise<BaseReference> {
  const kept = frozenIn(model);
  const frozen = [...model.parameters].filter(({ name }) => kept.has(name));
  return writeBase(checkpointPath, frozen.map(namedTensor).map(toWrite));
}

const frozenIn = ({ architecture }: Model): ReadonlySet<string> =>
  new Set(architecture.parameters.flatMap(({ name, frozen }) => (frozen ? [name] : [])));

const referenceTo = ({ file, checksum }: BaseReference): BaseReference => ({ file, checksum });

/**
 * A checkpoint for acting alone: without the optimizer's moments, and without auxiliary objectives and the parameters that only they use.
 *
 * @throws InputError if nothing would be left that acts, or if what is left cannot run
 */
export async function exportCheckpoint(
  path: string,
  model: Model,
  settings: CheckpointSettings,
  progress: TrainingProgress,
): Promise<void> {
  const configuration = exported(path, settings.configuration);
  const kept = new Set(new Architecture(configuration).parameters.map(({ name }) => name));
  const weights = [...model.parameters].filter(({ name }) => kept.has(name)).map(namedTensor);
  await writeCheckpoint(path, weights, { settings: { ...settings, configuration }, progress, optimizerStep: 0 });
}

function exported(path: string, configuration: ModelConfiguration): ModelConfiguration {
  try {
    return actingConfiguration(configuration);
  } catch (error) {
    throw new InputError(`${path}: ${reasonOf(error)}`);
  }
}

interface NamedTensor {
  readonly name: string;
  readonly tensor: Moment;
}

const namedTensor = (tensor: Tensor): NamedTensor => ({ name: tensor.name, tensor });

const toWrite = ({ name, tensor }: NamedTensor) =>
  tensorToWrite(name, tensor, tensor.dtype === 'bf16' ? 'BF16' : 'F32');

async function writeCheckpoint(
  path: string,
  tensors: readonly NamedTensor[],
  contents: { settings: CheckpointSettings; progress: TrainingProgress; optimizerStep: number; base?: BaseReference },
  beforeRename?: () => Promise<void>,
): Promise<void> {
  const metadata = metadataOf({ format: CHECKPOINT_FORMAT, ...contents });
  await writeSafetensors(path, tensors.map(toWrite), { metadata, beforeRename });
}

/** An opened checkpoint: its settings are in memory, its tensors are read on demand. */
export interface Checkpoint {
  readonly path: string;
  readonly settings: CheckpointSettings;
  readonly progress: TrainingProgress;
  /** The file that holds the frozen weights, beside the checkpoint's; undefined if they are in the checkpoint. */
  readonly base?: BaseReference & { readonly checkpointPath: string };
  /** Makes the model on `device`, with the checkpoint's weights; with their averages, if the run kept them. */
  loadModel(device: Device): Promise<Model>;
  /** Restores the optimizer's moments and step number, and beside averages the weights that training goes on from. */
  loadOptimizer(optimizer: AdamW): Promise<void>;
  /** Compares all checksums, which are else compared where tensors are read. @throws InputError that names the first tensor that is damaged */
  verify(): Promise<void>;
  close(): Promise<void>;
}

/** A file that is whole and has other contents, or a checkpoint of another version. */
export class OtherFormatError extends InputError {}

/** @throws InputError if the file, or that of its frozen weights, is missing, truncated, damaged, or not a checkpoint of this project */
export function openCheckpoint(path: string): Promise<Checkpoint> {
  return openSaved(path, async (file) => {
    const contents = checkpointContents(file);
    if (!contents.base) return checkpointIn(file, contents);
    const base = await openBase(path, contents.base);
    try {
      return checkpointIn(file, contents, { ...contents.base, checkpointPath: path }, base);
    } catch (error) {
      await base.close();
      throw error;
    }
  });
}

function checkpointIn(
  file: SafetensorsFile,
  { settings, progress, optimizerStep }: Contents,
  base?: Checkpoint['base'],
  baseFile?: SafetensorsFile,
): Checkpoint {
  const tensors = baseFile ? withBase(file, baseFile) : file;
  expectFitting(tensors, settings.configuration, `the checkpoint's metadata: "settings.`, () =>
    checkEncoding(settings.encoding, settings.configuration),
  );
  return {
    path: file.name,
    settings,
    progress,
    verify: () => file.verify(),
    ...(base && { base }),
    loadModel: (device) => loadModel(tensors, device, settings.configuration),
    async loadOptimizer(optimizer) {
      if (optimizerStep === 0 && progress.step > 0)
        throw new InputError(
          `${file.name}: exported for acting, without the optimizer's moments: it cannot be resumed`,
        );
      await optimizer.averaged(async () => {
        const moments = Array.from(
          optimizer.state().tensors,
          ([name, moment]) => [`optimizer/${name}`, moment] as const,
        );
        for (const [name, { shape }] of moments) file.entry(name, { shape });
        for (const [name, moment] of moments) await file.readInto(name, moment);
        optimizer.steps = optimizerStep;
      });
    },
    async close() {
      await file.close();
      await baseFile?.close();
    },
  };
}

type Contents = v.InferOutput<typeof checkpointSchema>;

function checkpointContents(file: SafetensorsFile): Contents {
  const { name } = file;
  const { contents, format } = contentsOf(file, 'checkpoint');
  if (format !== CHECKPOINT_FORMAT) file.verifyMetadata(); // a damaged format names no version
  if (format === VISION_LANGUAGE_FORMAT)
    throw new OtherFormatError(
      `${name}: a vision-language model, which answers questions and does not act: ask it with insula act --ask, or train from it with --from`,
    );
  if (format === BASE_FORMAT)
    throw new OtherFormatError(`${name}: the frozen weights of a run with --lora: name the checkpoint beside it`);
  if (format !== CHECKPOINT_FORMAT) {
    const found =
      format === undefined ? 'the checkpoint does not say its format' : `checkpoint format ${quote(format)}`;
    throw new OtherFormatError(
      `${name}: ${found}; this version reads format ${CHECKPOINT_FORMAT}: train it anew, or use the version that wrote it`,
    );
  }
  return checked(checkpointSchema, contents, `${name}: damaged: the checkpoint's metadata`);
}
