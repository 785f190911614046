/** `insula tokenize encode` and `decode`: chunks to ids, and ids to chunks in the units of the data. */
import { InputError } from '../engine/index.ts';
import { chooseHorizon, measureStatistics, Normaliser, wholeEpisodes } from '../model/data/index.ts';
import { about, jsonOf, readTokenizer, type TokenizerFile } from '../model/policy/tokenizer-file.ts';
import { chunksOfEpisode } from '../model/training/tokenizer-chunks.ts';
import { type ActionChunk, type ActionTokenizer, FastTokenizer, StringActionTokenizer } from '../tokenizers/index.ts';
import { command } from './command.ts';
import { flag, number, text } from './options.ts';
import { actionOptions, openActions, sceneOptions, tokenizerOption } from './tokenize-data.ts';
import { readChunks, readIds } from './tokenize-input.ts';

async function openTokenizer(path: string | undefined, command: string): Promise<TokenizerFile> {
  if (path === undefined)
    throw new InputError(
      `tokenize ${command}: --tokenizer names a file of insula tokenize fit, or a folder with tokenizer.json and processor_config.json`,
    );
  return readTokenizer(path);
}

/** @throws InputError: without statistics neither command normalises, so that --normalised changes nothing */
function refuseNormalised(command: string, path: string | undefined): never {
  throw new InputError(
    `tokenize ${command}: --normalised changes nothing: ${path} has no statistics, and numbers stay as they are; leave it out`,
  );
}

const fromData = { excludes: 'input' };

/** Raw chunks -> ids. */
export const encode = command({
  options: {
    tokenizer: tokenizerOption,
    input: text(
      'JSON file of a chunk (a list of control steps, each a list of numbers) or of several, instead of a data set',
      {
        excludes: ['data', 'seed', 'horizon'],
      },
    ),
    ...actionOptions,
    ...sceneOptions,
    episode: text('id or number of an episode; the first by default', fromData),
    step: number('first control step of the chunk; all chunks of the episode by default', 0, fromData),
    normalised: flag('the actions are normalised already'),
  },
  async run({ tokenizer: path, ...values }, { progress }) {
    const { tokenizer, horizon, ...file } = await openTokenizer(path, 'encode');
    let { statistics } = file;
    let chunks: { episode?: string; step?: number; chunk: ActionChunk }[];
    if (values.input !== undefined) {
      if (!statistics && values.normalised) refuseNormalised('encode', path);
      chunks = readChunks(await jsonOf(values.input), values.input).map((chunk) => ({ chunk }));
    } else {
      const dataset = await openActions(values, progress);
      const length = chooseHorizon(dataset, values.horizon ?? horizon ?? undefined);
      chunks = await chunksOfEpisode(dataset, values, length);
      if (!statistics && !values.normalised) {
        progress.note(`${path} has no statistics: actions are normalised by the data set's statistics`);
        statistics = await measureStatistics(wholeEpisodes(dataset.episodes));
      }
    }
    const normaliser = statistics && !values.normalised ? new Normaliser(statistics.actions, statistics) : null;
    const encoded = chunks.map(({ chunk, ...start }, number) => {
      if (normaliser && normaliser.dimension !== chunk.dimension)
        throw new InputError(
          `${path}: fitted to actions of dimension ${normaliser.dimension}; these have ${chunk.dimension}`,
        );
      const normal = normaliser ? { ...chunk, data: normaliser.normalise(chunk.data) } : chunk;
      const ids = about(`chunk ${number}`, () => tokenizer.encode(normal));
      return { ...start, horizon: chunk.horizon, dimension: chunk.dimension, ids: Array.from(ids) };
    });
    return { json: { chunks: encoded }, lines: encoded.map(({ ids }) => ids.join(' ')) };
  },
});

/** Ids -> chunks in the units of the data. */
export const decode = command({
  options: {
    tokenizer: tokenizerOption,
    ids: text("ids of a chunk: '17 4 256'", { excludes: 'input' }),
    input: text('JSON file of ids, or the output of insula tokenize encode --json'),
    horizon: number('control steps in a chunk; needed if neither input nor tokenizer has it', 1),
    dimension: number('numbers in a control step; needed if neither input nor tokenizer has it', 1),
    relaxed: flag('decodes damaged ids as far as possible, and reports truncated, held and zero-filled values'),
    normalised: flag('leaves the actions normalised'),
  },
  async run({ tokenizer: path, ...values }) {
    const file = await openTokenizer(path, 'decode');
    const { tokenizer, statistics } = file;
    if (!statistics && values.normalised) refuseNormalised('decode', path);
    if (values.ids === undefined && values.input === undefined)
      throw new InputError("tokenize decode: give --ids '1 2 3' or --input FILE");
    const given = values.ids ?? (await jsonOf(values.input!));
    const source = values.ids === undefined ? values.input! : '--ids';
    const normaliser = statistics && !values.normalised ? new Normaliser(statistics.actions, statistics) : null;
    const chunks = readIds(given, source).map(({ ids, horizon, dimension }, number) => {
      const steps = values.horizon ?? horizon ?? file.horizon;
      const width = values.dimension ?? dimension ?? file.dimension;
      if (steps === null || width === null)
        throw new InputError(`${path} does not record the shape of its chunks: give --horizon and --dimension`);
      const { data, ...flags } = about(`${source}: chunk ${number}`, () =>
        decodeOne(tokenizer, ids, { horizon: steps, dimension: width }, values.relaxed ?? false),
      );
      if (normaliser && normaliser.dimension !== width)
        throw new InputError(`${path}: fitted to actions of dimension ${normaliser.dimension}, not ${width}`);
      const actions = normaliser ? normaliser.denormalise(data) : data;
      const rows = Array.from({ length: steps }, (_, i) => Array.from(actions.subarray(i * width, (i + 1) * width)));
      return { actions: rows, ...flags };
    });
    const lines = chunks.flatMap(({ actions, ...flags }) => [
      ...actions.map((row) => row.map((value) => value.toFixed(4).padStart(10)).join('')),
      ...(values.relaxed ? [JSON.stringify(flags)] : []),
    ]);
    return { json: { chunks }, lines };
  },
});

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
    '--relaxed: this tokenizer has one id for each number, so there is nothing to repair; it is for FAST and string tokenizers',
  );
}
