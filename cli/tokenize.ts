/** `insula tokenize ...`: options in, tokenizers fitted, chunks encoded, decoded or measured, lines for people. */

import { chooseChunkLength, chunksOfEpisode, splitChunks, wholeDataset } from '../bench/tokenize/chunks.ts';
import { reportedTokenizers, reportRows } from '../bench/tokenize/report.ts';
import { measureSpeed } from '../bench/tokenize/speed.ts';
import { reportLines } from '../bench/tokenize/text.ts';
import { writeFileSafely } from '../engine/files/files.ts';
import { InputError } from '../engine/index.ts';
import type { Dataset } from '../model/data/dataset.ts';
import { measureStatistics, Normaliser, wholeEpisodes } from '../model/data/index.ts';
import {
  about,
  jsonOf,
  readTokenizer,
  type TokenizerFile,
  writePublished,
  writeTokenizer,
} from '../model/policy/tokenizer-file.ts';
import {
  type ActionChunk,
  type ActionTokenizer,
  BinActionTokenizer,
  FastTokenizer,
  StrideTokenizer,
  StringActionTokenizer,
} from '../tokenizers/index.ts';
import { chooseDataset } from './choose-data.ts';
import type { Progress } from './progress.ts';
import { readChunks, readIds } from './tokenize-input.ts';

/** Episodes of the built-in world where no data set is named. */
const WORLD_EPISODES = 50;

interface DataOptions {
  data?: string;
  dataset?: string;
  rate?: string;
  horizon?: number;
  seed?: number;
}

const open = ({ data, dataset, rate, seed = 0 }: DataOptions, progress: Progress): Promise<Dataset> =>
  chooseDataset({ data, dataset, rate, cameras: 'none' }, { episodes: WORLD_EPISODES, seed }, progress);

const numberOf = (option: string, text: string): number => {
  const value = Number(text);
  if (text.trim() === '' || !(value > 0) || !Number.isFinite(value))
    throw new InputError(`tokenize: --${option} ${text}: expected a number above 0`);
  return value;
};

const ofAll = (chosen: number, total: number) => (chosen === total ? `${total}` : `${chosen} of ${total}`);

/** What is said of episodes that hold no whole chunk. */
function shortEpisodes({ episodes }: Dataset, horizon: number): string {
  const count = episodes.filter(({ length }) => length < horizon).length;
  return count === 0 ? '' : `; ${count} of ${episodes.length} episodes are shorter than a chunk and left out`;
}

export interface FitOptions extends DataOptions {
  out?: string;
  kind?: string;
  format?: string;
  export?: string;
  scale?: string;
  covers?: string;
  vocabulary?: number;
  bins?: number;
  stride?: number;
  decimals?: number;
}

/** Fits a tokenizer on every episode of a data set and writes it with the statistics that chunks are normalised by. */
export async function fit(options: FitOptions, progress: Progress) {
  const { out, kind = 'fast' } = options;
  if (out === undefined) throw new InputError('tokenize fit: --out FILE says where the tokenizer goes');
  const dataset = await open(options, progress);
  const horizon = chooseChunkLength(dataset, options.horizon);
  const { chunks, total, statistics } = await wholeDataset(dataset, horizon);
  const begin = performance.now();
  const tokenizer = about('tokenize fit', () => tokenizerOfKind(kind, options, chunks));
  const seconds = (performance.now() - begin) / 1000;
  if (options.export !== undefined) {
    if (!(tokenizer instanceof FastTokenizer))
      throw new InputError(`--export: there is no published format of ${kind}`);
    about('--export', () => tokenizer.toPublished());
    await writePublished(options.export, tokenizer);
  }
  const { name, rate, actionDimension: dimension } = dataset;
  await writeTokenizer(out, { tokenizer, statistics, horizon, dimension, dataset: name, rate });
  const json = {
    out,
    kind,
    dataset: name,
    chunks: chunks.length,
    chunksInAll: total,
    horizon,
    dimension,
    vocabularySize: tokenizer.vocabularySize,
    ...(tokenizer instanceof FastTokenizer && { coefficients: [tokenizer.minimum, tokenizer.maximum] }),
    seconds,
  };
  const range = json.coefficients ? ` for coefficients from ${json.coefficients.join(' to ')}` : '';
  const line = `fitted on ${ofAll(chunks.length, total)} chunks of ${horizon} x ${dimension} in ${seconds.toFixed(2)} s: ${tokenizer.vocabularySize} ids${range}, written to ${out}${shortEpisodes(dataset, horizon)}`;
  return { json, lines: [line] };
}

function tokenizerOfKind(kind: string, options: FitOptions, chunks: readonly ActionChunk[]): ActionTokenizer {
  const { format = 'integers', scale = '10', vocabulary, bins, stride, decimals } = options;
  if (format !== 'integers' && format !== 'published')
    throw new InputError(`--format ${format}: there are integers and published`);
  switch (kind) {
    case 'fast':
      return FastTokenizer.fit(chunks, {
        scale: numberOf('scale', scale),
        covers: options.covers === undefined ? undefined : numberOf('covers', options.covers),
        vocabularySize: vocabulary,
        format,
      });
    case 'bins':
      return new BinActionTokenizer({ bins });
    case 'stride':
      return new StrideTokenizer(new BinActionTokenizer({ bins }), stride);
    case 'string':
      return new StringActionTokenizer({ decimals });
    default:
      throw new InputError(`--kind ${kind}: there are fast, bins, stride and string`);
  }
}

export interface CodingOptions extends DataOptions {
  tokenizer?: string;
  input?: string;
  episode?: string;
  step?: number;
  dimension?: number;
  ids?: string;
  relaxed?: boolean;
  normalised?: boolean;
}

async function openTokenizer({ tokenizer }: CodingOptions, command: string): Promise<TokenizerFile> {
  if (tokenizer === undefined)
    throw new InputError(
      `tokenize ${command}: --tokenizer names a file of insula tokenize fit, or a folder with tokenizer.json and processor_config.json`,
    );
  return readTokenizer(tokenizer);
}

/** Raw chunks -> ids. */
export async function encode(options: CodingOptions, progress: Progress) {
  const { tokenizer, horizon, ...file } = await openTokenizer(options, 'encode');
  let { statistics } = file;
  let chunks: { episode?: string; step?: number; chunk: ActionChunk }[];
  if (options.input !== undefined) {
    chunks = readChunks(await jsonOf(options.input), options.input).map((chunk) => ({ chunk }));
  } else {
    const dataset = await open(options, progress);
    const length = chooseChunkLength(dataset, options.horizon ?? horizon ?? undefined);
    chunks = await chunksOfEpisode(dataset, options, length);
    if (!statistics && !options.normalised) {
      progress.note(`${options.tokenizer} has no statistics: actions are normalised by those of the data set`);
      statistics = await measureStatistics(wholeEpisodes(dataset.episodes));
    }
  }
  const normaliser = statistics && !options.normalised ? new Normaliser(statistics.actions, statistics) : null;
  const encoded = chunks.map(({ chunk, ...place }, number) => {
    if (normaliser && normaliser.dimension !== chunk.dimension)
      throw new InputError(
        `${options.tokenizer}: made for actions of dimension ${normaliser.dimension}, those given have ${chunk.dimension}`,
      );
    const normal = normaliser ? { ...chunk, data: normaliser.normalise(chunk.data) } : chunk;
    const ids = about(`chunk ${number}`, () => tokenizer.encode(normal));
    return { ...place, horizon: chunk.horizon, dimension: chunk.dimension, ids: Array.from(ids) };
  });
  return { json: { chunks: encoded }, lines: encoded.map(({ ids }) => ids.join(' ')) };
}

/** Ids -> chunks in the units of the data. */
export async function decode(options: CodingOptions) {
  const file = await openTokenizer(options, 'decode');
  const { tokenizer, statistics } = file;
  if ((options.ids === undefined) === (options.input === undefined))
    throw new InputError("tokenize decode: give --ids '1 2 3' or --input FILE, one of them");
  const given = options.ids ?? (await jsonOf(options.input!));
  const place = options.ids === undefined ? options.input! : '--ids';
  const normaliser = statistics && !options.normalised ? new Normaliser(statistics.actions, statistics) : null;
  const chunks = readIds(given, place).map(({ ids, horizon, dimension }, number) => {
    const shape = {
      horizon: options.horizon ?? horizon ?? file.horizon,
      dimension: options.dimension ?? dimension ?? file.dimension,
    };
    if (shape.horizon === null || shape.dimension === null)
      throw new InputError(`${options.tokenizer} does not say the shape of its chunks: give --horizon and --dimension`);
    const { horizon: steps, dimension: width } = shape;
    const { data, ...flags } = about(`${place}: chunk ${number}`, () =>
      decodeOne(tokenizer, ids, { horizon: steps!, dimension: width! }, options.relaxed ?? false),
    );
    if (normaliser && normaliser.dimension !== width)
      throw new InputError(`${options.tokenizer}: made for actions of dimension ${normaliser.dimension}, not ${width}`);
    const values = normaliser ? normaliser.denormalise(data) : data;
    const rows = Array.from({ length: steps! }, (_, i) => Array.from(values.subarray(i * width!, (i + 1) * width!)));
    return { actions: rows, ...flags };
  });
  const lines = chunks.flatMap(({ actions, ...flags }) => [
    ...actions.map((row) => row.map((value) => value.toFixed(4).padStart(10)).join('')),
    ...(options.relaxed ? [JSON.stringify(flags)] : []),
  ]);
  return { json: { chunks }, lines };
}

function decodeOne(
  tokenizer: ActionTokenizer,
  ids: readonly number[],
  shape: { horizon: number; dimension: number },
  relaxed: boolean,
): { data: Float32Array; [flag: string]: unknown } {
  if (!relaxed) return { data: tokenizer.decode(ids, shape) };
  if (tokenizer instanceof FastTokenizer) return { ...tokenizer.decodeRelaxed(ids, shape) };
  if (tokenizer instanceof StringActionTokenizer) return { ...tokenizer.decodeLenient(ids, shape) };
  throw new InputError(
    '--relaxed: one id for each number leaves nothing to repair; FAST and string tokenizers know it',
  );
}

export interface ReportOptions extends DataOptions {
  scales?: string;
  vocabulary?: number;
  stride?: number;
  bins?: number;
  decimals?: number;
  tokenizer?: string;
  /** File for an HTML page. */
  report?: string;
}

/** Every kind of tokenizer on the same held-out chunks. */
export async function report(options: ReportOptions, progress: Progress) {
  const { scales = '5,10,20', vocabulary = 1024, stride = 5, bins = 256, decimals = 4, seed } = options;
  const dataset = await open(options, progress);
  const { name, rate, actionDimension: dimension } = dataset;
  const horizon = chooseChunkLength(dataset, options.horizon);
  const split = await splitChunks(dataset, { horizon, seed });
  if (split.train.length === 0 || split.heldOut.length === 0)
    throw new InputError(
      `data set "${name}": ${split.train.length} chunks of ${horizon} steps to fit on and ${split.heldOut.length} held out; choose a shorter --horizon`,
    );
  const settings = {
    rate,
    scales: scales.split(',').map((scale) => numberOf('scales', scale)),
    vocabularySize: vocabulary,
    stride,
    bins,
    decimals,
  };
  const tokenizers = about('tokenize report', () => reportedTokenizers(split.train, settings));
  if (options.tokenizer !== undefined)
    tokenizers.push([options.tokenizer, (await readTokenizer(options.tokenizer)).tokenizer]);
  const rows = about('tokenize report', () => reportRows(split, tokenizers, rate));
  const names = dataset.actionNames ?? Array.from({ length: dimension }, (_, d) => `dimension ${d}`);
  const { low, high } = split.normaliser;
  const dimensions = names.map((own, d) => ({ name: own, halfRange: (high[d] - low[d]) / 2 }));
  const chunks = { train: split.train.length, trainInAll: split.total, heldOut: split.heldOut.length };
  const head = `${name}: ${ofAll(chunks.train, split.total)} chunks of ${horizon} x ${dimension} (${(horizon / rate).toFixed(2)} s) to fit on, ${chunks.heldOut} to measure; ${split.description}${shortEpisodes(dataset, horizon)}`;
  const path = options.report;
  if (path !== undefined) {
    // The figures' library takes half a second to load.
    const { reportPage } = await import('../bench/tokenize/page.ts');
    await writeFileSafely(path, [await reportPage(`Actions of ${name} as tokens`, head, rows, dimensions)]);
  }
  return {
    json: { dataset: name, rate, horizon, dimension, chunks, split: split.description, settings, dimensions, rows },
    lines: [head, '', ...reportLines(rows, dimensions), ...(path === undefined ? [] : [`page: ${path}`])],
  };
}

/** How fast FAST is on the chunks of a data set, and @huggingface/tokenizers where it does the same. */
export async function speed(options: DataOptions & { vocabulary?: number }, progress: Progress) {
  const dataset = await open(options, progress);
  const { chunks } = await wholeDataset(dataset, chooseChunkLength(dataset, options.horizon));
  const { fit: fitting, rows } = about('tokenize speed', () => measureSpeed(chunks, options.vocabulary ?? 1024));
  const lines = [...fitting, ...rows].map(
    ({ what, coefficientsPerSecond }) => `${what.padEnd(40)}${(coefficientsPerSecond / 1e6).toFixed(2).padStart(8)}`,
  );
  const head = `${dataset.name}: ${chunks.length} chunks; million coefficients a second`;
  return { json: { dataset: dataset.name, chunks: chunks.length, fit: fitting, rows }, lines: [head, ...lines] };
}
