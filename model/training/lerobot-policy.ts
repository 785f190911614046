/** pi0, pi0.5 and pi0-FAST as a folder that LeRobot opens: weights, config.json, the processors with their statistics, and the tokenizers. */
import { InputError } from '../../engine/files/errors.ts';
import { type TensorToWrite, writeSafetensors } from '../../engine/files/safetensors-writer.ts';
import { elementCount } from '../../engine/index.ts';
import { actionTokenizerFromJson, type FastTokenizer, publicMappings, TextTokenizer } from '../../tokenizers/index.ts';
import type { ModelConfiguration } from '../architecture/configuration.ts';
import { Architecture, type Model } from '../architecture/model.ts';
import { blocksRun } from '../architecture/objectives/index.ts';
import { normalisers } from '../data/index.ts';
import { writePublished } from '../policy/tokenizer-file.ts';
import { configurationOf, systemNamed } from '../systems/index.ts';
import type { CheckpointSettings } from './checkpoint.ts';
import { presetNamed } from './presets.ts';
import { TOKENIZER } from './public-model.ts';
import { ACTION_TOKENIZER } from './public-policy.ts';
import { ACTION, CAMERA, processors, STATE } from './public-statistics.ts';
import { EMBEDDING, EXPERT_HEAD, HEAD, headsOf, PUBLIC_FILE } from './public-tensors.ts';
import { tensorToWrite } from './saved-model.ts';

/** Names of the tokenizers in LeRobot's own folders. */
const [PALIGEMMA, UNIVERSAL_FAST] = ['google/paligemma-3b-pt-224', 'lerobot/fast-action-tokenizer'];
/** Elements that are written together. */
const PART = 2 ** 22;

type LeRobotType = 'pi0' | 'pi05' | 'pi0_fast';
export type PolicySettings = Pick<CheckpointSettings, 'configuration' | 'encoding'>;

/** The part of a configuration that samples actions. */
function sampling({ rules: _, ...own }: ModelConfiguration): ModelConfiguration {
  const [kind, acting] = own.experts.expert ? ['flow', 'noisyActions'] : ['nextToken', 'target'];
  const objectives = own.objectives.filter((own) => own.kind === kind);
  const names = blocksRun(
    own,
    own.blocks.filter(({ input }) => input === acting).map(({ name }) => name),
  );
  const runs = (name: string) => names.some((block) => block.name === name);
  return {
    ...own,
    blocks: own.blocks.filter(({ name }) => runs(name)),
    edges: own.edges.filter(({ query, key }) => runs(query) && runs(key)),
    objectives,
  };
}

/** What decides whether two models compute the same: blocks and masks in words, and their tensors. */
function described(configuration: ModelConfiguration): Record<string, string> {
  const { blocks, edges } = configuration;
  const rows = blocks.map(
    ({ name, input, weights, after }) => `${name} (${input}, ${weights}, after ${after.join(' ')})`,
  );
  const masks = edges.map(({ query, key, edge }) => `${query} to ${key} ${edge.mask}${edge.window ?? ''}`);
  const { parameters } = new Architecture(configuration);
  return {
    blocks: rows.join(', '),
    'attention table': masks.sort().join(', '),
    tensors: parameters
      .map(({ name, shape }) => `${name} [${shape.join(', ')}]`)
      .sort()
      .join(', '),
  };
}

/**
 * The policy of LeRobot that a model is.
 *
 * @throws InputError that says why LeRobot has none; unless `anySizes`, also if its sizes are not the published ones, which LeRobot's
 * configuration cannot say otherwise
 */
export function leRobotType({ configuration, encoding }: PolicySettings, anySizes = false): LeRobotType {
  const refusal = (why: string) => new InputError(`openpi and LeRobot have no such policy: ${why}`);
  const { experts, vision, blocks, objectives } = configuration;
  if (!vision) throw refusal('it has no cameras');
  const { expert } = experts;
  if (!expert && !objectives.some(({ kind }) => kind === 'nextToken')) throw refusal('it has no action expert');
  const type = expert ? (expert.adaptive ? 'pi05' : 'pi0') : 'pi0_fast';
  const published = presetNamed('paligemma');
  const [[first, tower]] = Object.entries(vision.towers);
  const { backboneVariant } = configuration;
  const same = configurationOf(
    { ...systemNamed(type.replace('_', '-')), backboneVariant },
    {
      ...configuration,
      ...{ backbone: experts.backbone, expert: expert ?? published.expert, vision: { ...vision, ...tower }, rules: [] },
      lora: undefined,
      promptTokens: blocks.find(({ input }) => input === 'prompt')?.length ?? 1,
      targetTokens: 1,
    },
  );
  const [own, theirs] = [described(sampling(configuration)), described(same)];
  const differing = Object.keys(own).find((part) => own[part] !== theirs[part]);
  const { tied: _, ...variant } = backboneVariant ?? {};
  const isGemma = configuration.backbone === 'gemma' && Object.keys(variant).length === 0;
  if (!isGemma || first !== 'vision' || differing)
    throw refusal(
      `it differs from ${type} in its ${differing ? `${differing}: ${own[differing].slice(0, 200)}` : 'backbone'}`,
    );
  const { statistics, robots = {}, relative, subtask, stateAsText, stateBins, prompt, actions } = encoding;
  const robot = Object.values(robots);
  const isShifted = robot.some(({ slots }) =>
    [slots.actions, slots.state].some((own) => own.some(({ slot }, i) => slot !== i)),
  );
  const isRelative = relative?.includes(true) || robot.some(({ slots }) => slots.actions.some((own) => own.relative));
  const reasons: [boolean, string][] = [
    [statistics === null && robot.length !== 1, `it has statistics of ${robot.length} robots`],
    [isShifted, "its robot's numbers do not fill the first slots"],
    [isRelative, 'its actions are relative to the state'],
    [subtask !== undefined, 'it says a subtask before it acts'],
    [type === 'pi0' && prompt !== 'pi0', "its prompt is not pi0's, the instruction and a line feed"],
    [type !== 'pi0' && !(stateAsText && stateBins === 256), 'its prompt has no state in 256 bins'],
    [
      type === 'pi0_fast' && prompt !== 'pi0-fast-lerobot',
      "its prompt and the ids of its action tokens are not those of LeRobot's pi0_fast: begin from one with insula train --from",
    ],
    [
      type === 'pi0_fast' && (actions as { type?: string } | null)?.type !== 'fast-published',
      'its action tokenizer is not of the published form: train with the --tokenizer of a published folder',
    ],
    [vision.imageHeight !== vision.imageWidth, 'its images are not square'],
  ];
  for (const [applies, why] of reasons) if (applies) throw refusal(why);
  if (anySizes) return type;
  const { backbone } = experts;
  const { depth, heads, kvHeads, headDimension, vocabulary } = configuration;
  const sizes = {
    ...{ backbone, ...(expert && { expert: { width: expert.width, hidden: expert.hidden } }) },
    ...{ depth, heads, kvHeads, headDimension },
    ...{ vision: { ...tower, patch: vision.patch, image: vision.imageHeight }, vocabulary },
  };
  for (const [name, size] of Object.entries(sizes)) {
    const [found, known] = [size, published[name as keyof typeof sizes]].map((own) =>
      JSON.stringify(own).replace(/["{}]/g, ''),
    );
    if (found !== known)
      throw refusal(`its ${name} is ${found}, and theirs ${known} alone; --any-sizes writes it all the same`);
  }
  return type;
}

/**
 * Writes a policy. The file of config.json comes last: without it no program opens the folder.
 *
 * @throws InputError if openpi and LeRobot have no such policy (`leRobotType`), or for errors of the file system
 */
export async function writeLeRobotPolicy(
  folder: string,
  model: Model,
  settings: PolicySettings,
  anySizes = false,
): Promise<void> {
  const { encoding } = settings;
  const { configuration } = model;
  const type = leRobotType({ configuration, encoding }, anySizes);
  const isFast = type === 'pi0_fast';
  const { join, resolve } = await import('node:path');
  const { ensureFolder, writeJson } = await import('../../engine/files/files.ts');
  const tokenizer = join(folder, TOKENIZER);
  await ensureFolder(tokenizer);
  const text = tokenizerFiles(encoding.text);
  await writeJson(join(tokenizer, 'tokenizer.json'), text.tokenizer);
  await writeJson(join(tokenizer, 'tokenizer_config.json'), text.config);
  const fast = isFast ? (actionTokenizerFromJson(encoding.actions) as FastTokenizer) : null;
  if (fast) await writePublished(join(folder, ACTION_TOKENIZER), fast);
  // Names of a hub, as in LeRobot's own folders, stay right when a folder moves; paths are absolute, because LeRobot resolves them where it runs.
  const textName = text.size === publicMappings.openpi.vocabularySize ? PALIGEMMA : resolve(tokenizer);
  const fastName = fast && isUniversal(fast) ? UNIVERSAL_FAST : resolve(folder, ACTION_TOKENIZER);

  const [given] = Object.values(encoding.robots ?? {});
  const { actions, states } = normalisers(encoding.statistics ?? given.statistics);
  const visual = { type: 'VISUAL', shape: [3, configuration.vision!.imageHeight, configuration.vision!.imageWidth] };
  const inputs = {
    ...Object.fromEntries(encoding.cameras.map((name) => [`${CAMERA}${name}`, visual])),
    ...(states && { [STATE]: { type: 'STATE', shape: [states.dimension] } }),
  };
  const outputs = { [ACTION]: { type: 'ACTION', shape: [actions.dimension] } };
  const modes = { VISUAL: 'IDENTITY', STATE: 'QUANTILES', ACTION: 'QUANTILES' };
  const lengthOf = (kind: string) => configuration.blocks.find(({ input }) => input === kind)?.length ?? 0;
  // LeRobot appends the begin of sequence behind the prompt of pi0-FAST, and puts it and the end of sequence around its target.
  const length = lengthOf('prompt') - (isFast ? 1 : 0);
  const most = { max_action_tokens: lengthOf('target') + 2 };
  const step = (name: string, config: object = {}, state?: string) => ({
    ...{ registry_name: name, config },
    ...(state && { state_file: state }),
  });
  const normaliser = (features: object) => ({ eps: 1e-8, features, norm_map: modes });
  const tokens = step('tokenizer_processor', {
    ...{ max_length: length, task_key: 'task', padding_side: 'right', padding: 'max_length', truncation: true },
    tokenizer_name: textName,
  });
  const { before, after } = processors;
  const [stateBefore, stateAfter] = [before, after].map(({ file }) =>
    file.replace('.json', '_normalisation.safetensors'),
  );
  const normalise = step(before.step, normaliser({ ...inputs, ...outputs }), stateBefore);
  const names = { action_tokenizer_name: fastName, paligemma_tokenizer_name: textName };
  const actionTokens = isFast ? [step('action_tokenizer_processor', { ...names, ...most })] : [];
  const own =
    type === 'pi0'
      ? [step('pi0_new_line_processor')]
      : [normalise, step(`${type}_prepare_state_tokenizer_processor_step`)];
  const last = type === 'pi0' ? [normalise] : [];
  const device = step('device_processor', { device: 'cpu', float_dtype: null });
  const begin = [step('rename_observations_processor', { rename_map: {} }), step('to_batch_processor')];
  await writeJson(join(folder, before.file), {
    name: 'policy_preprocessor',
    steps: [...begin, ...own, tokens, ...actionTokens, device, ...last],
  });
  const end = [step(after.step, normaliser(outputs), stateAfter), device];
  await writeJson(join(folder, after.file), { name: 'policy_postprocessor', steps: end });
  const statistics = [
    ...[[ACTION, actions] as const, ...(states ? [[STATE, states] as const] : [])].flatMap(([name, { low, high }]) =>
      [['q01', low] as const, ['q99', high] as const].map(
        ([stat, values]): TensorToWrite => ({
          ...{ name: `${name}.${stat}`, dtype: 'F32', shape: [values.length], data: Float32Array.from(values) },
        }),
      ),
    ),
  ];
  for (const file of [stateBefore, stateAfter]) await writeSafetensors(join(folder, file), statistics);
  await writeSafetensors(join(folder, PUBLIC_FILE), weightsOf(model, 'LeRobot'), {
    metadata: { format: 'pt', ...headsOf(configuration) },
  });
  await writeJson(join(folder, 'config.json'), {
    ...{ type, n_obs_steps: 1, input_features: inputs, output_features: outputs, normalization_mapping: modes },
    ...{ paligemma_variant: 'gemma_2b', action_expert_variant: 'gemma_300m' },
    dtype: configuration.precision === 'bf16' ? 'bfloat16' : 'float32',
    ...{ chunk_size: configuration.horizon, n_action_steps: configuration.horizon },
    ...{ max_state_dim: configuration.actionDimension, max_action_dim: configuration.actionDimension },
    image_resolution: visual.shape.slice(1),
    tokenizer_max_length: length,
    ...(isFast && { ...most, max_decoding_steps: lengthOf('target') }),
    ...(isFast && { text_tokenizer_name: textName, action_tokenizer_name: fastName }),
  });
}

/** Whether a tokenizer has the settings of the universal one (FAST+), which no other is known to share. */
const isUniversal = ({ scale, minimum, vocabularySize }: FastTokenizer): boolean =>
  scale === 10 && minimum === -354 && vocabularySize === 2048;

/**
 * The tensors as LeRobot or openpi names them, and those that their loaders want though nothing uses them: the expert's head, and in
 * LeRobot that of the backbone. openpi's programs save the head in place of the embeddings.
 */
export function weightsOf({ parameters, configuration }: Model, program: 'LeRobot' | 'openpi'): TensorToWrite[] {
  const prefix = program === 'LeRobot' ? 'model.' : '';
  const dtypeOf = (name: string) => (parameters.get(name).dtype === 'bf16' ? 'BF16' : 'F32');
  const named = (name: string, parameter = name) =>
    tensorToWrite(`${prefix}${name}`, parameters.get(parameter), dtypeOf(parameter));
  const replaced = program === 'LeRobot' ? [HEAD] : [HEAD, EMBEDDING];
  const kept = new Architecture(sampling(configuration)).parameters.filter(({ name }) => !replaced.includes(name));
  // LeRobot's loader makes the embeddings of the head, and keeps them where they come later.
  const head = named(HEAD, parameters.has(HEAD) ? HEAD : EMBEDDING);
  const tensors = [head, ...kept.map(({ name }) => named(name))];
  const { expert } = configuration.experts;
  if (!expert) return tensors;
  const shape = [configuration.vocabulary, expert.width];
  const dtype = dtypeOf(EMBEDDING);
  const data = async function* () {
    for (let left = elementCount(shape); left > 0; left -= PART)
      yield dtype === 'BF16' ? new Uint16Array(Math.min(left, PART)) : new Float32Array(Math.min(left, PART));
  };
  return [...tensors, { name: `${prefix}${EXPERT_HEAD}`, dtype, shape, data }];
}

/** The flags of an added token that is text like others. */
const PLAIN = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: false };

/** A tokenizer.json that begins every text with the begin-of-sequence id, as LeRobot expects of PaliGemma's, and what transformers wants beside it. */
export function tokenizerFiles(json: object | undefined, further: readonly { id: number; content: string }[] = []) {
  const text = json ? new TextTokenizer(json) : TextTokenizer.default();
  const { added_tokens: added = [] } = text.toJSON() as { added_tokens?: { id: number; content: string }[] };
  const [bos, eos, pad] = (['bos', 'eos', 'pad'] as const).map((role) => {
    const token = added.find(({ id }) => id === text.special[role]);
    if (token) return token.content;
    throw new InputError(`the text tokenizer lists no ${role} token among its added_tokens, which LeRobot needs`);
  });
  const id = text.special.bos;
  const begin = [{ SpecialToken: { id: bos, type_id: 0 } }];
  const sequence = (name: string, type: number) => ({ Sequence: { id: name, type_id: type } });
  return {
    size: text.vocabularySize,
    tokenizer: {
      ...text.toJSON(),
      added_tokens: [...added, ...further.map((token) => ({ ...PLAIN, ...token }))],
      post_processor: {
        type: 'TemplateProcessing',
        single: [...begin, sequence('A', 0)],
        pair: [...begin, sequence('A', 0), sequence('B', 1)],
        special_tokens: { [bos]: { id: bos, ids: [id], tokens: [bos] } },
      },
    },
    config: { tokenizer_class: 'PreTrainedTokenizerFast', bos_token: bos, eos_token: eos, pad_token: pad },
  };
}
