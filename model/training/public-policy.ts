/** pi0, pi0.5 and pi0-FAST of openpi and LeRobot as policies that act here: with the statistics and cameras that lie beside their weights. */
import * as v from 'valibot';
import { InputError } from '../../engine/files/errors.ts';
import { dictionary, readJsonFile } from '../../engine/files/json-schema.ts';
import { readSafetensors, type SafetensorsFile } from '../../engine/index.ts';
import type { ActionTokenizer } from '../../tokenizers/index.ts';
import { type ColumnStatistics, type DatasetStatistics, fromNormStats, ownSlotMap } from '../data/index.ts';
import type { EncodingSettings } from '../policy/encoding.ts';
import { about, jsonOf, readTokenizer } from '../policy/tokenizer-file.ts';
import type { Checkpoint } from './checkpoint.ts';
import { checkEncoding } from './checkpoint-check.ts';
import { emptyHistory } from './history.ts';
import { openPublicModel, type PublicModel, type PublicOptions } from './public-model.ts';
import { EMBEDDING } from './public-tensors.ts';
import { runSettings } from './run-settings.ts';
import { loadModel } from './saved-model.ts';

/** The names of LeRobot's features and of its processors' files. */
export const [STATE, ACTION, CAMERA] = ['observation.state', 'action', 'observation.images.'];
export const processors = {
  before: { file: 'policy_preprocessor.json', step: 'normalizer_processor', old: 'normalize_inputs' },
  after: { file: 'policy_postprocessor.json', step: 'unnormalizer_processor', old: 'unnormalize_outputs' },
} as const;

/** The cameras of openpi's models. */
const OPENPI_CAMERAS = ['base_0_rgb', 'left_wrist_0_rgb', 'right_wrist_0_rgb'];
/** LeRobot and openpi clip no normalised number. */
const NO_BOUND = 1e9;
/** The name of the robot of a policy whose actions are padded. */
const ROBOT = 'robot';

const processorSchema = v.looseObject({
  steps: v.array(
    v.looseObject({
      registry_name: v.optional(v.string()),
      state_file: v.optional(v.pipe(v.string(), v.regex(/^[^/\\]+$/))),
      config: v.optional(
        v.looseObject({ norm_map: v.optional(dictionary(v.string())), enabled: v.optional(v.boolean()) }),
      ),
    }),
  ),
});

/** The statistics that become -1 and 1 in each of LeRobot's modes; mean and deviation are turned into these first. */
const limits: Readonly<Record<string, readonly [string, string]>> = {
  MEAN_STD: ['mean', 'std'],
  MIN_MAX: ['min', 'max'],
  QUANTILES: ['q01', 'q99'],
  QUANTILE10: ['q10', 'q90'],
};

export interface PublicPolicyOptions extends PublicOptions {
  /** Control steps per second, which no such folder records. */
  readonly rate?: number;
  /** Control steps in a chunk, of a file without config.json. */
  readonly horizon?: number;
  /** A norm_stats.json of openpi; LeRobot's folders have their own. */
  readonly statistics?: string;
  /** The FAST tokenizer of a pi0-FAST: a published folder, or a file of `insula tokenize fit`. */
  readonly tokenizer?: string;
}

/** The folder of the FAST tokenizer in those that Insula writes. */
export const ACTION_TOKENIZER = 'action_tokenizer';

/** @throws InputError if the policy is none that `openPublicModel` opens, or its statistics are missing or of another robot */
export async function openPublicPolicy(path: string, options: PublicPolicyOptions): Promise<Checkpoint> {
  const model = await openPublicModel(path, options);
  try {
    return await policyOf(model, options);
  } catch (error) {
    await model.tensors.close();
    throw error;
  }
}

async function policyOf(
  model: PublicModel,
  { rate, horizon: given, statistics: file, tokenizer, partial }: PublicPolicyOptions,
) {
  const { tensors, system, config } = model;
  const { name } = tensors;
  if (config.model_type !== undefined || !tensors.has(EMBEDDING))
    throw new InputError(`${name}: PaliGemma or SigLIP, no policy: begin from it with insula train --from`);
  if (rate === undefined)
    throw new InputError(`${name}: it does not record its control steps per second: give them with --rate`);
  const horizon = config.chunk_size ?? config.action_horizon ?? given;
  if (horizon === undefined)
    throw new InputError(`${name}: no config.json says the control steps in a chunk: give them with --horizon`);
  const features = Object.entries(config.input_features ?? {});
  const seen = features.flatMap(([key, { type }]) => (type === 'VISUAL' ? [key.replace(CAMERA, '')] : []));
  const cameras = config.input_features ? seen : OPENPI_CAMERAS;
  if (cameras.length === 0) throw new InputError(`${name}: its config.json names no camera`);
  const statistics =
    file === undefined ? await leRobotStatistics(model) : openpiStatistics(await jsonOf(file), file, system);
  const [actions, states] = [statistics.actions, statistics.states].map((own) => own?.mean.length ?? 0);
  const actionDimension = model.actionDimension ?? actions;
  const stateDimension = model.actionDimension ?? states;
  for (const [what, stated, own] of [
    ['actions', config.output_features?.[ACTION]?.shape[0], actions],
    ['states', config.input_features?.[STATE]?.shape[0], states],
  ] as const)
    if (own > Math.max(actionDimension, stateDimension) || (stated !== undefined && stated !== own))
      throw new InputError(
        `${file ?? name}: statistics of ${own} dimensions of ${what}, and the policy has ${stated ?? actionDimension}: of another robot?`,
      );
  const isPadded = actions < actionDimension || states < stateDimension;
  const dimensions = { name: ROBOT, actionDimension: actions, stateDimension: states };
  const encoding: EncodingSettings = {
    ...{ ...model.encoding, prompt: model.encoding.prompt ?? 'pi0-fast' },
    cameras,
    statistics: isPadded ? null : statistics,
    ...(isPadded && { robots: { [ROBOT]: { slots: ownSlotMap(dimensions, actionDimension), statistics } } }),
    actions: system === 'pi0-fast' ? (await fastTokenizer(model, tokenizer)).toJSON() : null,
  };
  if (system !== 'pi0-fast' && tokenizer !== undefined)
    throw new InputError(`--tokenizer: ${system} has no action tokens; leave it out`);
  const { dtype } = tensors.entry(
    'paligemma_with_expert.paligemma.model.language_model.layers.0.self_attn.q_proj.weight',
  );
  const precision = dtype === 'BF16' ? 'bf16' : 'f32';
  const sizes = { precision, actionDimension, stateDimension } as const;
  const configuration = model.configuration(cameras.length, horizon, sizes);
  about(name, () => checkEncoding(encoding, configuration));
  const data = { name, rate, actionDimension, stateDimension, cameras, instructions: 0 };
  return {
    path: name,
    settings: {
      run: runSettings({ system, preset: model.preset, steps: 0, precision }),
      data: { ...data, weights: null, statistics: null },
      configuration,
      encoding,
      adapter: 'unknown',
      variants: { attention: [], matmul: [] },
    },
    progress: { step: 0, history: emptyHistory() },
    loadModel: (device) => loadModel(tensors, device, configuration, partial),
    loadOptimizer() {
      throw new InputError(`${name}: it has no optimizer's moments: begin from it with insula train --from`);
    },
    verify: () => tensors.verify(),
    close: () => tensors.close(),
  } satisfies Checkpoint;
}

async function fastTokenizer({ tensors: { name }, folder }: PublicModel, given?: string): Promise<ActionTokenizer> {
  const { kindOfPath } = await import('../../engine/files/files.ts');
  const own = folder && `${folder}/${ACTION_TOKENIZER}`;
  const path = given ?? (own && (await kindOfPath(own)) && own);
  if (!path)
    throw new InputError(`${name}: name the folder of its FAST tokenizer with --tokenizer, which is not in its own`);
  return (await readTokenizer(path)).tokenizer;
}

/** pi0 of openpi normalises by mean and deviation, the others by quantiles. */
function openpiStatistics(json: unknown, file: string, system: PublicModel['system']): DatasetStatistics {
  const { actions, states } = fromNormStats(json, file);
  const columns = (own: ColumnStatistics) =>
    system === 'pi0' ? columnsBetween(...around(own.mean, own.std), own.mean) : own;
  return { bound: NO_BOUND, actions: columns(actions), states: states && columns(states) };
}

async function leRobotStatistics(model: PublicModel): Promise<DatasetStatistics> {
  const states = await normalised(model, processors.before, STATE, 'STATE');
  const actions = await normalised(model, processors.after, ACTION, 'ACTION');
  if (!actions)
    throw new InputError(`${model.tensors.name}: its policy_postprocessor.json has no statistics of "${ACTION}"`);
  return { bound: NO_BOUND, actions, states };
}

/** The statistics by which a processor normalises a feature, or LeRobot before 0.4, which had them beside the weights; null if it has none. */
async function normalised(
  { tensors, folder, config }: PublicModel,
  { file, step: wanted, old }: (typeof processors)['before' | 'after'],
  feature: string,
  type: string,
): Promise<ColumnStatistics | null> {
  const path = `${folder}/${file}`;
  const { kindOfPath } = await import('../../engine/files/files.ts');
  if (folder === null || (await kindOfPath(path)) === null) {
    const mode = config.normalization_mapping?.[type] ?? 'MEAN_STD';
    const columns = await columnsOf(tensors, `${old}.buffer_${feature.replaceAll('.', '_')}`, mode);
    if (columns || feature !== ACTION) return columns;
    throw new InputError(
      `${tensors.name}: neither ${file} is beside it nor statistics are in it: give openpi's norm_stats.json with --statistics`,
    );
  }
  const { steps } = await readJsonFile(path, processorSchema, "a processor of LeRobot's");
  if (steps.some(({ config }, i) => steps[i].registry_name === 'relative_actions_processor' && config?.enabled))
    throw new InputError(`${path}: its actions are relative to the state, which is not read from LeRobot yet`);
  const step = steps.find(({ registry_name: name }) => name === wanted);
  const mode = step?.config?.norm_map?.[type];
  if (!step?.state_file || mode === undefined)
    throw new InputError(`${path}: it has no ${wanted} with statistics and a mode for ${type}`);
  const state = await readSafetensors(`${folder}/${step.state_file}`);
  try {
    return await columnsOf(state, feature, mode);
  } finally {
    await state.close();
  }
}

async function columnsOf(
  source: Pick<SafetensorsFile, 'name' | 'has' | 'readFinite'>,
  feature: string,
  mode: string,
): Promise<ColumnStatistics | null> {
  const read = async (stat: string) => Array.from(await source.readFinite(`${feature}.${stat}`));
  const known = Object.values(limits)
    .flat()
    .find((stat) => source.has(`${feature}.${stat}`));
  if (known === undefined) return null;
  if (mode === 'IDENTITY') {
    const { length } = await read(known);
    return columnsBetween(Array(length).fill(-1), Array(length).fill(1));
  }
  if (!limits[mode]) throw new InputError(`${source.name}: normalisation ${mode} of "${feature}" is not known`);
  const [first, second] = await Promise.all(limits[mode].map(read));
  if (first.length !== second.length)
    throw new InputError(`${source.name}: "${feature}" has statistics of ${first.length} and ${second.length} numbers`);
  return mode === 'MEAN_STD' ? columnsBetween(...around(first, second), first) : columnsBetween(first, second);
}

/** (x - mean) / deviation is -1 and 1 one deviation from the mean. */
const around = (mean: readonly number[], deviation: readonly number[]): [number[], number[]] => [
  mean.map((own, d) => own - deviation[d]),
  mean.map((own, d) => own + deviation[d]),
];

/** The smallest range beside a number that f32 holds, by its magnitude. */
const LEAST_RANGE = 2 ** -20;

/** Statistics by which numbers from low to high become -1 to 1, and of those where both are one, the number -1, as in LeRobot. */
function columnsBetween(low: readonly number[], high: readonly number[], middle?: readonly number[]): ColumnStatistics {
  const end = high.map((own, d) =>
    own > low[d] || middle ? own : low[d] + LEAST_RANGE * Math.max(1, Math.abs(low[d])),
  );
  const mean = middle ?? low.map((own, d) => (own + end[d]) / 2);
  const std = low.map((own, d) => (end[d] - own) / 2);
  return { count: 0, mean, std, min: low, max: end, q01: low, q99: end };
}
