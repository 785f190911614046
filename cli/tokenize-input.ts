/** Chunks and ids from JSON files, validated. */
import { InputError, quote } from '../engine/index.ts';
import type { ActionChunk } from '../tokenizers/index.ts';

const isList = (value: unknown): value is unknown[] => Array.isArray(value) && value.length > 0;

/** Reads a chunk [[...], ...], a list of chunks, or { chunks: [...] }. @throws InputError that names step and dimension */
export function readChunks(json: unknown, file: string): ActionChunk[] {
  const given = (json as { chunks?: unknown } | null)?.chunks ?? json;
  if (!isList(given) || !isList(given[0]))
    throw new InputError(`${file}: expected a chunk (a list of steps, each a list of numbers) or a list of chunks`);
  return (isList(given[0][0]) ? given : [given]).map((chunk, number) => {
    const where = `${file}: chunk ${number}`;
    if (!isList(chunk) || !isList(chunk[0])) throw new InputError(`${where} is not a list of steps: ${quote(chunk)}`);
    const dimension = chunk[0].length;
    chunk.forEach((row, step) => {
      if (!Array.isArray(row) || row.length !== dimension)
        throw new InputError(
          `${where}, step ${step}: ${Array.isArray(row) ? `${row.length} numbers` : quote(row)}, but step 0 has ${dimension} numbers`,
        );
      const bad = row.findIndex((value) => typeof value !== 'number' || !Number.isFinite(Math.fround(value)));
      if (bad >= 0)
        throw new InputError(`${where}, step ${step}, dimension ${bad}: ${quote(row[bad])} is not a finite number`);
    });
    return { horizon: chunk.length, dimension, data: Float32Array.from(chunk.flat() as number[]) };
  });
}

interface GivenIds {
  readonly ids: number[];
  /** The shape of the chunk, if the file records it. */
  readonly horizon?: number;
  readonly dimension?: number;
}

/** Reads ids from a text, a list, a list of lists, or the output of tokenize encode --json. @throws InputError */
export function readIds(given: unknown, source: string): GivenIds[] {
  if (typeof given === 'string') {
    const words = given.split(/[\s,]+/).filter((word) => word !== '');
    return [{ ids: checkIds(words.map(Number), source) }];
  }
  const lists = (given as { chunks?: unknown } | null)?.chunks ?? given;
  if (!isList(lists)) throw new InputError(`${source}: expected a list of ids, or a list of such lists`);
  if (!lists.every((entry) => typeof entry === 'object' && entry !== null)) return [{ ids: checkIds(lists, source) }];
  return lists.map((entry, number) => {
    const { ids, horizon, dimension } = Array.isArray(entry)
      ? ({ ids: entry } as Partial<GivenIds>)
      : (entry as Partial<GivenIds>);
    for (const size of [horizon, dimension])
      if (size !== undefined && !(Number.isInteger(size) && size > 0))
        throw new InputError(
          `${source}: chunk ${number}: horizon and dimension must be positive integers, got ${quote(size)}`,
        );
    return { ids: checkIds(ids, `${source}: chunk ${number}`), horizon, dimension };
  });
}

function checkIds(ids: unknown, source: string): number[] {
  if (!isList(ids)) throw new InputError(`${source}: no ids`);
  const bad = ids.findIndex((id) => !Number.isInteger(id) || (id as number) < 0);
  if (bad >= 0)
    throw new InputError(`${source}: position ${bad}: ${quote(ids[bad])} is not an id; ids are integers from 0`);
  return ids as number[];
}
