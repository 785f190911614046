/** The statistics by which policies of openpi and LeRobot normalise: beside the weights, among openpi's assets, or in a file that is named. */
import * as v from 'valibot';
import { InputError } from '../../engine/files/errors.ts';
import { dictionary, readJsonFile } from '../../engine/files/json-schema.ts';
import { readSafetensors, type SafetensorsFile } from '../../engine/index.ts';
import { type ColumnStatistics, type DatasetStatistics, fromNormStats } from '../data/index.ts';
import { jsonOf } from '../policy/tokenizer-file.ts';
import type { PublicModel } from './public-model.ts';

/** The names of LeRobot's features and of its processors' files. */
export const [STATE, ACTION, CAMERA] = ['observation.state', 'action', 'observation.images.'];
export const processors = {
  before: { file: 'policy_preprocessor.json', step: 'normalizer_processor', old: 'normalize_inputs' },
  after: { file: 'policy_postprocessor.json', step: 'unnormalizer_processor', old: 'unnormalize_outputs' },
} as const;

/** LeRobot and openpi clip no normalised number. */
const NO_BOUND = 1e9;

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

/** The statistics of a policy, of openpi's `named` norm_stats.json if it is given, and the file or folder that has them. */
export async function publicStatistics(model: PublicModel, named?: string) {
  const file = named ?? (await openpiAsset(model));
  if (file === undefined) return { source: model.tensors.name, statistics: await leRobotStatistics(model) };
  return { source: file, statistics: await openpiStatistics(file, model.system) };
}

/** The statistics among the assets of a folder of openpi; undefined for others. */
async function openpiAsset({ folder, config, tensors: { name } }: PublicModel): Promise<string | undefined> {
  if (config.type !== undefined) return undefined;
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

/** pi0 of openpi normalises by mean and deviation, the others by quantiles. */
async function openpiStatistics(file: string, system: PublicModel['system']): Promise<DatasetStatistics> {
  const { actions, states } = fromNormStats(await jsonOf(file), file);
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

/** The steps of a processor of LeRobot's; null if its file is missing. */
async function stepsOf(path: string) {
  const { kindOfPath } = await import('../../engine/files/files.ts');
  if ((await kindOfPath(path)) === null) return null;
  return (await readJsonFile(path, processorSchema, "a processor of LeRobot's")).steps;
}

/** The statistics by which a processor normalises a feature, or LeRobot before 0.4, which had them beside the weights; null if it has none. */
async function normalised(
  { tensors, folder, config }: PublicModel,
  { file, step: wanted, old }: (typeof processors)['before' | 'after'],
  feature: string,
  type: string,
): Promise<ColumnStatistics | null> {
  const path = `${folder}/${file}`;
  const steps = await stepsOf(path);
  if (!steps) {
    const mode = config.normalization_mapping?.[type] ?? 'MEAN_STD';
    const columns = await columnsOf(tensors, `${old}.buffer_${feature.replaceAll('.', '_')}`, mode);
    if (columns || feature !== ACTION) return columns;
    throw new InputError(
      `${tensors.name}: neither ${file} is beside it nor statistics are in it: give openpi's norm_stats.json with --statistics`,
    );
  }
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

/**
 * The action dimensions that are relative to the state: all but those whose names contain that of a joint to be left absolute (LeRobot,
 * relative_action_processor.py). undefined if none is.
 */
export async function relativeDimensions(
  { folder, config, tensors: { name } }: PublicModel,
  actions: number,
  states: number,
): Promise<boolean[] | undefined> {
  const { file } = processors.before;
  const path = `${folder}/${file}`;
  const steps = await stepsOf(path);
  if (!steps) {
    if (!config.use_relative_actions) return undefined;
    throw new InputError(`${name}: its actions are relative to the state, and ${file}, which says which, is missing`);
  }
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
