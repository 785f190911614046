/** pi0 and pi0.5 of openpi and LeRobot as policies that act here: with the statistics and cameras that lie beside their weights. */
import * as v from 'valibot';
import { InputError } from '../../engine/files/errors.ts';
import { dictionary, readJsonFile } from '../../engine/files/json-schema.ts';
import { readSafetensors, type SafetensorsFile } from '../../engine/index.ts';
import { type ColumnStatistics, type DatasetStatistics, fromNormStats, ownSlotMap } from '../data/index.ts';
import type { EncodingSettings } from '../policy/encoding.ts';
import { jsonOf } from '../policy/tokenizer-file.ts';
import type { Checkpoint } from './checkpoint.ts';
import { checkEncoding } from './checkpoint-check.ts';
import { emptyHistory } from './history.ts';
import { openPublicModel, type PublicModel, type PublicOptions } from './public-model.ts';
import { runSettings } from './run-settings.ts';
import { loadModel } from './saved-model.ts';

/** The names of LeRobot's features and of its processors' files. */
export const [STATE, ACTION, CAMERA] = ['observation.state', 'action', 'observation.images.'];
export const processors = {
  before: { file: 'policy_preprocessor.json', step: 'normalizer_processor' },
  after: { file: 'policy_postprocessor.json', step: 'unnormalizer_processor' },
} as const;

/** The cameras of openpi's models. */
export const OPENPI_CAMERAS = ['base_0_rgb', 'left_wrist_0_rgb', 'right_wrist_0_rgb'];
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
        v.looseObject({
          norm_map: v.optional(dictionary(v.string())),
          enabled: v.optional(v.boolean()),
          exclude_joints: v.optional(v.nullable(v.array(v.string()))),
          action_names: v.optional(v.nullable(v.array(v.string()))),
        }),
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
}

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

async function policyOf(model: PublicModel, { rate, horizon: given, statistics: named }: PublicPolicyOptions) {
  const { tensors, system, config, actionDimension } = model;
  const { name } = tensors;
  if (actionDimension === null || system === 'pi0-fast')
    throw new InputError(
      `${name}: PaliGemma or pi0-FAST, whose action tokens have other ids than those here: begin from it with insula train --from`,
    );
  if (rate === undefined)
    throw new InputError(`${name}: it does not record its control steps per second: give them with --rate`);
  const horizon = config.chunk_size ?? config.action_horizon ?? given;
  if (horizon === undefined)
    throw new InputError(`${name}: no config.json says the control steps in a chunk: give them with --horizon`);
  const features = Object.entries(config.input_features ?? {});
  const seen = features.flatMap(([key, { type }]) => (type === 'VISUAL' ? [key.replace(CAMERA, '')] : []));
  const cameras = config.input_features ? seen : OPENPI_CAMERAS;
  const file = named ?? (await openpiAsset(model));
  const statistics =
    file === undefined ? await leRobotStatistics(model) : openpiStatistics(await jsonOf(file), file, system);
  const [actions, states] = [statistics.actions, statistics.states].map((own) => own?.mean.length ?? 0);
  for (const [what, stated, own] of [
    ['actions', config.output_features?.[ACTION]?.shape[0], actions],
    ['states', config.input_features?.[STATE]?.shape[0], states],
  ] as const)
    if (own > actionDimension || (stated !== undefined && stated !== own))
      throw new InputError(
        `${file ?? name}: statistics of ${own} dimensions of ${what}, and the policy has ${stated ?? actionDimension}: of another robot?`,
      );
  const isPadded = actions < actionDimension || states < actionDimension;
  const relative = await relativeDimensions(model, actions, states);
  const plain = ownSlotMap({ name: ROBOT, actionDimension: actions, stateDimension: states }, actionDimension);
  const slots = { ...plain, actions: plain.actions.map((slot, i) => ({ ...slot, relative: relative?.[i] ?? false })) };
  const encoding: EncodingSettings = {
    ...model.encoding,
    cameras,
    statistics: isPadded ? null : statistics,
    ...(isPadded && { robots: { [ROBOT]: { slots, statistics } } }),
    ...(relative && !isPadded && { relative }),
    actions: null,
  };
  const { dtype } = tensors.entry('paligemma_with_expert.gemma_expert.model.layers.0.self_attn.q_proj.weight');
  const precision = dtype === 'BF16' ? 'bf16' : 'f32';
  const configuration = model.configuration(cameras.length, horizon, precision);
  checkEncoding(encoding, configuration);
  const data = { name, rate, actionDimension, stateDimension: actionDimension, cameras, instructions: 0 };
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
    loadModel: (device) => loadModel(tensors, device, configuration),
    loadOptimizer() {
      throw new InputError(`${name}: it has no optimizer's moments: begin from it with insula train --from`);
    },
    verify: () => tensors.verify(),
    close: () => tensors.close(),
  } satisfies Checkpoint;
}

/** The statistics among the assets of a folder of openpi; undefined for others. */
async function openpiAsset({ folder, config, tensors: { name } }: PublicModel): Promise<string | undefined> {
  if (folder === null || config.type !== undefined) return undefined;
  const [{ readdir }, { kindOfPath }] = await Promise.all([
    import('node:fs/promises'),
    import('../../engine/files/files.ts'),
  ]);
  const robots = await readdir(`${folder}/assets`).catch(() => []);
  const found: string[] = [];
  for (const robot of robots.sort()) {
    const file = `${folder}/assets/${robot}/norm_stats.json`;
    if ((await kindOfPath(file)) === 'file') found.push(file);
  }
  if (found.length > 1)
    throw new InputError(
      `${name}: it has statistics of ${found.length} robots: give one with --statistics, as ${found[0]}`,
    );
  return found[0];
}

/** pi0 of openpi normalises by mean and deviation, pi0.5 by quantiles. */
function openpiStatistics(json: unknown, file: string, system: PublicModel['system']): DatasetStatistics {
  const { actions, states } = fromNormStats(json, file);
  const columns = (own: ColumnStatistics) =>
    system === 'pi05' ? own : columnsBetween(...around(own.mean, own.std), own.mean);
  return { bound: NO_BOUND, actions: columns(actions), states: states && columns(states) };
}

async function leRobotStatistics({ tensors: { name }, folder }: PublicModel): Promise<DatasetStatistics> {
  if (folder === null)
    throw new InputError(`${name}: it has no statistics beside it: give openpi's norm_stats.json with --statistics`);
  const states = await normalised(folder, processors.before, STATE, 'STATE');
  const actions = await normalised(folder, processors.after, ACTION, 'ACTION');
  if (!actions) throw new InputError(`${folder}/${processors.after.file}: its state has no statistics of "${ACTION}"`);
  return { bound: NO_BOUND, actions, states };
}

/** The statistics by which a processor normalises a feature; null if it has none. */
async function normalised(
  folder: string,
  { file, step: wanted }: (typeof processors)['before' | 'after'],
  feature: string,
  type: string,
): Promise<ColumnStatistics | null> {
  const path = `${folder}/${file}`;
  const { kindOfPath } = await import('../../engine/files/files.ts');
  if ((await kindOfPath(path)) === null)
    throw new InputError(`${path} is missing: give openpi's norm_stats.json with --statistics`);
  const { steps } = await readJsonFile(path, processorSchema, "a processor of LeRobot's");
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

async function columnsOf(state: SafetensorsFile, feature: string, mode: string): Promise<ColumnStatistics | null> {
  const known = [...state.tensors.keys()].filter((name) => name.startsWith(`${feature}.`));
  if (known.length === 0) return null;
  if (mode === 'IDENTITY') {
    const { length } = await state.readFinite(known[0]);
    return columnsBetween(Array(length).fill(-1), Array(length).fill(1));
  }
  if (!limits[mode]) throw new InputError(`${state.name}: normalisation ${mode} of "${feature}" is not known`);
  const [first, second] = await Promise.all(
    limits[mode].map(async (name) => Array.from(await state.readFinite(`${feature}.${name}`))),
  );
  if (first.length !== second.length)
    throw new InputError(`${state.name}: "${feature}" has statistics of ${first.length} and ${second.length} numbers`);
  return mode === 'MEAN_STD' ? columnsBetween(...around(first, second), first) : columnsBetween(first, second);
}

/**
 * The action dimensions that are relative to the state: all but those whose names contain that of a joint to be left absolute (LeRobot,
 * relative_action_processor.py). undefined if none is.
 */
async function relativeDimensions(
  { folder, config, tensors: { name } }: PublicModel,
  actions: number,
  states: number,
): Promise<boolean[] | undefined> {
  const { file } = processors.before;
  const path = `${folder}/${file}`;
  const { kindOfPath } = await import('../../engine/files/files.ts');
  if (folder === null || (await kindOfPath(path)) === null) {
    if (!config.use_relative_actions) return undefined;
    throw new InputError(`${name}: its actions are relative to the state, and ${file}, which says which, is missing`);
  }
  const { steps } = await readJsonFile(path, processorSchema, "a processor of LeRobot's");
  const step = steps.find(({ registry_name: own }) => own === 'relative_actions_processor')?.config;
  if (!step?.enabled) return undefined;
  const absolute = (step.exclude_joints ?? []).filter(Boolean).map((own) => own.toLowerCase());
  const names = step.action_names?.map((own) => own.toLowerCase()) ?? [];
  const relative = Array.from({ length: actions }, (_, d) => !absolute.some((own) => names[d]?.includes(own)));
  const widest = 1 + relative.lastIndexOf(true);
  if (widest > states)
    throw new InputError(`${path}: actions relative to ${widest} dimensions of a state that has ${states}`);
  return relative;
}

/** (x - mean) / deviation is -1 and 1 one deviation from the mean. */
const around = (mean: readonly number[], deviation: readonly number[]): [number[], number[]] => [
  mean.map((own, d) => own - deviation[d]),
  mean.map((own, d) => own + deviation[d]),
];

/** The smallest range beside a number that f32 holds, by its magnitude. */
const LEAST_RANGE = 2 ** -20;

/** Statistics by which numbers from low to high become -1 to 1, and of those where both are one, the number -1, as in LeRobot. */
export function columnsBetween(
  low: readonly number[],
  high: readonly number[],
  middle?: readonly number[],
): ColumnStatistics {
  const end = high.map((own, d) =>
    own > low[d] || middle ? own : low[d] + LEAST_RANGE * Math.max(1, Math.abs(low[d])),
  );
  const mean = middle ?? low.map((own, d) => (own + end[d]) / 2);
  const std = low.map((own, d) => (end[d] - own) / 2);
  return { count: 0, mean, std, min: low, max: end, q01: low, q99: end };
}
