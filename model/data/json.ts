import { type ByteSource, parseJson, readJson, readRange } from '../../engine/files/bytes.ts';
import { InputError, quote } from '../../engine/files/errors.ts';

// These functions read JSON files of data sets; an unexpected value gives one line that names file and field.

export type Json = Record<string, unknown>;

/** JSON Lines files longer than this are not read whole. */
const LINES_LIMIT = 2 ** 30;

/** Reads a file that holds one JSON object, and closes it. */
export async function readJsonObject(file: ByteSource): Promise<Json> {
  try {
    return asObject(await readJson(file), file.name, 'the file');
  } finally {
    await file.close();
  }
}

/** Reads a file with one JSON object a line, ignoring empty lines, converts each by `read`, and closes the file. */
export async function readJsonLines<T>(file: ByteSource, read: (line: Json, where: string) => T): Promise<T[]> {
  try {
    if (file.size > LINES_LIMIT) throw new InputError(`${file.name}: ${file.size} bytes is too large`);
    const bytes = await readRange(file, 0, file.size, 'its lines');
    const items: T[] = [];
    let [start, number] = [0, 0];
    while (start < bytes.length) {
      const found = bytes.indexOf(10, start);
      const end = found < 0 ? bytes.length : found;
      number += 1;
      const line = bytes.subarray(start, end);
      start = end + 1;
      if (line.every((byte) => byte <= 32)) continue;
      const json = parseJson(line, file.name, `line ${number} is not JSON, or cut off`, `line ${number}: `);
      items.push(read(asObject(json, file.name, `line ${number}`), `line ${number}`));
    }
    return items;
  } finally {
    await file.close();
  }
}

export function asObject(value: unknown, file: string, what: string): Json {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw unexpected(value, file, what, 'a JSON object');
  return value as Json;
}

export function asText(value: unknown, file: string, what: string): string {
  if (typeof value !== 'string' || value === '') throw unexpected(value, file, what, 'text');
  return value;
}

/** Checks an optional text and trims it; '' if it is null, left out or empty. */
export function asOptionalText(value: unknown, file: string, what: string): string {
  return value == null || value === '' ? '' : asText(value, file, what).trim();
}

/** Checks a whole number that is at least `least`. */
export function asCount(value: unknown, file: string, what: string, least = 0): number {
  if (!Number.isSafeInteger(value) || (value as number) < least)
    throw unexpected(value, file, what, `a whole number from ${least}`);
  return value as number;
}

/** The error about a value that is missing, or is not what was expected. */
export function unexpected(value: unknown, file: string, what: string, expected: string): InputError {
  const found = value === undefined ? 'it is missing' : `got ${quote(value)}`;
  return new InputError(`${file}: ${what}: expected ${expected}, ${found}`);
}
