/** `insula tokenize encode` and `decode`: chunks as ids, and ids as chunks in the units of the data. */
import { chooseChunkLength, chunksOfEpisode } from '../bench/tokenize/chunks.ts';
import { InputError } from '../engine/index.ts';
import { measureStatistics, Normaliser, wholeEpisodes } from '../model/data/index.ts';
import { about, jsonOf, readTokenizer, type TokenizerFile } from '../model/policy/tokenizer-file.ts';
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

const fromData = { excludes: 'input' };

/** Raw chunks -> ids. */
export const encode = command({
  options: {
    tokenizer: tokenizerOption,
    input: text(
      'JSON file of a chunk (a list of steps, each a list of numbers) or of several, in place of a data set',
      {
        excludes: ['data', 'seed', 'horizon'],
      },
    ),
    ...actionOptions,
    ...sceneOptions,
    episode: text('id or number of an episode; the first by default', fromData),
    step: number('control step at which the chunk begins; all chunks of the episode by default', 0, fromData),
    normalised: flag('the actions are normalised already'),
  },
  async run({ tokenizer: path, ...values }, { progress }) {
    const { tokenizer, horizon, ...file } = await openTokenizer(path, 'encode');
    let { statistics } = file;
    let chunks: { episode?: string; step?: number; chunk: ActionChunk }[];
    if (values.input !== undefined) {
      chunks = readChunks(await jsonOf(values.input), values.input).map((chunk) => ({ chunk }));
    } else {
      const dataset = await openActions(values, progress);
      const length = chooseChunkLength(dataset, values.horizon ?? horizon ?? undefined);
      chunks = await chunksOfEpisode(dataset, values, length);
      if (!statistics && !values.normalised) {
        progress.note(`${path} has no statistics: actions are normalised by those of the data set`);
        statistics = await measureStatistics(wholeEpisodes(dataset.episodes));
      }
    }
    const normaliser = statistics && !values.normalised ? new Normaliser(statistics.actions, statistics) : null;
    const encoded = chunks.map(({ chunk, ...place }, number) => {
      if (normaliser && normaliser.dimension !== chunk.dimension)
        throw new InputError(
          `${path}: made for actions of dimension ${normaliser.dimension}, those given have ${chunk.dimension}`,
        );
      const normal = normaliser ? { ...chunk, data: normaliser.normalise(chunk.data) } : chunk;
      const ids = about(`chunk ${number}`, () => tokenizer.encode(normal));
      return { ...place, horizon: chunk.horizon, dimension: chunk.dimension, ids: Array.from(ids) };
    });
    return { json: { chunks: encoded }, lines: encoded.map(({ ids }) => ids.join(' ')) };
  },
});

/** Ids -> chunks in the units of the data. */
export const decode = command({
  options: {
    tokenizer: tokenizerOption,
    ids: text("ids of a chunk: '17 4 256'", { excludes: 'input' }),
    input: text('JSON file of ids, or what insula tokenize encode --json printed'),
    horizon: number('control steps of a chunk, where neither input nor tokenizer says', 1),
    dimension: number('numbers of a control step, where neither input nor tokenizer says', 1),
    relaxed: flag('decodes what can be read and says what was cut, held or filled with zeros'),
    normalised: flag('leaves the actions normalised'),
  },
  async run({ tokenizer: path, ...values }) {
    const file = await openTokenizer(path, 'decode');
    const { tokenizer, statistics } = file;
    if (values.ids === undefined && values.input === undefined)
      throw new InputError("tokenize decode: give --ids '1 2 3' or --input FILE");
    const given = values.ids ?? (await jsonOf(values.input!));
    const place = values.ids === undefined ? values.input! : '--ids';
    const normaliser = statistics && !values.normalised ? new Normaliser(statistics.actions, statistics) : null;
    const chunks = readIds(given, place).map(({ ids, horizon, dimension }, number) => {
      const shape = {
        horizon: values.horizon ?? horizon ?? file.horizon,
        dimension: values.dimension ?? dimension ?? file.dimension,
      };
      if (shape.horizon === null || shape.dimension === null)
        throw new InputError(`${path} does not say the shape of its chunks: give --horizon and --dimension`);
      const { horizon: steps, dimension: width } = shape;
      const { data, ...flags } = about(`${place}: chunk ${number}`, () =>
        decodeOne(tokenizer, ids, { horizon: steps!, dimension: width! }, values.relaxed ?? false),
      );
      if (normaliser && normaliser.dimension !== width)
        throw new InputError(`${path}: made for actions of dimension ${normaliser.dimension}, not ${width}`);
      const actions = normaliser ? normaliser.denormalise(data) : data;
      const rows = Array.from({ length: steps! }, (_, i) => Array.from(actions.subarray(i * width!, (i + 1) * width!)));
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
    '--relaxed: one id for each number leaves nothing to repair; FAST and string tokenizers know it',
  );
}
