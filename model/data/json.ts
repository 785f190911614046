import * as v from 'valibot';
import { type ByteSource, parseJson, readRange } from '../../engine/files/bytes.ts';
import { InputError, quote } from '../../engine/files/errors.ts';
import { checked, dictionary, readChecked } from '../../engine/files/json-schema.ts';

/** JSON Lines files longer than this are not read whole. */
const LINES_LIMIT = 2 ** 30;
const object = dictionary(v.unknown());

/** Reads a file that holds one JSON object, and closes it. */
export const readJsonObject = (file: ByteSource) => readChecked(file, object);

/** Reads a file with one JSON object a line, ignoring empty lines, converts each by `read`, and closes the file. */
export async function readJsonLines<T>(
  file: ByteSource,
  read: (line: Record<string, unknown>, where: string) => T,
): Promise<T[]> {
  try {
    if (file.size > LINES_LIMIT) throw new InputError(`${file.name}: ${file.size} bytes is too large`);
    const bytes = await readRange(file, 0, file.size, 'its lines');
    const items: T[] = [];
    for (let start = 0, number = 1; start < bytes.length; number++) {
      const end = bytes.indexOf(10, start);
      const own = bytes.subarray(start, end < 0 ? bytes.length : end);
      start += own.length + 1;
      if (own.every((byte) => byte <= 32)) continue;
      const json = parseJson(own, file.name, `line ${number} is not JSON, or cut off`, `line ${number}: `);
      items.push(read(checked(object, json, `${file.name}: line ${number}`), `line ${number}`));
    }
    return items;
  } finally {
    await file.close();
  }
}

/** Checks an optional text and trims it; '' if it is null, left out or empty. */
export function asOptionalText(value: unknown, file: string, what: string): string {
  return checked(v.pipe(v.nullish(v.string('text'), ''), v.trim()), value, `${file}: ${what}`);
}

/** Checks a whole number that is at least `least`. */
export function asCount(value: unknown, file: string, what: string, least = 0): number {
  if (!Number.isSafeInteger(value) || (value as number) < least)
    throw new InputError(`${file}: ${what}: expected a whole number from ${least}, got ${quote(value)}`);
  return value as number;
}
