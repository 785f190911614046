/** Chunks and ids from JSON that somebody else wrote. */
import { InputError, quote } from '../engine/index.ts';
import type { ActionChunk } from '../tokenizers/index.ts';

const isList = (value: unknown): value is unknown[] => Array.isArray(value) && value.length > 0;

/** One chunk [[...], ...], a list of chunks, or { chunks: [...] }. @throws InputError that names chunk, step and dimension */
export function readChunks(json: unknown, file: string): ActionChunk[] {
  const given = (json as { chunks?: unknown } | null)?.chunks ?? json;
  if (!isList(given) || !isList(given[0]))
    throw new InputError(`${file}: expected a chunk, a list of steps each a list of numbers, or a list of chunks`);
  return (isList(given[0][0]) ? given : [given]).map((chunk, number) => {
    const where = `${file}: chunk ${number}`;
    if (!isList(chunk) || !isList(chunk[0])) throw new InputError(`${where} is no list of steps: ${quote(chunk)}`);
    const dimension = chunk[0].length;
    chunk.forEach((row, step) => {
      if (!Array.isArray(row) || row.length !== dimension)
        throw new InputError(
          `${where}, step ${step}: ${Array.isArray(row) ? `${row.length} numbers` : quote(row)}, but step 0 has ${dimension} numbers`,
        );
      const bad = row.findIndex((value) => typeof value !== 'number' || !Number.isFinite(Math.fround(value)));
      if (bad >= 0)
        throw new InputError(`${where}, step ${step}, dimension ${bad}: ${quote(row[bad])} is no finite number`);
    });
    return { horizon: chunk.length, dimension, data: Float32Array.from(chunk.flat() as number[]) };
  });
}

export interface GivenIds {
  readonly ids: number[];
  /** Where the file says the shape. */
  readonly horizon?: number;
  readonly dimension?: number;
}

/** Text of ids, one list of ids, a list of lists, or what tokenize encode --json gave. @throws InputError */
export function readIds(given: unknown, place: string): GivenIds[] {
  if (typeof given === 'string') {
    const words = given.split(/[\s,]+/).filter((word) => word !== '');
    return [{ ids: checkIds(words.map(Number), place) }];
  }
  const lists = (given as { chunks?: unknown } | null)?.chunks ?? given;
  if (!isList(lists)) throw new InputError(`${place}: expected a list of ids, or a list of such lists`);
  if (!lists.every((entry) => typeof entry === 'object' && entry !== null)) return [{ ids: checkIds(lists, place) }];
  return lists.map((entry, number) => {
    const { ids, horizon, dimension } = Array.isArray(entry)
      ? ({ ids: entry } as Partial<GivenIds>)
      : (entry as Partial<GivenIds>);
    for (const size of [horizon, dimension])
      if (size !== undefined && !(Number.isInteger(size) && size > 0))
        throw new InputError(
          `${place}: chunk ${number}: horizon and dimension must be whole numbers from 1, got ${quote(size)}`,
        );
    return { ids: checkIds(ids, `${place}: chunk ${number}`), horizon, dimension };
  });
}

function checkIds(ids: unknown, place: string): number[] {
  if (!isList(ids)) throw new InputError(`${place}: no ids`);
  const bad = ids.findIndex((id) => !Number.isInteger(id) || (id as number) < 0);
  if (bad >= 0)
    throw new InputError(`${place}: position ${bad}: ${quote(ids[bad])} is no id; ids are whole numbers from 0`);
  return ids as number[];
}
