/** What `insula inspect` looks at: a checkpoint or a fresh system, and real or random observations. */

import { counted } from '../engine/files/errors.ts';
import { type Device, InputError } from '../engine/index.ts';
import { expectDevice, openTunedDevice } from '../kernels/tuning.ts';
import type { ModelConfiguration } from '../model/architecture/configuration.ts';
import { Model } from '../model/architecture/model.ts';
import { withTable } from '../model/inspect/attention-file.ts';
import { measuredConfiguration } from '../model/inspect/measured-step.ts';
import { randomSubject, realSubject, type Subject } from '../model/inspect/subject.ts';
import { Policy } from '../model/policy/policy.ts';
import { jsonOf } from '../model/policy/tokenizer-file.ts';
import { pretrainedUrl } from '../model/pretrained/index.ts';
import { edgeDifferences, nearSystems, PACKED_QUESTIONS } from '../model/systems/index.ts';
import { prepareData } from '../model/training/fitting.ts';
import { prepareRun } from '../model/training/prepare-run.ts';
import { withoutLacking } from '../model/training/recommended.ts';
import { begunModel, openStart } from '../model/training/start.ts';
import { cameraOptions, chooseData, dataOptions, robotOptions } from './data.ts';
import { deviceOptions } from './device.ts';
import { choice, number, type Option, outputFile, seedNumber, text, type ValuesOf } from './options.ts';
import { expectNamed, openPolicy, withPolicy } from './policy.ts';
import type { Progress } from './progress.ts';
import { givenSettings, runOptions, settingsOfRun } from './run-options.ts';
import { sceneOptions } from './scenes.ts';
import { expectUsedSizes, measuredSystems, stepSizeOptions } from './step-options.ts';

/** Examples of a batch by default. */
const EXAMPLES = 8;

const {
  prompt,
  target,
  horizon,
  depth,
  lora,
  'lora-on': loraOn,
  accumulate,
  recompute,
  precision,
  moments,
} = stepSizeOptions;
const but = <T>(option: Option<T>, excludes: readonly string[]): Option<T> => ({ ...option, excludes });
const notStep = <T>(option: Option<T>) => but(option, ['step']);
const ofSystem = <T>(option: Option<T>) => but(option, ['checkpoint']);
const ofRun = <T>(option: Option<T>) => but(option, ['step', 'checkpoint', ...[option.excludes ?? []].flat()]);

export const subjectOptions = {
  checkpoint: notStep(text('file that insula train wrote, instead of a fresh system')),
  system: ofSystem(
    choice(
      `one of those that insula systems lists, or ${PACKED_QUESTIONS}; knowledge-insulation by default`,
      measuredSystems,
      {},
      nearSystems,
    ),
  ),
  preset: ofSystem(stepSizeOptions.preset),
  table: text(
    'JSON file of an attention table of your own, { "query block": { "key block": cell } }, in place of the model\'s: what it leaves out is none; none, full, causal, insulated, or { "mask", "window", "keyGradient", "valueGradient" }',
  ),
  observations: choice(
    'real: held-out control steps of --data, of the training, or of the built-in world; or random, which needs no data: the default of a fresh system without --data, where the measurement allows it',
    ['real', 'random'],
    { excludes: 'step' },
  ),
  data: notStep(dataOptions.data),
  dataset: dataOptions.dataset,
  rate: dataOptions.rate,
  map: dataOptions.map,
  channels: cameraOptions.channels,
  ...robotOptions,
  task: ofRun(sceneOptions.task),
  variation: ofRun(sceneOptions.variation),
  from: ofRun(runOptions.from),
  gates: ofRun(runOptions.gates),
  batch: number(`examples in a batch; ${EXAMPLES} by default, those of the preset with --step`, 1),
  seed: notStep(seedNumber('initial weights, random observations, noise and times; 0 by default')),
  prompt: ofSystem(prompt),
  target: ofSystem(target),
  horizon: ofSystem(horizon),
  depth: ofSystem(depth),
  lora: ofSystem(lora),
  'lora-on': loraOn,
  accumulate: { ...accumulate, needs: 'step' },
  recompute: { ...recompute, needs: 'step' },
  precision: { ...precision, needs: 'step' },
  moments: { ...moments, needs: 'step' },
  out: outputFile('file for the result as JSON'),
  trace: outputFile('file for the GPU times of every dispatch of --step, for chrome://tracing and Perfetto', {
    needs: 'step',
  }),
  page: outputFile('file for the result as one HTML page; that of --step is in insula explore', { excludes: 'step' }),
  ...deviceOptions,
};
export type SubjectValues = ValuesOf<typeof subjectOptions>;

/** A subject, and in words the model and the examples. */
export interface Inspected extends Subject {
  readonly system: string;
  readonly title: string;
  readonly examples: string;
}

/** Work on a subject while it is open. */
type Work<T> = (inspected: Inspected) => Promise<T>;

/** The model with the table of a file, whose differences are noted. @throws InputError if the file has none that the model can have */
export async function withTableFile(
  configuration: ModelConfiguration,
  file: string | undefined,
  progress: Progress,
): Promise<ModelConfiguration> {
  if (file === undefined) return configuration;
  const changed = withTable(configuration, await jsonOf(file), file);
  const differences = edgeDifferences(configuration.edges, changed.edges);
  const words = differences.length > 0 ? `beside the model's own: ${differences.join('; ')}` : "the model's own";
  progress.note(`${file}: attention table, ${words}`);
  return changed;
}

/** Opens what the options name; the result of `work` on it. What can be refused is refused before an adapter is opened. */
export async function withSubject<T>(
  values: SubjectValues,
  needsReal: boolean,
  progress: Progress,
  work: Work<T>,
): Promise<T> {
  const isReal = expectObservations(values, needsReal);
  if (values.checkpoint !== undefined && pretrainedUrl(values.checkpoint) !== null)
    throw new InputError(
      `--checkpoint ${values.checkpoint}: a vision-language model, which has not learned to act; give --from ${values.checkpoint}, which shows the start of a training from it`,
    );
  if (values.checkpoint !== undefined)
    return isReal ? ofPolicy(values, progress, work) : ofCheckpoint(values, progress, work);
  return isReal ? ofRunsStart(values, progress, work) : ofFreshSystem(values, progress, work);
}

/** Whether the observations are real. @throws InputError for options that change nothing with them */
function expectObservations(values: SubjectValues, needsReal: boolean): boolean {
  const { checkpoint, observations } = values;
  const ofReal = (['data', 'from', 'task', 'variation'] as const).find((name) => values[name] !== undefined);
  const isReal = observations ? observations === 'real' : needsReal || checkpoint !== undefined || ofReal !== undefined;
  if (!isReal && needsReal)
    throw new InputError('--observations random: this measurement is about pictures and words; leave it out');
  if (!isReal && ofReal !== undefined)
    throw new InputError(`--${ofReal} changes nothing with --observations random; leave one of them out`);
  const size = (['prompt', 'target', 'horizon', 'depth'] as const).find((name) => values[name] !== undefined);
  if (isReal && size !== undefined)
    throw new InputError(`--${size} is for --observations random: with real ones, data and preset decide it`);
  return isReal;
}

const openedDevice = async (values: SubjectValues, progress: Progress): Promise<Device> =>
  (await openTunedDevice(values, (line) => progress.note(line))).device;

/** The same values with the edges of the table. */
const modelWith = async (
  { device, configuration, parameters }: Model,
  table: string | undefined,
  progress: Progress,
): Promise<Model> => new Model(device, await withTableFile(configuration, table, progress), parameters);

const randomWords = (examples: number, seed: number) => `${counted(examples, 'random example')} of seed ${seed}`;
const realWords = ({ real }: Subject, data: string) =>
  `${counted(real!.samples.length, 'control step')} of held-out episodes of ${data}`;

function ofPolicy<T>(values: SubjectValues, progress: Progress, work: Work<T>): Promise<T> {
  const { batch = EXAMPLES, seed = 0, table } = values;
  return withPolicy(values, progress, { settings: () => {} }, async ({ policy, dataset, settings: { run } }) => {
    const own = new Policy(await modelWith(policy.model, table, progress), policy.encoding);
    const subject = await realSubject(own, run, prepareData(dataset, run.seed).split, batch, seed);
    const title = `${values.checkpoint}, a ${run.system}`;
    return work({ ...subject, title, examples: realWords(subject, dataset.name), system: run.system });
  });
}

async function ofCheckpoint<T>(values: SubjectValues, progress: Progress, work: Work<T>): Promise<T> {
  const { batch = EXAMPLES, seed = 0, table } = values;
  const checkpoint = await openPolicy(await expectNamed(values.checkpoint));
  try {
    using device = await openedDevice(values, progress);
    using model = await checkpoint.loadModel(device);
    const { system } = checkpoint.settings.run;
    const subject = randomSubject(await modelWith(model, table, progress), batch, seed);
    const title = `${values.checkpoint}, a ${system}`;
    return await work({ ...subject, title, examples: randomWords(batch, seed), system });
  } finally {
    await checkpoint.close();
  }
}

/** A run of training before its first step, on its data. */
async function ofRunsStart<T>(values: SubjectValues, progress: Progress, work: Work<T>): Promise<T> {
  const { system, preset, from: start, gates, lora, 'lora-on': loraOn, data, dataset: names } = values;
  const { rate, map, channels, robot, task, variation } = values;
  const { batch = EXAMPLES, seed = 0, table } = values;
  const named = {
    system,
    preset,
    from: start,
    gates,
    lora,
    'lora-on': loraOn,
    data,
    dataset: names,
    rate,
    map,
    channels,
    robot,
    task,
    variation,
    seed,
  };
  const given = givenSettings(Object.fromEntries(Object.entries(named).filter(([, value]) => value !== undefined)));
  // Questions beside the demonstrations are no part of the batch.
  const wanted = { ...settingsOfRun(given), cotrain: 0 };
  const from = wanted.from === null ? undefined : await openStart(wanted.from);
  try {
    if (!wanted.data) await expectDevice(values);
    const { demonstrations: episodes, vision } = wanted.preset;
    const dataset = await chooseData(wanted, { episodes, seed, frameSize: vision.image }, progress);
    const { settings } = withoutLacking(wanted, given, dataset);
    const { configuration, encoding, split } = await prepareRun({ settings, dataset, from, listener: progress });
    const changed = await withTableFile(configuration, table, progress);
    using device = await openedDevice(values, progress);
    using model = await begunModel(device, changed, seed, from);
    const subject = await realSubject(new Policy(model, encoding), settings, split, batch, seed);
    const title = `${settings.system}, preset ${settings.preset.name}, before training, from ${settings.from ?? 'random weights'}`;
    return await work({ ...subject, title, examples: realWords(subject, dataset.name), system: settings.system });
  } finally {
    await from?.close();
  }
}

async function ofFreshSystem<T>(values: SubjectValues, progress: Progress, work: Work<T>): Promise<T> {
  const { system = 'knowledge-insulation', preset = 'tiny', batch = EXAMPLES, seed = 0, table } = values;
  expectUsedSizes('inspect', [system], values);
  const fresh = withGates(measuredConfiguration(system, values), system, values.gates);
  const configuration = await withTableFile(fresh, table, progress);
  using device = await openedDevice(values, progress);
  using model = await begunModel(device, configuration, seed);
  const title = `${system}, preset ${preset}, initial weights of seed ${seed}`;
  return await work({ ...randomSubject(model, batch, seed), title, examples: randomWords(batch, seed), system });
}

function withGates(configuration: ModelConfiguration, system: string, gates: number | undefined): ModelConfiguration {
  if (gates === undefined) return configuration;
  if (!Object.values(configuration.experts).some(({ adaptive }) => adaptive))
    throw new InputError(`--gates: ${system} has no adaptive norms; leave it out, or choose another --system`);
  return { ...configuration, rules: [...(configuration.rules ?? []), { match: '*', gateBias: gates }] };
}
