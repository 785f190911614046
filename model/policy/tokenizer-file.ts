/** Tokenizer files: a tokenizer and the statistics that normalise its chunks, or the files of a published FAST tokenizer. */
import { readJson } from '../../engine/files/bytes.ts';
import { InputError } from '../../engine/files/errors.ts';
import { openPath } from '../../engine/files/paths.ts';
import {
  type ActionTokenizer,
  actionTokenizerFromJson,
  FastTokenizer,
  PROCESSOR_FILE,
  type PublishedFast,
  processorCode,
} from '../../tokenizers/index.ts';
import { type DatasetStatistics, statisticsFromJson } from '../data/index.ts';

const FORMAT = 'insula action tokenizer 1';

export interface TokenizerFile {
  readonly tokenizer: ActionTokenizer;
  /** Statistics of the raw actions; null if chunks are already normalised. */
  readonly statistics: DatasetStatistics | null;
  /** Shape of the chunks that the tokenizer was fitted to; null if the file does not record it. */
  readonly horizon: number | null;
  readonly dimension: number | null;
}

export async function writeTokenizer(
  path: string,
  file: TokenizerFile & { readonly dataset: string; readonly rate: number },
) {
  const { writeFileSafely } = await import('../../engine/files/files.ts');
  await writeFileSafely(path, [`${JSON.stringify({ format: FORMAT, ...file })}\n`]);
}

/** Where transformers 5 looks for the tokenizer of a processor whose attribute has this name; transformers 4 does beside the processor. */
const BPE = 'bpe_tokenizer';

/** Writes a folder that transformers' AutoProcessor opens, as openpi and LeRobot do. */
export async function writePublished(folder: string, tokenizer: FastTokenizer): Promise<void> {
  const files = tokenizer.toPublished();
  const { ensureFolder, writeFileSafely, writeJson } = await import('../../engine/files/files.ts');
  const { join } = await import('node:path');
  await ensureFolder(join(folder, BPE), folder);
  const named = {
    'tokenizer.json': files.tokenizer,
    'tokenizer_config.json': files.tokenizerConfig,
    [`${BPE}/tokenizer.json`]: files.tokenizer,
    [`${BPE}/tokenizer_config.json`]: files.tokenizerConfig,
    'processor_config.json': files.processor,
  };
  for (const [name, json] of Object.entries(named)) await writeJson(join(folder, name), json);
  await writeFileSafely(join(folder, `${PROCESSOR_FILE}.py`), [processorCode]);
}

/** Reads a file of `writeTokenizer`, or a folder of a published tokenizer. @throws InputError that names file and field */
export async function readTokenizer(path: string): Promise<TokenizerFile> {
  const { fileError } = await import('../../engine/files/files.ts');
  const { stat } = await import('node:fs/promises');
  const isFolder = await stat(path).then(
    (entry) => entry.isDirectory(),
    (error) => {
      throw fileError(error, path, 'open it');
    },
  );
  if (isFolder) return readPublished(path);
  const json = await jsonOf(path);
  const { format, tokenizer, statistics, horizon, dimension } = (json ?? {}) as Record<string, unknown>;
  if (format !== FORMAT)
    throw new InputError(
      `${path}: not a tokenizer file of insula tokenize fit ("format" is not "${FORMAT}"); for a published tokenizer, name the folder with tokenizer.json and processor_config.json`,
    );
  for (const [name, size] of Object.entries({ horizon, dimension }))
    if (!Number.isInteger(size) || (size as number) < 1)
      throw new InputError(`${path}: "${name}" is not a positive integer`);
  const read = statistics === null ? null : statisticsFromJson(statistics, `${path}: "statistics"`);
  if (read && read.actions.mean.length !== dimension)
    throw new InputError(
      `${path}: statistics of ${read.actions.mean.length} action dimensions, but "dimension" is ${dimension}`,
    );
  return {
    tokenizer: about(`${path}: "tokenizer"`, () => actionTokenizerFromJson(tokenizer)),
    statistics: read,
    horizon: horizon as number,
    dimension: dimension as number,
  };
}

async function readPublished(folder: string): Promise<TokenizerFile> {
  const { join } = await import('node:path');
  const { kindOfPath } = await import('../../engine/files/files.ts');
  const inside = (await kindOfPath(join(folder, 'tokenizer.json'))) === null ? BPE : '';
  const tokenizer = (await jsonOf(join(folder, inside, 'tokenizer.json'))) as PublishedFast['tokenizer'];
  const processor = (await jsonOf(join(folder, 'processor_config.json'))) as PublishedFast['processor'];
  const { time_horizon: horizon, action_dim: dimension } = processor ?? {};
  const size = (value: unknown) => (Number.isInteger(value) && (value as number) > 0 ? (value as number) : null);
  return {
    tokenizer: about(folder, () => FastTokenizer.fromPublished({ tokenizer, processor })),
    statistics: null,
    horizon: size(horizon),
    dimension: size(dimension),
  };
}

/** The JSON of a file. @throws InputError with one line */
export async function jsonOf(path: string): Promise<unknown> {
  const source = await openPath(path);
  try {
    return await readJson(source);
  } finally {
    await source.close();
  }
}

/** Runs `action`; its errors become InputErrors that begin with `source`. */
export function about<T>(source: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    throw error instanceof InputError ? error : new InputError(`${source}: ${(error as Error).message}`);
  }
}
