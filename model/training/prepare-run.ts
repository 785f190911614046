/** The part of a training run that needs no adapter: its checks, its split, its encoding and its model's configuration. */
import { counted, InputError } from '../../engine/files/errors.ts';
import { elementCount } from '../../engine/index.ts';
import { warningsOf } from '../architecture/check.ts';
import { type ModelConfiguration, windowOf } from '../architecture/configuration.ts';
import { Architecture } from '../architecture/model.ts';
import {
  describedObjectives,
  notDecodable,
  type ObjectiveDescription,
  type Reference,
} from '../architecture/objectives/index.ts';
import { groupsOf } from '../architecture/rules.ts';
import type { Dataset } from '../data/dataset.ts';
import { chooseHorizon, evaluationSamples, type Sample, type Split } from '../data/index.ts';
import { Encoding } from '../policy/encoding.ts';
import { isPi0Fast } from '../policy/token-ranges.ts';
import { fitBaselines } from './baselines.ts';
import type { Checkpoint } from './checkpoint.ts';
import { answersDescription, type CoTraining, checkCoTraining } from './co-training.ts';
import { deltaDimensions, deltaWarning, withDeltas } from './deltas.ts';
import { fittedConfiguration } from './fitted-configuration.ts';
import {
  checkGiven,
  type FittingOptions,
  fitEncoding,
  fittingSamples,
  type MeasuredStatistics,
  prepareData,
  statisticsOf,
} from './fitting.ts';
import type { ActingRow, Losses } from './history.ts';
import { expectRules, rulesOf } from './parameter-rules.ts';
import { expectTokens, loraOf, type RunSettings, systemOf } from './run-settings.ts';
import { expectSameRun, type RunData } from './same-run.ts';
import { expectPresetSizes, type Start, startedNames, startLines } from './start.ts';

export interface RunOptions {
  readonly settings: RunSettings;
  readonly dataset: Dataset;
  /** The questions of `settings.cotrain`. */
  readonly coTraining?: CoTraining;
  /** Contents of the tokenizer and statistics files that the settings name. */
  readonly given?: Pick<FittingOptions, 'tokenizer' | 'statistics'>;
  /** The checkpoint to resume from; it is closed once it is read. */
  readonly resume?: Checkpoint;
  /** The file of `settings.from`; a resumed run does not read it again. */
  readonly from?: Start;
  readonly listener: RunListener;
}

export interface RunListener {
  note(line: string): void;
  step(step: number, steps: number, losses: Losses, objectives: readonly ObjectiveDescription[]): void;
  compiled(kernel: string, done: number, total: number): void;
  heldOut(step: number, losses: Losses, baselines: Losses, objectives: readonly ObjectiveDescription[]): void;
  acted(measured: ActingRow): void;
  saved(step: number, path: string): void;
  openLoop(done: number, total: number): void;
}

/** A run that is ready to start on an adapter. */
export interface PreparedRun extends RunOptions {
  readonly data: RunData;
  readonly split: Split;
  /** Notes on missing instructions, images and states. */
  readonly missing: readonly string[];
  readonly encoding: Encoding;
  readonly configuration: ModelConfiguration;
  /** Descriptions of all losses that the run measures. */
  readonly objectives: readonly ObjectiveDescription[];
  /** Held-out control steps of the measurements during training. */
  readonly heldOut: readonly Sample[];
  readonly baselines: Reference;
}

/** @throws InputError if settings and data do not fit each other, or differ from those of the run to resume */
export async function prepareRun(options: RunOptions): Promise<PreparedRun> {
  const { settings, coTraining, given = {}, resume, from, listener } = options;
  const { preset, seed } = settings;
  if (settings.delta && settings.robot)
    throw new InputError('--delta: the slot maps of --robot say which actions are differences; leave one of them out');
  const dataset = settings.delta && options.dataset.robots ? withDeltas(options.dataset) : options.dataset;
  const relative = settings.delta && !dataset.robots ? deltaDimensions(dataset) : undefined;
  const named = systemOf(settings);
  // A published pi0-FAST goes on with the matrix of its logits.
  const continues = from && isPi0Fast(from.encoding) && named.name === 'pi0-fast';
  const system = continues ? { ...named, backboneVariant: from.configuration.backboneVariant } : named;
  expectTokens(settings);
  expectRules(settings, { images: dataset.cameras.length > 0, state: dataset.stateDimension > 0 });
  const fitting = {
    dataset,
    system,
    preset,
    coTraining,
    tokens: settings.tokens,
    rules: rulesOf(settings),
    lora: loraOf(settings),
    precision: settings.precision,
    subtask: settings.subtask,
    draws: settings.draws,
    start: from?.encoding,
    ...given,
    listener,
  };
  checkCoTraining(settings, coTraining, dataset);
  if (!resume && (settings.from !== null) !== (from !== undefined))
    throw new InputError(
      `from ${settings.from ?? 'scratch'}: ${from ? 'it leaves out the file given' : 'no file is given for it'}`,
    );
  if (dataset.cameras.length === 0 && system.blocks.some(({ memory }) => memory))
    throw new InputError(`${settings.system} reads images by cross-attention, and data set "${dataset.name}" has none`);
  if (settings.augment && dataset.cameras.length === 0)
    throw new InputError(`--augment: data set "${dataset.name}" has no images to change; leave it out`);
  if (from && !resume) expectPresetSizes(from, preset);
  checkGiven(fitting);
  const { split, missing } = prepareData(dataset, seed);
  listener.note(split.description);
  for (const line of missing)
    listener.note(
      `${dataset.name}: ${line}; training goes on${line.startsWith('no ') ? ' without' : ' without them there'}`,
    );
  const begun = resume?.settings;
  const window = windowOf(system);
  const longest = dataset.episodes.reduce((most, { length }) => Math.max(most, length), 0);
  if (window > longest)
    throw new InputError(
      `a history of ${counted(window, 'control step')} is longer than every episode of "${dataset.name}": the longest has ${longest}; give a smaller --window`,
    );
  const horizon = begun?.configuration.horizon ?? chooseHorizon(dataset, settings.horizon ?? undefined);
  const isGiven = given.statistics !== undefined || begun?.data.statistics === null;
  const measured = isGiven ? null : await statisticsOf(dataset, split, horizon, relative);
  const data = await runData(dataset, measured);
  if (begun) expectSameRun({ settings: begun.run, data: begun.data }, { settings, data });
  const encoding = new Encoding(
    begun?.encoding ??
      (await fitEncoding(
        fitting,
        split,
        horizon,
        startStatistics(options, measured ?? { statistics: given.statistics ?? null, relative }),
      )),
  );
  if (settings.delta && !begun) {
    if (relative) listener.note(`--delta: ${deltaText(dataset.name, relative)}`);
    for (const line of await deltaWarnings(dataset, split, relative)) listener.note(`warning: ${line}`);
  }
  // A model that cannot run is refused before an adapter is opened.
  const architecture = new Architecture(
    begun?.configuration ?? (await fittedConfiguration(fitting, split, encoding, horizon)),
  );
  const { configuration } = architecture;
  for (const line of from && !resume ? startLines(from, architecture) : []) listener.note(line);
  // Held-out questions are answered in text.
  const targets = configuration.blocks.filter(({ input }) => input === 'target');
  const obstacle = coTraining ? notDecodable(configuration, targets) : null;
  if (obstacle) throw new InputError(`${settings.system} cannot be trained on questions: ${obstacle}`);
  const blocks = configuration.blocks.map(({ name, length }) => `${name} ${length}`).join(', ');
  for (const line of warningsOf(configuration)) listener.note(`warning: ${line}`);
  const left = settings.ema === null ? 0 : settings.ema ** settings.steps;
  if (left > 0.1)
    listener.note(
      `warning: after ${settings.steps} steps the average of --ema ${settings.ema} still has ${Math.round(100 * left)} % of the first weights; train longer, or give a smaller decay`,
    );
  for (const line of adaptationLines(architecture)) listener.note(line);
  for (const line of resume ? [] : randomLines(architecture, from)) listener.note(line);
  for (const objective of architecture.objectives)
    if (architecture.trainsNothing(objective))
      listener.note(`warning: the ${objective.name} loss reaches frozen parameters alone, so it trains nothing`);
  listener.note(
    `chunks of ${counted(horizon, 'control step')} (${(horizon / dataset.rate).toFixed(2)} s); tokens: ${blocks}`,
  );
  return {
    ...options,
    dataset,
    data,
    split,
    missing,
    encoding,
    configuration,
    objectives: [...describedObjectives(configuration), ...(coTraining ? [answersDescription] : [])],
    heldOut: evaluationSamples(split.heldOut, preset.heldOutSteps),
    baselines: await fitBaselines(fittingSamples(split.train), encoding, configuration),
  };
}

/** What low-rank adaptation trains. */
function adaptationLines({ parameters, configuration: { lora } }: Architecture): string[] {
  if (!lora) return [];
  const count = (own: typeof parameters) => own.reduce((sum, { shape }) => sum + elementCount(shape), 0);
  const trained = count(parameters.filter(({ frozen }) => !frozen));
  return [
    `low-rank adaptation of ${lora.experts.join(' and ')}, rank ${lora.rank}: ${trained} of ${counted(count(parameters), 'parameter')} are trained`,
  ];
}

/** A warning about parameters that would keep the random values that they begin with. */
function randomLines(architecture: Architecture, from?: Start): string[] {
  const { parameters, configuration } = architecture;
  const started = from ? startedNames(from, architecture) : new Set<string>();
  const random = groupsOf(parameters.filter(({ name, frozen }) => frozen && !started.has(name)));
  if (random.length === 0) return [];
  const adapted = random.filter((group) => configuration.lora?.experts.includes(group));
  const others = configuration.lora?.experts.filter((name) => !adapted.includes(name)) ?? [];
  const verb = random.length > 1 ? 'keep' : 'keeps';
  const reason = from
    ? `${from.name} has none for ${random.length > 1 ? 'them' : 'it'}`
    : 'the run begins from scratch';
  const advice = from
    ? adapted.length > 0 && others.length > 0 && `--lora-on ${others.join(',')} trains ${adapted.join(' and ')} whole`
    : 'give --from';
  return [`warning: ${random.join(' and ')} ${verb} random weights, because ${reason}${advice ? `; ${advice}` : ''}`];
}

/** The built-in world keeps the state's statistics of the model that it begins from, so that number tokens keep their meaning. */
function startStatistics({ settings, dataset, from }: RunOptions, own: MeasuredStatistics): MeasuredStatistics {
  const states = settings.data === null ? from?.encoding.statistics?.states : null;
  if (!states || !own.statistics) return own;
  const { length } = states.mean;
  if (length !== dataset.stateDimension)
    throw new InputError(
      `${from!.name}: its state has ${length} numbers; that of "${dataset.name}" has ${dataset.stateDimension}`,
    );
  return { ...own, statistics: { ...own.statistics, states } };
}

function deltaText(name: string, relative: readonly boolean[]): string {
  const numbers = (wanted: boolean) => relative.flatMap((own, i) => (own === wanted ? [i] : [])).join(', ');
  return `actions ${numbers(true)} of "${name}" become differences to the numbers of the state at the same places; ${numbers(false)} stay as they are`;
}

async function deltaWarnings(
  { name, robots = {} }: Dataset,
  { train }: Split,
  relative: readonly boolean[] | undefined,
): Promise<string[]> {
  const lines = Object.entries(robots).map(([robot, { actions }]) => {
    const parts = train.filter(({ episode }) => episode.robot === robot);
    return deltaWarning(
      robot,
      fittingSamples(parts),
      actions.map((slot) => slot.relative),
    );
  });
  if (relative) lines.push(deltaWarning(name, fittingSamples(train), relative));
  return (await Promise.all(lines)).filter((line) => line !== null);
}

async function runData(dataset: Dataset, measured: MeasuredStatistics | null): Promise<RunData> {
  const { name, rate, actionDimension, stateDimension, cameras, weights = null, episodes } = dataset;
  return {
    ...{ name, rate, actionDimension, stateDimension, cameras: [...cameras], weights },
    instructions: new Set(episodes.flatMap(({ instructions }) => instructions)).size,
    statistics: measured && (await sha256(JSON.stringify(measured))),
  };
}

export async function sha256(text: string): Promise<string> {
  const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, '0')).join('');
}
