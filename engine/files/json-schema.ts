/** Validation of values from outside, such as the contents of a JSON file, by a schema. */
import * as v from 'valibot';
import { type ByteSource, readJson } from './bytes.ts';
import { InputError, quote } from './errors.ts';
import { openPath } from './paths.ts';

/** A whole number from `least` to `most`. */
export const count = (least = 0, most = Number.MAX_SAFE_INTEGER) =>
  v.pipe(v.number(), v.safeInteger(), v.minValue(least), v.maxValue(most));

/** Whether a value is a number that is finite in f32, in which an adapter computes. */
export const isFloat32 = (value: unknown): value is number =>
  typeof value === 'number' && Number.isFinite(Math.fround(value));

/** Whether it is also above 0 there: adapters may take what lies below the smallest normal number for 0. */
export const isPositive32 = (value: unknown): value is number => isFloat32(value) && value >= 2 ** -126;

export const float32 = v.custom<number>(isFloat32, 'a number that f32 holds');
export const positive32 = v.custom<number>(isPositive32, 'a number above 0 that f32 holds');
/** From 0 on. */
export const nonNegative32 = v.pipe(float32, v.minValue(0));
/** A part of a whole. */
export const share = v.pipe(v.number(), v.minValue(0), v.maxValue(1));

/**
 * Returns the value with the type of the schema. An object schema drops fields that it does not name; `v.looseObject`
 * keeps them. The schema's own messages are noun phrases that describe the expected value.
 *
 * @throws InputError that names the first wrong field: `where: "settings.batch": expected number, got "x"`
 */
export function checked<T>(schema: v.GenericSchema<unknown, T>, value: unknown, where: string): T {
  const result = v.safeParse(schema, value, { abortEarly: true, abortPipeEarly: true });
  if (result.success) return result.output;
  const [issue] = result.issues;
  const path = (issue.path ?? []).map(({ key }, i) => (typeof key === 'number' ? `[${key}]` : `${i ? '.' : ''}${key}`));
  const field = path.length > 0 ? `${quote(path.join(''))}: ` : '';
  throw new InputError(`${where}: ${field}${complaint(issue)}`);
}

/** An object of any keys, at most `most`, which are counted first; `v.record` alone takes a list for one. */
export const dictionary = <T>(entry: v.GenericSchema<unknown, T>, words = 'a JSON object', most = Infinity) =>
  v.pipe(
    v.custom<Record<string, unknown>>(
      (value) => typeof value === 'object' && value !== null && !Array.isArray(value),
      words,
    ),
    v.maxEntries(most, `at most ${most} entries`),
    v.record(v.string(), entry),
  );

/**
 * Reads a source that holds JSON, and closes it.
 *
 * @throws InputError that begins with `where` if the value does not fit the schema; also if the source is no JSON
 */
export async function readChecked<T>(
  source: ByteSource,
  schema: v.GenericSchema<unknown, T>,
  where = source.name,
): Promise<T> {
  try {
    return checked(schema, await readJson(source), where);
  } finally {
    await source.close();
  }
}

/** Reads a JSON file from disk (node only). `what` completes the message "this is not ...". @throws InputError as `readChecked` */
export const readJsonFile = async <T>(path: string, schema: v.GenericSchema<unknown, T>, what: string): Promise<T> =>
  readChecked(await openPath(path), schema, `${path}: this is not ${what}`);

function complaint(issue: v.BaseIssue<unknown>): string {
  const { type, input, expected, message } = issue;
  if (expected === 'never') return message.startsWith('Invalid ') ? 'unknown field' : `unknown field; ${message}`;
  const key = issue.path?.at(-1)?.key;
  // An object reports a missing key as an issue of its own.
  if (/object$/.test(type) && expected === JSON.stringify(key)) return 'missing';
  const got = typeof input === 'number' ? String(input) : quote(input);
  return `expected ${message.startsWith('Invalid ') ? words(expected ?? type) : message}, got ${got}`;
}

const comparisons: Readonly<Record<string, string>> = {
  '>=': 'at least',
  '>': 'above',
  '<=': 'at most',
  '<': 'below',
};

/** Valibot's name of the expected value in plain words: `("a" | "b")` is "a" or "b", `>=1` is at least 1. */
function words(expected: string): string {
  const plain = expected.replace(/^\((.*)\)$/, '$1').replaceAll(' | ', ' or ');
  return plain
    .replace(/^([<>]=?)(?=[-\d])/, (sign) => `${comparisons[sign]} `)
    .replace(/^(safe_)?integer$/, 'a whole number')
    .replace(/^finite$/, 'a finite number')
    .replace(/\b(Object|Array)\b/g, (name) => name.toLowerCase())
    .replaceAll('_', ' ');
}
