/**
 * pi0, pi0.5 and pi0-FAST of openpi (PyTorch) and LeRobot as models, and to begin from also PaliGemma and SigLIP: which of them a checkpoint is
 * and its sizes follow from its tensors, and are compared with the config.json beside them. Their text tokenizer, PaliGemma's, is in no
 * folder of openpi or LeRobot and is named by the user.
 */
import * as v from 'valibot';
import { InputError, quote } from '../../engine/files/errors.ts';
import { count, dictionary, readJsonFile } from '../../engine/files/json-schema.ts';
import { readSafetensors } from '../../engine/index.ts';
import { publicMappings, TextTokenizer, type TokenizerJson } from '../../tokenizers/index.ts';
import { backboneOf } from '../architecture/backbones/index.ts';
import type { ModelConfiguration } from '../architecture/configuration.ts';
import type { ModelParameter } from '../architecture/layers.ts';
import { MOST_TOKENS } from '../architecture/limits.ts';
import { Architecture } from '../architecture/model.ts';
import type { EncodingSettings } from '../policy/encoding.ts';
import { about, jsonOf } from '../policy/tokenizer-file.ts';
import { configurationOf, type ModelSizes, systemNamed } from '../systems/index.ts';
import { type Preset, presetNamed } from './presets.ts';
import { EMBEDDING, HEAD, listed, openPublicTensors, type PublicTensors } from './public-tensors.ts';

const feature = v.looseObject({ type: v.string(), shape: v.array(count()) });
/** The fields of config.json that decide a model or say what it takes: LeRobot's, openpi's `action_dim` and `action_horizon`, and transformers'. */
const configSchema = v.looseObject({
  type: v.optional(v.string()),
  model_type: v.optional(v.string()),
  max_action_dim: v.optional(count(1)),
  action_dim: v.optional(count(1)),
  max_state_dim: v.optional(count(1)),
  chunk_size: v.optional(count(1, MOST_TOKENS)),
  action_horizon: v.optional(count(1, MOST_TOKENS)),
  tokenizer_max_length: v.optional(count(1)),
  max_decoding_steps: v.optional(count(1)),
  fast_skip_tokens: v.optional(v.literal(publicMappings.openpi.skip)),
  image_resolution: v.optional(v.array(count(1))),
  input_features: v.optional(dictionary(feature)),
  output_features: v.optional(dictionary(feature)),
  use_relative_actions: v.optional(v.boolean()),
  text_config: v.optional(v.looseObject({ num_key_value_heads: v.optional(count(1)) })),
  vision_config: v.optional(v.looseObject({ num_attention_heads: v.optional(count(1)) })),
  normalization_mapping: v.optional(dictionary(v.string())),
});
export type PublicConfig = v.InferOutput<typeof configSchema>;

export interface PublicModel {
  readonly tensors: PublicTensors;
  /** pi0-fast for a language model with images alone, PaliGemma itself too, and for the tower of images alone, SigLIP. */
  readonly system: 'pi0' | 'pi05' | 'pi0-fast';
  /** Its sizes, with the training of the public recipe. */
  readonly preset: Preset;
  /** Dimensions of its actions, robots' own padded; null without an action expert, whose action tokens are of any. */
  readonly actionDimension: number | null;
  readonly config: PublicConfig;
  /** The folder of config.json and what else belongs to the policy. */
  readonly folder: string;
  /** The parts of an encoding that its weights fix. */
  readonly encoding: Pick<EncodingSettings, 'text' | 'stateAsText' | 'prompt' | 'stateBins' | 'leastRows'>;
  /** The model with this many cameras and actions in a chunk. */
  configuration(
    cameras: number,
    horizon: number,
    own?: Partial<Pick<ModelSizes, 'precision' | 'actionDimension' | 'stateDimension'>>,
  ): ModelConfiguration;
}

export interface PublicOptions {
  /** A folder with PaliGemma's tokenizer.json, or this file. */
  readonly textTokenizer?: string;
  /** Tensors that are missing or have no place are no error. */
  readonly partial?: boolean;
  /** Is told what `partial` passes over. */
  readonly note?: (line: string) => void;
  /** The sizes of all but the tower, of a run from SigLIP. */
  readonly preset?: Preset;
}

/** The folder of the tokenizer in those that Insula writes. */
export const TOKENIZER = 'tokenizer';

/** Rows of PaliGemma's embeddings in transformers; those behind the published ones are padding. */
const PALIGEMMA_ROWS = 257_216;

/** Heads of SigLIP's towers by width (openpi, siglip.py); shapes do not tell them, and only transformers' config.json does. */
const towerHeads: Readonly<Record<number, number>> = { 32: 2, 192: 3, 384: 6, 512: 8, 768: 12, 1024: 16, 1152: 16 };

/** Whether a path is no file of Insula: a folder, an index, or safetensors that no program of this project wrote. */
export async function isPublic(path: string): Promise<boolean> {
  const { kindOfPath } = await import('../../engine/files/files.ts');
  const kind = await kindOfPath(path);
  if (kind !== 'file') return kind === 'folder';
  if (path.endsWith('.json')) return true;
  const file = await readSafetensors(path);
  await file.close();
  return !file.metadata.has('insula');
}

/** @throws InputError if it is none of these, lacks tensors or has others, or config.json or the tokenizer do not fit */
export async function openPublicModel(path: string, options: PublicOptions): Promise<PublicModel> {
  const tensors = await openPublicTensors(path);
  try {
    return await modelOf(tensors, path, options);
  } catch (error) {
    await tensors.close();
    throw error;
  }
}

async function modelOf(
  tensors: PublicTensors,
  path: string,
  { textTokenizer, partial = false, note, preset: wanted }: PublicOptions,
): Promise<PublicModel> {
  const { kindOfPath } = await import('../../engine/files/files.ts');
  const folder = (await kindOfPath(path)) === 'folder' ? path : path.replace(/[/\\]?[^/\\]*$/, '') || '.';
  const described = `${folder}/config.json`;
  const config =
    (await kindOfPath(described)) === null
      ? {}
      : await readJsonFile(described, configSchema, 'the config.json of a policy');
  const isTower = !tensors.has(EMBEDDING) && tensors.has(`${TOWER}.embeddings.patch_embedding.weight`);
  const { system, preset, actionDimension } = isTower ? towerSizes(tensors, config, wanted) : sizesOf(tensors, config);
  // The losses of pi0 and pi0.5 do not reach the head: where it differs from the embeddings, these are what acts.
  const isTied = system !== 'pi0-fast' || config.model_type !== undefined || !tensors.has(HEAD);
  if (isTied) tensors.tie();
  const prompt = system !== 'pi0-fast' ? system : config.type ? ('pi0-fast-lerobot' as const) : undefined;
  const promptTokens = config.tokenizer_max_length ?? (system === 'pi0' ? 48 : 200);
  const variant = isTied ? {} : { backboneVariant: { tied: false } };
  const configuration: PublicModel['configuration'] = (cameras, horizon, own) =>
    configurationOf(
      { ...systemNamed(system), ...variant },
      {
        ...{ ...preset, vocabulary: preset.vocabulary ?? 1, horizon, actionDimension: actionDimension ?? 1 },
        vision: { ...preset.vision, imageHeight: preset.vision.image, imageWidth: preset.vision.image, cameras },
        // The begin of sequence behind the prompt is not one of LeRobot's tokens of it.
        promptTokens: promptTokens + (prompt === 'pi0-fast-lerobot' ? 1 : 0),
        targetTokens: config.max_decoding_steps ?? 256,
        stateDimension: actionDimension ?? 0,
        ...own,
      },
    );
  const { parameters } = new Architecture(configuration(1, 1));
  const expected = isTower ? parameters.filter(({ name }) => name.startsWith(TOWER)) : parameters;
  const lack = expectTensors(tensors, expected, isTower ? 'SigLIP' : system, partial);
  if (lack) note?.(lack);
  if (isTower && textTokenizer !== undefined)
    throw new InputError(
      `--text-tokenizer: ${tensors.name} is SigLIP, of which the images alone are used; leave it out`,
    );
  const states = { stateAsText: system !== 'pi0', stateBins: isTower ? preset.stateBins : 256 };
  const encoding = {
    ...(!isTower && { text: await textOf(tensors.name, folder, preset.vocabulary!, textTokenizer) }),
    ...(prompt && { prompt }),
    ...{ ...states, leastRows: preset.vocabulary },
  };
  return { tensors, system, preset, actionDimension, config, folder, encoding, configuration };
}

/** The shape of a weight with so many axes. */
function shapeOf(tensors: PublicTensors, name: string, axes: number): readonly number[] {
  const { shape } = tensors.entry(`${name}.weight`);
  if (shape.length === axes && !shape.includes(0)) return shape;
  throw new InputError(`${tensors.name}: tensor ${quote(`${name}.weight`)} has shape [${shape.join(', ')}]`);
}

const depthOf = ({ tensors }: PublicTensors, prefix: string): number =>
  [...tensors.keys()].filter((name) => name.startsWith(`${prefix}.layers.`) && name.endsWith('.q_proj.weight')).length;

const { names } = backboneOf({ backbone: 'gemma' });
const TOWER = names.tower('vision', true);

function towerOf(tensors: PublicTensors, config: PublicConfig): Preset['vision'] {
  const [width, , patch] = shapeOf(tensors, `${TOWER}.embeddings.patch_embedding`, 4);
  const [patches] = shapeOf(tensors, `${TOWER}.embeddings.position_embedding`, 2);
  const side = Math.sqrt(patches);
  const heads = config.vision_config?.num_attention_heads ?? tensors.heads('vision_heads') ?? towerHeads[width];
  if (heads === undefined || width % heads !== 0 || !Number.isInteger(side))
    throw new InputError(
      `${tensors.name}: sizes of no published model: a tower of width ${width} for ${patches} patches`,
    );
  const [hidden] = shapeOf(tensors, `${TOWER}.encoder.layers.0.mlp.fc1`, 2);
  return { width, depth: depthOf(tensors, `${TOWER}.encoder`), heads, hidden, patch, image: patch * side };
}

/** A model with a tower of SigLIP, otherwise of the wanted sizes. */
function towerSizes(tensors: PublicTensors, config: PublicConfig, wanted: Preset = presetNamed('paligemma')) {
  const vision = towerOf(tensors, config);
  const isSame = Object.entries(vision).every(([name, own]) => own === wanted.vision[name as keyof typeof vision]);
  const preset = isSame ? wanted : { ...wanted, name: `${wanted.name}-siglip`, vision };
  return { system: 'pi0-fast' as const, preset, actionDimension: null };
}

function sizesOf(tensors: PublicTensors, config: PublicConfig) {
  const [backbone, expert] = [names.expert('backbone'), names.expert('expert')];
  const flow = (['pi05', 'pi0'] as const).find((_, i) =>
    tensors.has(['time_mlp_in.weight', 'action_time_mlp_in.weight'][i]),
  );
  const system: PublicModel['system'] = flow ?? 'pi0-fast';
  if (!tensors.has(EMBEDDING) || !tensors.has(`${backbone}.layers.0.self_attn.q_proj.weight`))
    throw new InputError(
      `${tensors.name}: neither pi0, pi0.5, pi0-FAST, PaliGemma nor SigLIP: its tensors are ${listed([...tensors.tensors.keys()])}`,
    );
  const shape = (name: string, axes: number) => shapeOf(tensors, name, axes);
  const [queries, width] = shape(`${backbone}.layers.0.self_attn.q_proj`, 2);
  // No file of a published policy says its heads of keys and values: all have one.
  const kvHeads = config.text_config?.num_key_value_heads ?? tensors.heads('key_value_heads') ?? 1;
  const headDimension = shape(`${backbone}.layers.0.self_attn.k_proj`, 2)[0] / kvHeads;
  const [rows, embedded] = shape(EMBEDDING.replace(/\.weight$/, ''), 2);
  if (embedded !== width || !Number.isInteger(headDimension) || !Number.isInteger(queries / headDimension))
    throw new InputError(
      `${tensors.name}: sizes of no published model: embeddings of width ${embedded}, and ${queries} query rows of width ${width} beside ${headDimension} of keys`,
    );
  const vision = towerOf(tensors, config);
  const { image } = vision;
  const published = presetNamed('paligemma');
  const { expert: usual } = published;
  const [hidden, expertWidth] = flow ? shape(`${expert}.layers.0.mlp.gate_proj`, 2) : [usual.hidden, usual.width];
  const sizes = {
    backbone: { width, hidden: shape(`${backbone}.layers.0.mlp.gate_proj`, 2)[0] },
    expert: { width: expertWidth, hidden },
    ...{ depth: depthOf(tensors, backbone), heads: queries / headDimension, kvHeads, headDimension, vision },
    vocabulary: rows === PALIGEMMA_ROWS ? published.vocabulary! : rows,
  };
  const isPublished = Object.entries(sizes).every(
    ([name, own]) => JSON.stringify(own) === JSON.stringify(published[name as keyof Preset]),
  );
  const named = { name: 'checkpoint', description: `the sizes of ${tensors.name}` };
  const actionDimension = flow ? shape('action_in_proj', 2)[1] : null;
  const stateDimension = system === 'pi0' ? shape('state_proj', 2)[1] : actionDimension;
  if (stateDimension !== actionDimension)
    throw new InputError(
      `${tensors.name}: it takes states of ${stateDimension} numbers and actions of ${actionDimension}: here both have one width`,
    );
  for (const [field, stated, found] of [
    ['type', config.type?.replace('_', '-'), system],
    ['max_action_dim', config.max_action_dim, actionDimension],
    ['action_dim', config.action_dim, actionDimension],
    ['max_state_dim', config.max_state_dim, stateDimension],
    ['image_resolution', config.image_resolution?.join(' x '), `${image} x ${image}`],
  ] as const)
    if (stated !== undefined && found !== null && stated !== found)
      throw new InputError(`${tensors.name}: its config.json says ${field} ${stated}, and its tensors ${found}`);
  return { system, preset: { ...published, ...sizes, ...(!isPublished && named) } satisfies Preset, actionDimension };
}

/** A line that lists what is missing and what has no place. @throws InputError of it, unless `partial`, or for another shape */
function expectTensors(
  tensors: PublicTensors,
  parameters: readonly ModelParameter[],
  system: string,
  partial: boolean,
): string | null {
  const names = new Set(parameters.map(({ name }) => name));
  // pi0.5 has no state token, and the expert's norms are adaptive; openpi and LeRobot pass over what old files have of both.
  const passed = system === 'pi05' ? /^state_proj\.|\.gemma_expert\..*norm\.weight$/ : /^$/;
  const missing = [...names].filter((name) => !tensors.has(name));
  const unexpected = [...tensors.tensors.keys()].filter((name) => !names.has(name) && !passed.test(name));
  const parts = [
    missing.length > 0 && `lacks ${listed(missing)}`,
    unexpected.length > 0 && `has ${listed(unexpected)}, for which ${system} has no place`,
  ].filter(Boolean);
  const line = parts.length > 0 ? `${tensors.name}: it ${parts.join(', and ')}` : null;
  if (line && !partial) throw new InputError(`${line}; --partial goes on without them`);
  for (const { name, shape } of parameters)
    if (tensors.has(name)) tensors.entry(name, name === EMBEDDING ? {} : { shape });
  return line;
}

async function textOf(name: string, folder: string, rows: number, given?: string): Promise<TokenizerJson> {
  const { kindOfPath } = await import('../../engine/files/files.ts');
  const own = `${folder}/${TOKENIZER}`;
  const named = given ?? ((await kindOfPath(own)) === null ? folder : own);
  const path = (await kindOfPath(named)) === 'file' ? named : `${named}/tokenizer.json`;
  if ((await kindOfPath(path)) === null)
    throw new InputError(
      `${name}: ${path} is missing: name PaliGemma's tokenizer, the folder of its tokenizer.json, with --text-tokenizer`,
    );
  const json = withoutImage((await jsonOf(path)) as TokenizerJson);
  const { vocabularySize } = about(path, () => new TextTokenizer(json));
  if (vocabularySize > rows)
    throw new InputError(`${path}: a tokenizer of ${vocabularySize} ids; ${name} embeds ${rows}: name its own`);
  return json;
}

/** PaliGemma's tokenizer.json has a placeholder of images behind the last row of the embeddings, which no text contains. */
function withoutImage(json: TokenizerJson): TokenizerJson {
  const { added_tokens: added, model } = json as { added_tokens?: { content?: string }[]; model?: { vocab?: object } };
  const { '<image>': _, ...vocab } = (model?.vocab ?? {}) as Record<string, number>;
  return {
    ...json,
    ...(Array.isArray(added) && { added_tokens: added.filter((own) => own?.content !== '<image>') }),
    ...(model?.vocab && !Array.isArray(model.vocab) && { model: { ...model, vocab } }),
  };
}
