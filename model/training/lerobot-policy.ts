/** pi0 and pi0.5 as a folder that LeRobot opens: weights, config.json, the processors with their statistics, and the text tokenizer. */
import { InputError } from '../../engine/files/errors.ts';
import { type TensorToWrite, writeSafetensors } from '../../engine/files/safetensors-writer.ts';
import { elementCount } from '../../engine/index.ts';
import { TextTokenizer } from '../../tokenizers/index.ts';
import type { ModelConfiguration } from '../architecture/configuration.ts';
import { Architecture, type Model } from '../architecture/model.ts';
import { blocksRun } from '../architecture/objectives/index.ts';
import { normalisers } from '../data/index.ts';
import { configurationOf, systemNamed } from '../systems/index.ts';
import type { CheckpointSettings } from './checkpoint.ts';
import { presetNamed } from './presets.ts';
import { TOKENIZER } from './public-model.ts';
import { ACTION, CAMERA, processors, STATE } from './public-policy.ts';
import { EMBEDDING, EXPERT_HEAD, HEAD, PUBLIC_FILE } from './public-tensors.ts';
import { tensorToWrite } from './saved-model.ts';

/** Elements that are written together. */
const PART = 2 ** 22;

export type PolicySettings = Pick<CheckpointSettings, 'configuration' | 'encoding'>;

/** The part of a configuration that samples actions. */
function sampling({ rules: _, ...own }: ModelConfiguration): ModelConfiguration {
  const flows = own.objectives.filter(({ kind }) => kind === 'flow');
  const names = blocksRun(
    own,
    own.blocks.filter(({ input }) => input === 'noisyActions').map(({ name }) => name),
  );
  const runs = (name: string) => names.some((block) => block.name === name);
  return {
    ...own,
    blocks: own.blocks.filter(({ name }) => runs(name)),
    edges: own.edges.filter(({ query, key }) => runs(query) && runs(key)),
    objectives: flows,
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
export function leRobotType({ configuration, encoding }: PolicySettings, anySizes = false): 'pi0' | 'pi05' {
  const refusal = (why: string) => new InputError(`LeRobot has no such policy: ${why}`);
  const { experts, vision, blocks } = configuration;
  if (!vision || !experts.expert) throw refusal(vision ? 'it has no action expert' : 'it has no cameras');
  const type = experts.expert.adaptive ? 'pi05' : 'pi0';
  const [[first, tower]] = Object.entries(vision.towers);
  const same = configurationOf(systemNamed(type), {
    ...configuration,
    ...{ backbone: experts.backbone, expert: experts.expert, vision: { ...vision, ...tower }, rules: [] },
    lora: undefined,
    promptTokens: blocks.find(({ input }) => input === 'prompt')?.length ?? 1,
    targetTokens: 1,
  });
  const [own, theirs] = [described(sampling(configuration)), described(same)];
  const differing = Object.keys(own).find((part) => own[part] !== theirs[part]);
  if (configuration.backbone !== 'gemma' || first !== 'vision' || differing)
    throw refusal(
      `it differs from ${type} in its ${differing ? `${differing}: ${own[differing].slice(0, 200)}` : 'backbone'}`,
    );
  const { statistics, robots = {}, relative, subtask, stateAsText, stateBins, prompt } = encoding;
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
    [type === 'pi05' && !(stateAsText && stateBins === 256), 'its prompt has no state in 256 bins'],
    [vision.imageHeight !== vision.imageWidth, 'its images are not square'],
  ];
  for (const [applies, why] of reasons) if (applies) throw refusal(why);
  if (anySizes) return type;
  const { backbone, expert } = experts;
  const { depth, heads, kvHeads, headDimension, vocabulary } = configuration;
  const sizes = {
    ...{ backbone, expert: { width: expert.width, hidden: expert.hidden }, depth, heads, kvHeads, headDimension },
    ...{ vision: { ...tower, patch: vision.patch, image: vision.imageHeight }, vocabulary },
  };
  const published: Readonly<Record<string, unknown>> = presetNamed('paligemma');
  for (const [name, size] of Object.entries(sizes)) {
    const [found, known] = [size, published[name]].map((own) => JSON.stringify(own).replace(/["{}]/g, ''));
    if (found !== known) throw refusal(`its ${name} is ${found}, and LeRobot knows ${known} alone`);
  }
  return type;
}

/**
 * Writes a policy. The file of config.json comes last: without it no program opens the folder.
 *
 * @throws InputError if LeRobot has no such policy (`leRobotType`), or for errors of the file system
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
  const [{ mkdir }, { join, resolve }] = await Promise.all([import('node:fs/promises'), import('node:path')]);
  const { fileError, writeFileSafely } = await import('../../engine/files/files.ts');
  const tokenizer = join(folder, TOKENIZER);
  await mkdir(tokenizer, { recursive: true }).catch((error) => {
    throw fileError(error, tokenizer, 'make this folder');
  });
  const write = (path: string, json: unknown) => writeFileSafely(path, [`${JSON.stringify(json, null, 2)}\n`]);
  const text = tokenizerFiles(encoding.text);
  await write(join(tokenizer, 'tokenizer.json'), text.tokenizer);
  await write(join(tokenizer, 'tokenizer_config.json'), text.config);

  const [given] = Object.values(encoding.robots ?? {});
  const { actions, states } = normalisers(encoding.statistics ?? given.statistics);
  const visual = { type: 'VISUAL', shape: [3, configuration.vision!.imageHeight, configuration.vision!.imageWidth] };
  const inputs = {
    ...Object.fromEntries(encoding.cameras.map((name) => [`${CAMERA}${name}`, visual])),
    ...(states && { [STATE]: { type: 'STATE', shape: [states.dimension] } }),
  };
  const outputs = { [ACTION]: { type: 'ACTION', shape: [actions.dimension] } };
  const modes = { VISUAL: 'IDENTITY', STATE: 'QUANTILES', ACTION: 'QUANTILES' };
  const length = configuration.blocks.find(({ input }) => input === 'prompt')!.length;
  const step = (name: string, config: object = {}, state?: string) => ({
    ...{ registry_name: name, config },
    ...(state && { state_file: state }),
  });
  const normaliser = (features: object) => ({ eps: 1e-8, features, norm_map: modes });
  const tokens = step('tokenizer_processor', {
    ...{ max_length: length, task_key: 'task', padding_side: 'right', padding: 'max_length', truncation: true },
    tokenizer_name: resolve(tokenizer),
  });
  const { before, after } = processors;
  const [stateBefore, stateAfter] = [before, after].map(({ file }) =>
    file.replace('.json', '_normalisation.safetensors'),
  );
  const normalise = step(before.step, normaliser({ ...inputs, ...outputs }), stateBefore);
  const own =
    type === 'pi05'
      ? [normalise, step('pi05_prepare_state_tokenizer_processor_step')]
      : [step('pi0_new_line_processor')];
  const last = type === 'pi05' ? [] : [normalise];
  const device = step('device_processor', { device: 'cpu', float_dtype: null });
  const begin = [step('rename_observations_processor', { rename_map: {} }), step('to_batch_processor')];
  await write(join(folder, before.file), {
    name: 'policy_preprocessor',
    steps: [...begin, ...own, tokens, device, ...last],
  });
  const end = [step(after.step, normaliser(outputs), stateAfter), device];
  await write(join(folder, after.file), { name: 'policy_postprocessor', steps: end });
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
  await writeSafetensors(join(folder, PUBLIC_FILE), weightsOf(model, 'model.', [HEAD, EXPERT_HEAD]), {
    metadata: { format: 'pt' },
  });
  await write(join(folder, 'config.json'), {
    ...{ type, n_obs_steps: 1, input_features: inputs, output_features: outputs, normalization_mapping: modes },
    ...{ paligemma_variant: 'gemma_2b', action_expert_variant: 'gemma_300m' },
    dtype: configuration.precision === 'bf16' ? 'bfloat16' : 'float32',
    ...{ chunk_size: configuration.horizon, n_action_steps: configuration.horizon },
    ...{ max_state_dim: configuration.actionDimension, max_action_dim: configuration.actionDimension },
    image_resolution: visual.shape.slice(1),
    tokenizer_max_length: length,
  });
}

/** The tensors under public names, and of the heads that a loader wants though nothing uses them. */
export function weightsOf(
  { parameters, configuration }: Model,
  prefix: 'model.' | '',
  heads: readonly (typeof HEAD | typeof EXPERT_HEAD)[],
): TensorToWrite[] {
  const dtypeOf = (name: string) => (parameters.get(name).dtype === 'bf16' ? 'BF16' : 'F32');
  const named = (name: string, parameter = name) =>
    tensorToWrite(`${prefix}${name}`, parameters.get(parameter), dtypeOf(parameter));
  const kept = new Architecture(sampling(configuration)).parameters.map(({ name }) => named(name));
  const shape = [configuration.vocabulary, configuration.experts.expert.width];
  const dtype = dtypeOf(EMBEDDING);
  const data = async function* () {
    for (let left = elementCount(shape); left > 0; left -= PART)
      yield dtype === 'BF16' ? new Uint16Array(Math.min(left, PART)) : new Float32Array(Math.min(left, PART));
  };
  const zeros = { name: `${prefix}${EXPERT_HEAD}`, dtype, shape, data } satisfies TensorToWrite;
  return [...kept, ...heads.map((head) => (head === HEAD ? named(HEAD, EMBEDDING) : zeros))];
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
