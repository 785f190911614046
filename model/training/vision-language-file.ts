/**
 * A vision-language model in a file: 16-bit tensors under the model's parameter names, and in the metadata what is needed to ask it
 * questions about an image, with a record of how it was made. `insula train --from` begins from such a file.
 */
import * as v from 'valibot';
import { InputError, quote } from '../../engine/files/errors.ts';
import { checked, count, nonNegative32 } from '../../engine/files/json-schema.ts';
import { writeSafetensors } from '../../engine/files/safetensors-writer.ts';
import { type Device, readSafetensors, type SafetensorsFile } from '../../engine/index.ts';
import type { BlockInput, ModelConfiguration } from '../architecture/configuration.ts';
import { Architecture, type Model } from '../architecture/model.ts';
import type { EncodingSettings } from '../policy/encoding.ts';
import { configurationOf, systemNamed } from '../systems/index.ts';
import { BASE_FORMAT } from './base-file.ts';
import { checkTokens } from './checkpoint-check.ts';
import { configurationSchema, encodingSchema } from './checkpoint-schema.ts';
import { contentsOf, expectFitting, loadModel, metadataOf, openSaved, tensorToWrite } from './saved-model.ts';

const FORMAT = 'insula vision-language model';
export const VISION_LANGUAGE_FORMAT = `${FORMAT} 1`;

const madeSchema = v.object({
  /** The command that made the file. */
  command: v.string(),
  /** The version of the program; null if it is not known. */
  commit: v.nullable(v.string()),
  adapter: v.string(),
  steps: count(),
  seconds: nonNegative32,
  /** Measurements on held-out questions by name; null where there was nothing to measure. */
  scores: v.record(v.string(), v.nullable(v.number())),
});

const contentsSchema = v.object({
  configuration: configurationSchema,
  encoding: encodingSchema,
  made: madeSchema,
});

/** How a vision-language model was made. */
export type Made = Readonly<v.InferOutput<typeof madeSchema>>;

/** An opened file: its settings are in memory, its tensors are read on demand. */
export interface VisionLanguageFile {
  readonly name: string;
  readonly configuration: ModelConfiguration;
  readonly encoding: EncodingSettings;
  readonly made: Made;
  /** Shapes of the tensors, by name. */
  readonly shapes: ReadonlyMap<string, readonly number[]>;
  /** The values of a tensor, or of rows from ... to - 1 of it. */
  read(name: string, rows?: readonly [from: number, to: number]): Promise<Float32Array>;
  /** Makes the model on `device`, with the file's weights. */
  loadModel(device: Device): Promise<Model>;
  close(): Promise<void>;
}

/** The configuration that asks: image, question and answer, with the sizes and the longest question and answer of a trained model. */
export function askingConfiguration(trained: ModelConfiguration): ModelConfiguration {
  const { backbone, backboneVariant, vocabulary, experts, depth, heads, kvHeads, headDimension, vision } = trained;
  if (!vision) throw new InputError('a vision-language model needs images, and this model has none');
  const longest = (input: BlockInput) =>
    Math.max(1, ...trained.blocks.filter((block) => block.input === input).map(({ length }) => length));
  const { blocks, ...asking } = configurationOf(systemNamed('pi0-fast'), {
    ...{ vocabulary, depth, heads, kvHeads, headDimension },
    ...{ backbone: experts.backbone, expert: experts.backbone },
    vision: { ...vision, ...Object.values(vision.towers)[0] },
    ...{ promptTokens: longest('prompt'), targetTokens: longest('target') },
    ...{ horizon: 1, actionDimension: 1, stateDimension: 0 },
  });
  return { ...asking, blocks, vision, backbone, ...(backboneVariant && { backboneVariant }) };
}

/**
 * Writes a model that answers questions, without the heads of auxiliary objectives. Its other parameters must be those of `askingConfiguration`.
 *
 * @throws InputError if they are not
 */
export async function saveVisionLanguageModel(
  path: string,
  { parameters, architecture }: Model,
  encoding: EncodingSettings,
  made: Made,
): Promise<void> {
  const configuration = askingConfiguration(architecture.configuration);
  const asking = new Architecture(configuration).parameters;
  const kept = new Set(asking.map(({ name }) => name));
  const missing = asking.find(({ name }) => !parameters.has(name));
  const unknown = architecture.parameters.find(({ name, auxiliary }) => !auxiliary && !kept.has(name));
  if (missing) throw new InputError(`${path}: the model has no ${missing.name}, which a vision-language model needs`);
  if (unknown)
    throw new InputError(`${path}: the model has ${unknown.name}, which a vision-language model does not use`);
  const tensors = asking.map(({ name }) => tensorToWrite(name, parameters.get(name), 'F16'));
  const contents = { format: VISION_LANGUAGE_FORMAT, configuration, encoding, made };
  await writeSafetensors(path, tensors, { metadata: metadataOf(contents) });
}

/** @throws InputError if the file is missing, cut off, damaged, or no vision-language model that this version reads */
export function openVisionLanguageModel(source: Parameters<typeof readSafetensors>[0]): Promise<VisionLanguageFile> {
  return openSaved(source, modelIn);
}

/** Whether a file says that it holds a vision-language model. @throws InputError if it is missing, cut off or of another program */
export async function isVisionLanguageModel(path: string): Promise<boolean> {
  const file = await readSafetensors(path);
  try {
    return String(contentsOf(file, 'checkpoint').format).startsWith(FORMAT);
  } finally {
    await file.close();
  }
}

function modelIn(file: SafetensorsFile): VisionLanguageFile {
  const { name } = file;
  const { contents, format } = contentsOf(file, 'vision-language model');
  const other =
    format === BASE_FORMAT
      ? 'the frozen weights of a run with --lora'
      : typeof format === 'number' && 'a checkpoint of insula train or pretrain';
  if (format !== VISION_LANGUAGE_FORMAT)
    throw new InputError(
      typeof format === 'string' && format.startsWith(FORMAT)
        ? `${name}: format ${quote(format)}; this version reads ${quote(VISION_LANGUAGE_FORMAT)}: use the version that wrote it`
        : other
          ? `${name}: ${other}, not a vision-language model: name one that comes with Insula, or a model.safetensors of insula pretrain`
          : `${name}: not a vision-language model, which insula pretrain writes; its format is ${quote(format ?? null)}`,
    );
  const where = "the vision-language model's metadata";
  const { configuration, encoding, made } = checked(contentsSchema, contents, `${name}: damaged: ${where}`);
  expectFitting(file, configuration, `${where}: "`, () => {
    checkTokens(encoding, configuration);
    if (!configuration.vision) throw new Error('a model without images');
    if (encoding.actions) throw new Error('action tokens, which a vision-language model has none of');
    if (!encoding.locations) throw new Error('no location tokens, which answers contain');
  });
  return {
    ...{ name, configuration, encoding, made },
    shapes: new Map(Array.from(file.tensors.values(), ({ name, shape }) => [name, shape])),
    read: (tensor, rows) => file.readFinite(tensor, { rows }),
    loadModel: (device) => loadModel(file, device, configuration),
    close: () => file.close(),
  };
}
