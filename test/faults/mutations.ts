/** Systematic damage of JSON: every field of a document in turn is missing, or holds each of many wrong values. */
import { InputError } from '../../engine/index.ts';

// biome-ignore lint/suspicious/noExplicitAny: what a JSON file holds, and the schemas of a library
type Json = any;
type Path = readonly string[];

export interface Mutation {
  /** The field, as a dotted path, and what becomes of it. */
  readonly what: string;
  make(): Json;
}

/** Values of every wrong kind, and numbers that no size, count, rate or id can be. */
const values: readonly Json[] = [
  ...[null, true, false, '', 'nowhere', '../..', 'NaN', '__proto__', 'constructor', {}, [], [null], [[]], [{}]],
  ...[-1, 0, 1, 2, 3, 0.5, 1e-320, -1e308, 1e308, 2 ** 31, 2 ** 32, 2 ** 53, 100_000, 1000, '\u0000\n\u202e'],
];
/** Sizes of the objects that are put in place of missing ones. */
const sizes = [1, 4, 8, 1000, 2 ** 20, 2 ** 32];
const LONG = 100_000;
/** Children of an object or a list that are walked where it has more than so many. */
const MOST_CHILDREN = 14;

const text = (path: Path) => path.join('.');
const short = (value: Json) => JSON.stringify(value)?.slice(0, 60);
const isObject = (value: Json) => typeof value === 'object' && value !== null;

/** The schema below optional, nullable and the like. */
const bare = (schema: Json): Json => (schema?.wrapped ? bare(schema.wrapped) : schema);
const itemsOf = (schema: Json): Json => bare(schema)?.item ?? bare(schema)?.value;

/** The fields of an object by a schema of valibot: of a choice between objects, those of all. */
function entriesOf(given: Json): Record<string, Json> {
  const schema = bare(given);
  const choices = (schema?.options ?? []).filter(isObject);
  return Object.assign({}, ...choices.map(entriesOf), schema?.entries);
}

/**
 * The places of all values of a document, of large lists the first, the last and some between, and of the optional fields that the schema
 * knows and the document lacks; each with its value and its schema.
 */
function placesOf(json: Json, schema?: Json, path: Path = []): { path: Path; own: Json; schema: Json }[] {
  const inner = isObject(json) ? Object.keys(json) : [];
  const shown = inner.length > MOST_CHILDREN ? [0, 1, inner.length >> 1, inner.length - 1].map((i) => inner[i]) : inner;
  const known = isObject(json) ? entriesOf(schema) : {};
  const lacking = Object.keys(known).filter((key) => json[key] === undefined);
  return [
    ...(path.length > 0 ? [{ path, own: json, schema }] : []),
    ...[...shown, ...lacking].flatMap((key) => placesOf(json[key], known[key] ?? itemsOf(schema), [...path, key])),
  ];
}

/** Values that a schema takes, with `size` as every number, as far as the schema bounds it. */
function madeBy(given: Json, size: number): Json[] {
  const schema = bare(given);
  if (schema?.type === 'picklist') return schema.options;
  if (schema?.options) return schema.options.flatMap((own: Json) => madeBy(own, size));
  if (schema?.type === 'literal') return [schema.literal];
  if (schema?.type === 'boolean') return [true, false];
  if (schema?.type === 'string') return ['nowhere', 'image', 'action', 'backbone'];
  if (schema?.type === 'number') {
    const most = (schema.pipe ?? []).flatMap((own: Json) => (own.type === 'max_value' ? [own.requirement] : []));
    return [Math.min(size, ...most)];
  }
  if (schema?.item) return madeBy(schema.item, size).map((own) => [own]);
  if (schema?.value) return madeBy(schema.value, size).map((own) => ({ backbone: own }));
  if (!schema?.entries) return [size];
  const made = Object.entries(schema.entries).map(([key, own]) => [key, madeBy(own, size)] as const);
  const count = Math.min(6, Math.max(1, ...made.map(([, own]) => own.length)));
  return Array.from({ length: count }, (_, i) =>
    Object.fromEntries(made.map(([key, own]) => [key, own[i % own.length]])),
  );
}

/** A copy with another value at a path, which is missing if the value is undefined. Only what lies on the path is copied. */
function replaced(json: Json, path: Path, value: Json): Json {
  if (path.length === 0) return value;
  const [key, ...rest] = path;
  const copy = Array.isArray(json) ? [...json] : { ...json };
  const own = replaced(json?.[key], rest, value);
  if (own === undefined && Array.isArray(copy)) copy.splice(Number(key), 1);
  else if (own === undefined) delete copy[key];
  else Object.defineProperty(copy, key, { value: own, enumerable: true, configurable: true, writable: true });
  return copy;
}

/** Other values of the same kind as `own`, which a type alone does not refuse. */
function alike(own: Json): [what: string, make: () => Json][] {
  if (typeof own === 'number')
    return [own + 1, own - 1, 2 * own, -own, own / 3].map((value) => [`= ${value}`, () => value]);
  if (typeof own === 'string')
    return [
      ['with another letter', () => `${own}x`],
      ['very long', () => 'long '.repeat(LONG / 5)],
    ];
  if (Array.isArray(own))
    return [
      ['without its last', () => own.slice(0, -1)],
      ['with its first twice', () => (own.length > 0 ? [own[0], ...own] : [0])],
      ['backwards', () => [...own].reverse()],
      ['very long', () => Array.from({ length: LONG }, () => own[0] ?? 0)],
    ];
  if (!isObject(own)) return [];
  const [first, ...others] = Object.entries(own);
  const proto = () => Object.defineProperty({ ...own }, '__proto__', { value: { x: 1 }, enumerable: true });
  return [
    ['with a prototype', proto],
    ['with its keys backwards', () => Object.fromEntries(Object.entries(own).reverse())],
    ['with its first renamed', () => Object.fromEntries(first ? [[`${first[0]}x`, first[1]], ...others] : [])],
  ];
}

/** Every field in turn: missing, and each other value in its place. */
export function mutationsOf(json: Json, schema?: Json): Mutation[] {
  return placesOf(json, schema).flatMap(({ path, own, schema: ofField }) => {
    const made = own === undefined ? sizes.flatMap((size) => madeBy(ofField, size)) : [undefined];
    const plain = [...made, ...values].map((value): [string, () => Json] => [`= ${short(value)}`, () => value]);
    return [...plain, ...alike(own)].map(([what, make]) => ({
      what: `${text(path)} ${what}`,
      make: () => replaced(json, path, make()),
    }));
  });
}

/** Contradictions: two fields of the same kind change places, or two fields are damaged at once. */
export function contradictionsOf(json: Json, count: number, random = seeded(count)): Mutation[] {
  const places = placesOf(json);
  const kindOf = (value: Json) => (value === null ? 'null' : Array.isArray(value) ? 'list' : typeof value);
  const pick = <T>(own: readonly T[]): T => own[Math.floor(random() * own.length)];
  const changeOf = (own: Json) => pick([...values.map((value) => [short(value), () => value] as const), ...alike(own)]);
  return Array.from({ length: count }, (_, i): Mutation => {
    const [one, other] = [pick(places), pick(places)];
    if (i % 2 === 0) {
      const same = pick(places.filter(({ own }) => kindOf(own) === kindOf(one.own)));
      const make = () => replaced(replaced(json, one.path, same.own), same.path, one.own);
      return { what: `${text(one.path)} and ${text(same.path)} exchanged`, make };
    }
    const [a, b] = [changeOf(one.own), changeOf(other.own)];
    return {
      what: `${text(one.path)} ${a[0]}, ${text(other.path)} ${b[0]}`,
      make: () => replaced(replaced(json, one.path, a[1]()), other.path, b[1]()),
    };
  });
}

/** Numbers from 0 to below 1, determined by a seed (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** At most `count` of all, chosen by a seed. */
export function sampled<T>(all: readonly T[], count: number): readonly T[] {
  const random = seeded(all.length);
  const keys = new Map(all.map((own) => [own, random()]));
  return count >= all.length ? all : [...all].sort((a, b) => keys.get(a)! - keys.get(b)!).slice(0, count);
}

/** The most seconds of the processor until a damaged file is refused. */
const MOST_SECONDS = 1;

/** 'used'; 'refused' in one line that names `place`, at once; or the fault. */
export async function outcomeOf(place: string, use: () => unknown): Promise<string> {
  const before = process.cpuUsage();
  try {
    await use();
    return 'used';
  } catch (error) {
    const { user, system } = process.cpuUsage(before);
    const seconds = (user + system) / 1e6;
    if (!(error instanceof InputError)) return `${error instanceof Error ? error.stack : error}`.slice(0, 600);
    const { message } = error;
    if (!message.includes(place)) return `does not name the file: ${message}`;
    if (/\n|Cannot (read|conv|destr)|(of|a page of) undefined|not a function|not iterable|call stack/.test(message))
      return `an engine's own complaint: ${message}`;
    return seconds > MOST_SECONDS ? `refused after ${seconds} s of the processor` : 'refused';
  }
}

/** Counts what comes of damaged things, and keeps the faults with a word on the damage. */
export class Tally {
  readonly counts: Record<string, number> = {};
  readonly faults: string[] = [];

  add(what: string, came: string): void {
    const isKnown = came === 'used' || came === 'refused';
    this.counts[isKnown ? came : 'faults'] = (this.counts[isKnown ? came : 'faults'] ?? 0) + 1;
    if (!isKnown) this.faults.push(`${what.slice(0, 160)}: ${came}`);
  }
}
