/** A trained policy and the data that it acts on. */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { type Device, InputError, quote } from '../engine/index.ts';
import { expectDevice, openTunedDevice } from '../kernels/tuning.ts';
import { actingObjective, objectivesOf } from '../model/architecture/objectives/index.ts';
import type { Dataset, Episode } from '../model/data/dataset.ts';
import { mixDatasets } from '../model/data/index.ts';
import { Encoding } from '../model/policy/encoding.ts';
import { type ExecutionKind, type ExecutionOptions, scheduleOf } from '../model/policy/execution.ts';
import { Policy } from '../model/policy/policy.ts';
import { pretrainedUrl } from '../model/pretrained/index.ts';
import { PACKED_QUESTIONS } from '../model/systems/index.ts';
import { type Checkpoint, type CheckpointSettings, openCheckpoint } from '../model/training/checkpoint.ts';
import { isVisionLanguageModel } from '../model/training/vision-language-file.ts';
import { cameraOptions, chooseData, dataOptions, robotOptions } from './data.ts';
import type { deviceOptions } from './device.ts';
import { text, type ValuesOf } from './options.ts';
import type { Progress } from './progress.ts';

/** Options of a command that uses a trained policy. Its cameras are those of the policy; its data are those of training by default. */
export const policyOptions = {
  checkpoint: text('file that insula train wrote; required'),
  ...dataOptions,
  data: { ...dataOptions.data, help: 'folder or file of a data set, or several; the data of the training by default' },
  channels: cameraOptions.channels,
  ...robotOptions,
};
export type PolicyValues = ValuesOf<typeof policyOptions & typeof deviceOptions>;

export interface Loaded {
  readonly policy: Policy;
  readonly dataset: Dataset;
  readonly device: Device;
  readonly settings: CheckpointSettings;
}

/** @throws InputError if the file is no checkpoint, or one of a model that does not act */
export async function openPolicy(path: string): Promise<Checkpoint> {
  const checkpoint = await openCheckpoint(path);
  if (checkpoint.settings.run.system !== PACKED_QUESTIONS) return checkpoint;
  await checkpoint.close();
  throw new InputError(
    `${path}: insula pretrain resumes from it, and it does not act; when finished, a model to ask is beside it`,
  );
}

/**
 * Opens a policy's checkpoint, its data and an adapter, in this order, and closes them after `work`. The checks may throw before the next
 * is opened.
 */
export async function withPolicy<T>(
  { checkpoint: named, ...values }: PolicyValues,
  progress: Progress,
  checks: { settings(settings: CheckpointSettings): void; dataset?(dataset: Dataset): void },
  work: (loaded: Loaded) => Promise<T>,
): Promise<T> {
  const path = await expectNamed(named);
  const checkpoint = await openPolicy(path);
  try {
    const { settings } = checkpoint;
    checks.settings(settings);
    if (!values.data && !settings.run.data) await expectDevice(values);
    const dataset = await dataOf(path, values, settings, progress);
    checks.dataset?.(dataset);
    const { device } = await openTunedDevice(values, (line) => progress.note(line));
    try {
      using model = await checkpoint.loadModel(device);
      return await work({ policy: new Policy(model, new Encoding(settings.encoding)), dataset, device, settings });
    } finally {
      device.close();
    }
  } finally {
    await checkpoint.close();
  }
}

/** @throws InputError if no file is named, or the folder of a run, or any folder unless the command takes those of published policies */
export async function expectNamed(path: string | undefined, takesFolders = false): Promise<string> {
  if (path === undefined)
    throw new InputError('name the file of the policy with --checkpoint; insula train writes one');
  const inside = join(path, 'checkpoint.safetensors');
  if (pretrainedUrl(path) === null && (await stat(inside).catch(() => null)) !== null)
    throw new InputError(`${path}: is the folder of a run; its policy is --checkpoint ${inside}`);
  if (!takesFolders && pretrainedUrl(path) === null && (await stat(path).catch(() => null))?.isDirectory())
    throw new InputError(
      `${path}: is a folder, not a file; insula convert --checkpoint makes one of a policy of openpi or LeRobot`,
    );
  return path;
}

/** Whether a file, or a name in its place, is a vision-language model, which answers questions and does not act. */
export const isSeeing = async (path: string): Promise<boolean> =>
  pretrainedUrl(path) !== null || (await isVisionLanguageModel(path));

/** @throws InputError if the episode has no such control step */
export function expectStep({ id, length }: Episode, step: number): void {
  if (step >= length) throw new InputError(`--step ${step}: episode ${quote(id)} has steps 0 to ${length - 1}`);
}

/** @throws InputError if the policy draws no noise, which --seed chooses */
export function expectNoise({ run, configuration }: CheckpointSettings): void {
  if (actingObjective(objectivesOf(configuration))?.draw === undefined)
    throw new InputError(
      `--seed: ${run.system} draws no noise, so the same observation gives the same actions; leave it out`,
    );
}

/** @throws InputError if the policy writes no tokens, which --temperature draws */
export function expectTokensToDraw({ run, configuration }: CheckpointSettings): void {
  if (!objectivesOf(configuration).some(({ decode, obstacle }) => decode && !obstacle))
    throw new InputError(`--temperature: ${run.system} writes no tokens; leave it out`);
}

async function dataOf(
  path: string,
  values: PolicyValues,
  settings: CheckpointSettings,
  progress: Progress,
): Promise<Dataset> {
  const { run, data: trained, encoding } = settings;
  const { demonstrations: episodes, vision } = run.preset;
  const source = { episodes, seed: run.seed, usual: trained.name.split(','), frameSize: vision.image };
  // A policy without cameras needs no images and no decoded videos.
  const { data, dataset: named, rate, map, channels, robot } = values.data ? values : run;
  const cameras = encoding.cameras.length === 0 && data ? [] : null;
  const { task, variation } = run;
  const choice = { data, dataset: named, rate, map, channels, robot, cameras, task, variation };
  const chosen = await chooseData(choice, source, progress).catch((error) => {
    const moved = error instanceof InputError && !values.data && data;
    throw moved ? new InputError(`${error.message}; ${path} was trained on it: say where it lies with --data`) : error;
  });
  const dataset = asTrained(chosen, settings);
  refuseOtherRobot(path, dataset, settings);
  const lacking = lackingCameras(dataset, settings.encoding);
  if (lacking.length > 0)
    progress.note(`"${dataset.name}" has no camera ${lacking.join(', ')}, which ${path} takes: it is masked`);
  if (dataset.name !== trained.name && !trained.name.split(',').includes(dataset.name))
    progress.note(
      `"${dataset.name}" is not what ${path} was trained on: its actions keep the units and ranges of "${trained.name}"`,
    );
  return dataset;
}

/** Applies the slot map of training if the policy was trained on several robots. */
function asTrained(dataset: Dataset, { encoding: { robots = {} } }: CheckpointSettings): Dataset {
  const names = Object.keys(robots);
  if (dataset.robots || names.length === 0) return dataset;
  const robot = names.length === 1 ? names[0] : dataset.name;
  if (!robots[robot])
    throw new InputError(
      `"${dataset.name}" is not one of the robots that the policy was trained on (${names.join(', ')}): give --data and --robot as in training`,
    );
  return mixDatasets([{ dataset, slots: robots[robot].slots }]);
}

const lackingCameras = ({ cameras }: Dataset, encoding: CheckpointSettings['encoding']) =>
  encoding.cameras.filter((camera) => !cameras.includes(camera));

function refuseOtherRobot(path: string, dataset: Dataset, { data, configuration, encoding }: CheckpointSettings): void {
  const { name } = dataset;
  const state = encoding.statistics?.states?.mean.length ?? dataset.stateDimension;
  for (const [what, own, trained] of [
    ['action dimensions', dataset.actionDimension, configuration.actionDimension],
    ['state dimensions', dataset.stateDimension, state],
    ['control steps per second', dataset.rate, data.rate],
  ] as const)
    if (own !== trained)
      throw new InputError(
        `"${name}" has ${own} ${what}; ${path} was trained with ${trained}: give data of that robot`,
      );
  const lacking = lackingCameras(dataset, encoding);
  // Robots of several may have some of the cameras, or none.
  const isOther = dataset.cameras.length > 0 && lacking.length === encoding.cameras.length;
  if (lacking.length > 0 && (!dataset.robots || isOther))
    throw new InputError(
      `"${name}" has no camera ${lacking.join(', ')}, which ${path} was trained with; it has ${dataset.cameras.join(', ') || 'none'}; --map gives them other names`,
    );
}

/** The options of how chunks are carried out. */
interface ExecutionValues {
  readonly execution?: ExecutionKind;
  readonly 'execute-steps'?: number;
  readonly delay?: number;
}

export const executionOf = ({
  execution,
  'execute-steps': executeSteps,
  delay,
}: ExecutionValues): ExecutionOptions => ({
  ...{ execution, executeSteps },
  delay: delay ?? (execution === 'real-time-chunking' ? 1 : 0),
});

/** @throws InputError if the policy's chunks cannot be executed so */
export function expectExecution(values: ExecutionValues, { run, configuration }: CheckpointSettings): void {
  const { continues = false } = actingObjective(objectivesOf(configuration)) ?? {};
  if (values.execution === 'real-time-chunking' && !continues)
    throw new InputError(
      `--execution real-time-chunking: ${run.system} does not act by a flow, so its chunks continue no others; choose another execution`,
    );
  scheduleOf(executionOf(values), configuration.horizon);
}
