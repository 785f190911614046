/** Everything that is fitted to the data before the first step, but the model's sizes: split, statistics and action tokens. */
import { InputError } from '../../engine/index.ts';
import {
  type ActionTokenizer,
  BinActionTokenizer,
  defaultTokenizerJson,
  FastTokenizer,
  StrideTokenizer,
  StringActionTokenizer,
} from '../../tokenizers/index.ts';
import type { ParameterRule } from '../architecture/configuration.ts';
import type { Precision } from '../architecture/precision.ts';
import type { Dataset } from '../data/dataset.ts';
import {
  checkStatistics,
  chunk,
  countSteps,
  type DatasetStatistics,
  type EpisodePart,
  eachLoaded,
  evaluationSamples,
  measureStatistics,
  normalisers,
  relativeChunks,
  type Sample,
  type SlotMap,
  type Split,
  splitDataset,
  stateAt,
} from '../data/index.ts';
import { Encoding, type EncodingSettings } from '../policy/encoding.ts';
import { isPi0Fast } from '../policy/token-ranges.ts';
import { type ModelSizes, STATE, type System } from '../systems/index.ts';
import type { CoTraining } from './co-training.ts';
import type { Preset } from './presets.ts';
import type { RunSettings } from './run-settings.ts';
import type { Start } from './start.ts';
import { subtaskSettings } from './subtask-fitting.ts';

/** A data set with at most this many control steps is fitted whole; the chunks are held in memory. */
const FEW_SAMPLES = 32_768;
/**
 * Larger data sets are subsampled to this many steps from this many parts of episodes, because encoding all of them
 * could take longer than training.
 */
const FITTED = { samples: 8192, parts: 1024 };

/** Evenly spaced control steps to fit to. */
export function fittingSamples(parts: readonly EpisodePart[]): Sample[] {
  if (countSteps(parts) <= FEW_SAMPLES) return evaluationSamples(parts);
  const stride = Math.ceil(parts.length / FITTED.parts);
  const chosen = parts.filter((_, i) => i % stride === 0);
  return evaluationSamples(chosen, FITTED.samples);
}

export interface FittingOptions {
  readonly dataset: Dataset;
  readonly system: System;
  readonly preset: Preset;
  readonly coTraining?: CoTraining;
  /** A fitted or published tokenizer, instead of one fitted to the training part. */
  readonly tokenizer?: ActionTokenizer;
  /** The kind of tokenizer that is made if none is given; null for the system's own. */
  readonly tokens?: RunSettings['tokens'];
  readonly rules?: readonly ParameterRule[];
  readonly lora?: ModelSizes['lora'];
  readonly precision?: Precision;
  /** The kind of subtask that the policy says before it acts. */
  readonly subtask?: RunSettings['subtask'];
  /** Noise and time draws of each chunk; 1 by default. */
  readonly draws?: number;
  /** Statistics of one robot's actions, of differences if they are relative, instead of those of the training part; see `fromNormStats`. */
  readonly statistics?: DatasetStatistics;
  /** The encoding of the vision-language model that the run begins from: its tokens keep their meaning. */
  readonly start?: Start['encoding'];
  readonly listener: { note(line: string): void };
}

/** The split of each robot's episodes by themselves, joined. */
function splitOf(dataset: Dataset, seed: number): Split {
  const { robots, episodes } = dataset;
  if (!robots) return splitDataset(dataset, { seed });
  const splits = Object.keys(robots).map((name) => {
    const own = episodes.filter(({ robot }) => robot === name);
    return { name, ...splitDataset({ ...dataset, name, episodes: own }, { seed }) };
  });
  return {
    train: splits.flatMap(({ train }) => train),
    heldOut: splits.flatMap(({ heldOut }) => heldOut),
    description: splits.map(({ name, description }) => `${name}: ${description}`).join('; '),
  };
}

/** The split of a run, and notes on missing instructions, images and states. */
export function prepareData(dataset: Dataset, seed: number): { split: Split; missing: string[] } {
  const split = splitOf(dataset, seed);
  const missing: string[] = [];
  const without = (what: string, has: (episode: Dataset['episodes'][number]) => boolean) => {
    const count = dataset.episodes.filter((episode) => !has(episode)).length;
    if (count === dataset.episodes.length) missing.push(`no ${what}`);
    else if (count > 0) missing.push(`${count} of ${dataset.episodes.length} episodes without ${what}`);
  };
  without('language', (episode) => episode.instructions.length > 0);
  without('images', (episode) => episode.cameras.length > 0);
  if (dataset.stateDimension === 0) missing.push('no state');
  return { split, missing };
}

/** @throws InputError if the given tokenizer or statistics do not fit the data or the system */
export function checkGiven({ dataset, system, tokenizer, statistics }: FittingOptions): void {
  if (tokenizer && !system.actionTokens)
    throw new InputError(`tokenizer: ${system.name} has no action tokens; leave it out`);
  const targets = system.blocks.filter(({ input }) => input === 'target').length;
  if (targets > 0 !== (system.actionTokens !== null))
    throw new InputError(
      `system ${system.name}: actionTokens is ${system.actionTokens}, and ${targets} of its blocks hold a target; action tokens are a target`,
    );
  if (!statistics) return;
  if (dataset.robots) throw new InputError('statistics: robots with slot maps measure their own; leave them out');
  checkStatistics(statistics, dataset, 'normalisation');
  if (!statistics.states && dataset.stateDimension > 0)
    throw new InputError(`statistics: the file has none of the state, and data set "${dataset.name}" has a state`);
}

/** The statistics that normalise the data, with the slot maps of several robots. */
export type MeasuredStatistics = Pick<EncodingSettings, 'statistics' | 'robots' | 'relative'>;

/** Statistics of the training part, for each robot by itself; `relative` are the action dimensions of one robot that are relative. */
export async function statisticsOf(
  { robots }: Dataset,
  { train }: Split,
  horizon: number,
  relative?: readonly boolean[],
): Promise<MeasuredStatistics> {
  if (!robots)
    return relative
      ? { statistics: await measureStatistics(train, relativeChunks(horizon, relative)), relative }
      : { statistics: await measureStatistics(train) };
  const own: Record<string, { slots: SlotMap; statistics: DatasetStatistics }> = {};
  for (const [name, slots] of Object.entries(robots)) {
    const parts = train.filter(({ episode }) => episode.robot === name);
    const relative = slots.actions.map((own) => own.relative);
    const chunks = relative.includes(true) ? relativeChunks(horizon, relative) : undefined;
    own[name] = { slots, statistics: await measureStatistics(parts, chunks) };
  }
  return { statistics: null, robots: own };
}

/** Tokenizers that need no data. */
export const fixedTokenizers = {
  bins: () => new BinActionTokenizer(),
  stride: () => new StrideTokenizer(new BinActionTokenizer()),
  string: () => new StringActionTokenizer(),
} as const;

export async function fitEncoding(
  { dataset, system, preset, coTraining, tokenizer, tokens, start, subtask, listener }: FittingOptions,
  split: Split,
  horizon: number,
  measured: MeasuredStatistics,
): Promise<EncodingSettings> {
  const { statistics, robots } = measured;
  // A tokenizer with more ids than the preset has rows widens the table: the sizes of all else stay those of the preset.
  const leastRows = Math.max(preset.vocabulary ?? 0, start?.leastRows ?? 0);
  const { prompt } = start ?? {};
  const isFast = prompt !== undefined && isPi0Fast({ prompt });
  const keepsPrompt = isFast
    ? system.name === 'pi0-fast' && !subtask
    : prompt !== undefined && (prompt === 'pi05') === system.stateAsText;
  const settings: EncodingSettings = {
    text: start?.text ?? defaultTokenizerJson(),
    stateAsText: system.stateAsText,
    ...(system.blocks.some(({ input, name }) => input === 'prompt' && name === STATE) && { stateTokens: true }),
    ...(keepsPrompt && { prompt }),
    stateBins: start?.stateBins ?? preset.stateBins,
    cameras: dataset.cameras.slice(0, system.cameras),
    ...measured,
    actions: null,
    ...((coTraining || start?.locations || (subtask && subtask !== 'words')) && { locations: true }),
    ...(leastRows > 0 && { leastRows }),
    ...(subtask && { subtask: subtaskSettings(dataset, subtask, preset) }),
  };
  const unseen = dataset.cameras.slice(settings.cameras.length);
  if (unseen.length > 0)
    listener.note(`${system.name} sees ${settings.cameras.join(', ')} alone, and not ${unseen.join(', ')}`);
  for (const [name, own] of Object.entries(robots ?? { [dataset.name]: { statistics: statistics! } })) {
    for (const [what, numbers] of Object.entries(normalisers(own.statistics))) {
      const kind = `${name}: ${what === 'actions' ? 'action' : 'state'} dimensions`;
      const { constant = [], clipped = [], bound } = numbers ?? {};
      if (constant.length > 0) listener.note(`${kind} ${constant.join(', ')} are constant, and become 0`);
      if (clipped.length > 0)
        listener.note(
          `${kind} ${clipped.join(', ')} have values beyond ${bound} times their usual range, which are clipped`,
        );
    }
  }
  if (!system.actionTokens) return settings;
  if (tokenizer) return { ...settings, actions: tokenizer.toJSON() };
  const kind = tokens ?? system.actionTokens;
  if (kind !== 'fast') return { ...settings, actions: fixedTokenizers[kind]().toJSON() };
  const encoding = new Encoding(settings);
  const chunks = [];
  for await (const { part, step } of eachLoaded(fittingSamples(split.train))) {
    const { robot } = part.episode;
    const normalised = encoding.normaliseActions(chunk(part, step, horizon).data, {
      robot,
      state: stateAt(part.episode, step),
    });
    const data = encoding.ownDimensions(normalised, robot);
    chunks.push({ data, horizon, dimension: data.length / horizon });
  }
  return { ...settings, actions: FastTokenizer.fit(chunks, { vocabularySize: preset.fastVocabulary }).toJSON() };
}
