/** What insula train is asked for, checked. */
import { InputError, quote } from '../engine/index.ts';
import type { MomentStorage } from '../kernels/index.ts';
import type { Dataset } from '../model/data/dataset.ts';
import { checkStatistics, fromNormStats, withoutPadding } from '../model/data/index.ts';
import { jsonOf, readTokenizer } from '../model/policy/tokenizer-file.ts';
import { systemNamed } from '../model/systems/index.ts';
import type { Checkpoint, CheckpointSettings } from '../model/training/checkpoint.ts';
import { presetNamed } from '../model/training/presets.ts';
import type { RunOptions } from '../model/training/run.ts';
import { FastTokenizer } from '../tokenizers/index.ts';

export const TABLETOP = 'tabletop';
/** Everything a run leaves lies in here, below the folder it was started in. */
export const WORK_FOLDER = '.insula';

/** What names a data set on the command line. */
export interface DataOptions {
  /** Folder or file of a data set, or several with commas between; the built-in world without. */
  data?: string;
  /** Which of several, or several of them with commas between. */
  dataset?: string;
  /** Names with commas between, or none. */
  cameras?: string;
  /** Hz, for files that do not say. */
  rate?: string;
  /** Slot maps of a mixture's robots by name, with commas between; by default each dimension has the slot of its number. */
  robot?: string;
  /** Weights of a mixture's data sets, with commas between; by default n^0.43 of the n examples of each robot. */
  weights?: string;
}

export interface TrainOptions extends DataOptions {
  system?: string;
  preset?: string;
  steps?: number;
  batch?: number;
  /** Batches to a step. */
  accumulate?: number;
  recompute?: boolean;
  /** Storage of AdamW's moments: f32, bf16 or 8bit. */
  moments?: string;
  /** JSON file of other wordings of instructions. */
  paraphrases?: string;
  augment?: boolean;
  /** Part of every batch that is questions. */
  cotrain?: string;
  /** Images with names to ask about, PATH.json and PATH.pack, in place of the built-in world. */
  questions?: string;
  /** File of a FAST tokenizer, or folder of a published one, in place of one fitted to the data. */
  tokenizer?: string;
  /** openpi's norm_stats.json, in place of the data's own statistics. */
  statistics?: string;
  horizon?: number;
  seed?: number;
  /** Folder of the run; by default one in WORK_FOLDER that no other run has used. */
  out?: string;
  /** Goes on with the run in `out`, or with the last one. */
  resume?: boolean;
  /** Takes the place of the run in `out`, or of the last one. */
  overwrite?: boolean;
  adapter?: string;
  floor?: boolean;
  /** A tuning file in place of the one kept for the adapter. */
  tuning?: string;
  /** As typed, for the report. */
  command: string;
}

/** Cameras are not read, nor videos decoded, for a policy that sees none. */
export function withoutUnused<T extends DataOptions>(options: T, settings?: CheckpointSettings): T {
  return settings?.encoding.cameras.length === 0 ? { ...options, cameras: 'none' } : options;
}

/** What a run goes on with, or what the options say. */
export function chosen(options: TrainOptions, settings?: CheckpointSettings) {
  const preset = presetNamed(settings?.preset ?? options.preset ?? 'tiny');
  return {
    system: systemNamed(settings?.system ?? options.system ?? 'knowledge-insulation'),
    preset,
    share: settings ? (settings.coTraining ?? 0) : shareOf(options),
    moments: momentsNamed(options.moments),
    seed: settings?.seed ?? options.seed ?? 0,
    batch: settings?.batch ?? options.batch ?? preset.batch,
  };
}

/** A run goes on with what it was begun with. */
export function checkResumed({ settings, progress }: Checkpoint, path: string, options: TrainOptions): void {
  const differs = (name: string, given: string | number | undefined, kept: string | number) => {
    if (given !== undefined && given !== kept)
      throw new InputError(
        `--${name} ${given}: the run in ${path} was begun with ${kept}; leave it out, or begin anew elsewhere with --out`,
      );
  };
  differs('system', options.system, settings.system);
  differs('preset', options.preset, settings.preset);
  differs('seed', options.seed, settings.seed);
  differs('batch', options.batch, settings.batch);
  differs('moments', options.moments, settings.moments ?? 'f32');
  differs(
    'cotrain',
    options.cotrain && shareOf({ ...options, questions: settings.questions }),
    settings.coTraining ?? 0,
  );
  differs('questions', options.questions, settings.questions ?? 'none');
  if (settings.questions !== undefined && options.questions === undefined)
    throw new InputError(
      `--resume: the run in ${path} was begun with --questions ${settings.questions}; give them again`,
    );
  differs('accumulate', options.accumulate, settings.accumulate ?? 1);
  for (const name of ['recompute', 'augment'] as const)
    if (options[name] && !settings[name])
      throw new InputError(
        `--${name}: the run in ${path} was begun without; leave it out, or begin anew elsewhere with --out`,
      );
  differs('horizon', options.horizon, settings.configuration.horizon);
  if (options.data === undefined && settings.dataset !== TABLETOP)
    throw new InputError(
      `--resume: the run in ${path} was begun with the data set "${settings.dataset}"; say where it lies with --data`,
    );
  differs('dataset', options.dataset ?? (options.data === undefined ? TABLETOP : undefined), settings.dataset);
  const steps = options.steps ?? progress.steps;
  if (steps < progress.step)
    throw new InputError(`--steps ${steps}: the run in ${path} has done ${progress.step} already`);
}

function shareOf({ cotrain: text = '0', data, questions, resume }: TrainOptions): number {
  const share = Number(text);
  if (text.trim() === '' || !(share >= 0 && share < 1))
    throw new InputError(`--cotrain ${text}: expected the part of a batch that is questions, from 0 to below 1`);
  if (share === 0 && questions !== undefined && !resume)
    throw new InputError('--questions: say with --cotrain which part of every batch they are');
  if (share > 0 && data !== undefined && questions === undefined)
    throw new InputError(
      '--cotrain asks about the built-in world: leave out --data, or name images to ask about with --questions',
    );
  return share;
}

function momentsNamed(name: string | undefined): MomentStorage | undefined {
  const known = ['f32', 'bf16', '8bit'] as const;
  const found = known.find((own) => own === name);
  if (name !== undefined && !found) throw new InputError(`--moments ${quote(name)}: there are ${known.join(', ')}`);
  return found;
}

/**
 * Tokenizer and statistics that files give, for a data set.
 *
 * @throws InputError where a file is no such thing; what is returned, where it is of another robot than the data
 */
export async function givenEncoding(options: TrainOptions) {
  const { tokenizer: path, statistics: file } = options;
  const read = path === undefined ? undefined : await readTokenizer(path);
  const fast = read?.tokenizer;
  if (fast && !(fast instanceof FastTokenizer))
    throw new InputError(`--tokenizer ${path}: systems are trained with FAST, this is another kind`);
  const padded = file === undefined ? undefined : fromNormStats(await jsonOf(file), file);
  return (dataset: Dataset): Pick<RunOptions, 'fast' | 'statistics'> => {
    if (dataset.robots) return { fast, statistics: padded };
    const statistics = padded && withoutPadding(padded, dataset);
    if (statistics) checkStatistics(statistics, dataset, `--statistics ${file}`);
    const { name, actionDimension } = dataset;
    if (read?.dimension != null && read.dimension !== actionDimension) {
      const has = `data set "${name}" has ${actionDimension}: fit one with insula tokenize fit`;
      throw new InputError(`--tokenizer ${path}: "dimension" is ${read.dimension}, ${has}`);
    }
    return { fast, statistics };
  };
}
