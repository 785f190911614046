import type { Group, Dataset as Table } from 'h5wasm/node';
import { InputError } from '../../../engine/files/errors.ts';
import { float16ToFloat32 } from '../../../engine/files/half.ts';
import type { SourceField, SourcePicture } from './source.ts';

// What the tables and attributes of HDF5 files are, and their values. This file runs under node only.

/** The most bytes of one table, or of one picture, that are read at a time. */
const BYTES_LIMIT = 2 ** 30;
/** The largest number of HDF5's own filters, which the library has; those of others have larger ones. */
const OWN_FILTERS = 6;
/** HDF5's numbers of the classes of types. */
const types = { integer: 0, float: 1, string: 3, opaque: 5, enumeration: 8, variable: 9 };
/** The keys of the instruction in texts that are JSON. */
const languageKeys = ['lang', 'language_instruction', 'language', 'instruction', 'task_description', 'env_lang'];

/** A string says why an entry is not read. */
export type Entry = Table | Group['attrs'][string] | string;
/** A field by its type and shape; `scale` makes the numbers of a picture 0 to 255, and is 0 for image files. */
export interface Found extends Omit<SourceField, 'use'> {
  readonly scale?: number;
  /** Whether its numbers are whole by their type. */
  readonly whole?: boolean;
}

export const isTable = (entry: unknown): entry is Table =>
  entry !== null && typeof entry === 'object' && 'filters' in entry;

/** Says what an entry is by its type, its shape and its first step. */
export function describe(name: string, entry: Entry): Found {
  const other = (reason: string): Found => ({ name, kind: 'other', reason });
  if (typeof entry === 'string') return other(entry);
  const { type, shape, size, virtual_sources } = entry.metadata;
  if (!isTable(entry)) {
    if (type !== types.string) return other('an attribute that is no text');
    return wordsIn(entry.value).length > 0 ? { name, kind: 'texts' } : other('empty, or JSON without an instruction');
  }
  if (virtual_sources) return other('a virtual table, which is made of others');
  if (!shape || shape.includes(0)) return other('empty');
  const readable = missingFilter(entry) === null;
  const depth = /depth/i.test(name);
  if (holdsFiles(entry) && readable && isImageFile(fileAt(entry, 0)))
    return { name, kind: depth ? 'depth' : 'pictures', scale: 0 };
  if (type === types.string) return { name, kind: 'texts' };
  const numeric = type === types.integer || type === types.enumeration || (type === types.float && size <= 8);
  if (!numeric || shape.length === 0) return other('a single value, or neither numbers, texts nor pictures');
  const form = formOf(entry);
  if (!form) return { name, kind: 'numbers', shape: [productOf(shape.slice(1))], whole: type !== types.float };
  const { height, width, channels } = form;
  if (depth || (channels === 1 && size > 1)) return { name, kind: 'depth', shape: [height, width, channels] };
  if (/segment|mask/i.test(name)) return other('a map of segments');
  const picture: Found = { name, kind: 'pictures', shape: [height, width, channels], scale: 1 };
  if (size === 1 || !readable) return picture;
  const [least, most] = rangeOf(numbersOf(entry, 0));
  if (!(least >= 0 && most <= 255)) return other(`numbers from ${least} to ${most}; pictures have 0 to 1 or 0 to 255`);
  if (type !== types.float || most > 1) return picture;
  return { ...picture, scale: 255, reason: 'numbers from 0 to 1, which are multiplied by 255' };
}

/** Returns the first of HDF5's filters that the library lacks, by name and number. */
export function missingFilter(table: Table): string | null {
  const missing = table.filters.find(({ id }) => id > OWN_FILTERS);
  return missing ? `${missing.name.split(';')[0]} (number ${missing.id})` : null;
}

/** Whether a table's type and shape may be those of a file for each step. */
function holdsFiles({ metadata: { type, shape, size, vlen, vlen_type } }: Table): boolean {
  if (!shape?.length) return false;
  if (type === types.integer) return size === 1 && (shape.length === 2 || (shape.length === 3 && shape[2] === 1));
  return (
    (type === types.string && !vlen) || type === types.opaque || (type === types.variable && vlen_type?.size === 1)
  );
}

/** The layout of pixels; null if a table has none. */
function formOf({ metadata: { type, shape, size } }: Table) {
  if (!shape || type === types.enumeration) return null;
  const isChannels = (count: number) => [1, 3, 4].includes(count);
  const last = shape.length === 4 && isChannels(shape[3]);
  const planar = shape.length === 4 && !last && isChannels(shape[1]);
  const plain = shape.length === 3 && size <= 4;
  const [height, width] = planar ? shape.slice(2) : shape.slice(1, 3);
  if (!(last || planar || plain) || Math.min(height, width) < (plain ? 16 : size > 1 ? 8 : 1)) return null;
  return { height, width, channels: plain ? 1 : planar ? shape[1] : shape[3], planar };
}

export function pictureOf(table: Table, step: number, scale: number, where: string): SourcePicture {
  const what = `${where}, step ${step}`;
  if (scale === 0) {
    const bytes = fileAt(table, step);
    if (bytes.length === 0) throw new InputError(`${what}: no picture, the place is empty`);
    return bytes;
  }
  const { height, width, channels, planar } = formOf(table)!;
  const stored = read(table, step);
  if (stored instanceof Uint8Array && channels === 3 && !planar) return { height, width, pixels: stored };
  const values = numbersOf(table, step);
  const pixels = new Uint8Array(3 * height * width);
  for (let place = 0; place < height * width; place++) {
    for (let i = 0; i < 3; i++) {
      const channel = channels === 1 ? 0 : i;
      const value = Math.round(scale * values[planar ? channel * height * width + place : place * channels + channel]);
      if (!(value >= 0 && value <= 255))
        throw new InputError(`${what}: ${value / scale} at pixel ${place} is not between 0 and ${255 / scale}`);
      pixels[3 * place + i] = value;
    }
  }
  return { height, width, pixels };
}

/** The bytes of a table, or of its row at one step, as they are in memory. */
function bytesOf(table: Table, step: number | null): Uint8Array<ArrayBuffer> {
  const { metadata } = table;
  const plain = { ...metadata, type: types.opaque, vlen: false }; // the library changes no value of this type
  return read(Object.create(table, { metadata: { value: plain } }), step) as Uint8Array<ArrayBuffer>;
}

/** The image file in a row without its padding: JPEG and PNG do not end with zeros, and WebP states its size. */
function fileAt(table: Table, step: number): Uint8Array<ArrayBuffer> {
  const { type } = table.metadata;
  const variable = () => Uint8Array.from((read(table, step) as ArrayLike<number>[])[0]);
  const bytes = type === types.variable ? variable() : bytesOf(table, step);
  const stated = isWebp(bytes) ? 8 + new DataView(bytes.buffer, bytes.byteOffset).getUint32(4, true) : 0;
  return bytes.slice(0, stated || bytes.findLastIndex((byte) => byte !== 0) + 1);
}

const isWebp = (bytes: Uint8Array) => /^RIFF....WEBP/s.test(String.fromCharCode(...bytes.subarray(0, 12)));
const isImageFile = (bytes: Uint8Array) =>
  isWebp(bytes) || /^(\xff\xd8\xff|\x89PNG)/.test(String.fromCharCode(...bytes.subarray(0, 4)));

/** The numbers of a table, or of its row at one step; of 64 bits if a float of 32 may not hold them. */
export function numbersOf(table: Table, step: number | null): Float32Array | Float64Array {
  const { type, size } = table.metadata;
  if (type === types.float && size === 2)
    return Float32Array.from(new Uint16Array(bytesOf(table, step).buffer), float16ToFloat32);
  const values = read(table, step) as ArrayLike<number>;
  return size >= 4 && !(values instanceof Float32Array) ? Float64Array.from(values, Number) : Float32Array.from(values);
}

/** Reads a whole table, or its row at one step, within the limit of memory. */
function read(table: Table, step: number | null): unknown {
  const { shape, size, total_size, chunks } = table.metadata;
  const bytes = Math.max(total_size / (step === null ? 1 : shape![0]), productOf(chunks ?? [])) * size;
  if (bytes > BYTES_LIMIT) throw new RangeError(`${table.path} needs ${bytes} bytes, more than ${BYTES_LIMIT}`);
  return step === null ? table.value : table.slice([[step, step + 1], ...shape!.slice(1).map(() => [] as [])]);
}

/** The texts of a table, in UTF-8 even where the file says ASCII: NumPy's type for bytes says so of all. */
export function textsOf(table: Table): unknown {
  return read(Object.create(table, { metadata: { value: { ...table.metadata, cset: 1 } } }), null);
}

/** The instructions in a text, in a list of texts, of words or of characters, or in JSON that has one. */
export function wordsIn(value: unknown, json = false): string[] {
  if (Array.isArray(value) && value.every((item) => typeof item === 'string')) {
    const spaced = value.slice(1).every((item, i) => /^\s/.test(item) || /\s$/.test(value[i]));
    if (value.some((item) => /\S\s+\S/.test(item)) && !(json && spaced)) return value;
    const pieces = value.some((item) => /^\s|\s$/.test(item)) || value.every((item) => item.length <= 1);
    return wordsIn(value.join(pieces ? '' : ' '));
  }
  if (typeof value !== 'string' || value.trim() === '') return [];
  const fields = value.trim()[0] === '{' ? parsed(value) : null;
  const key = fields && languageKeys.find((own) => fields[own] !== undefined);
  return !fields ? [value] : key ? wordsIn(fields[key], true) : [];
}

export function parsed(text: string): Record<string, unknown> | null {
  try {
    return JSON.parse(text);
  } catch {
    return null; // a text that only begins like JSON
  }
}

export const productOf = (sizes: readonly number[]) => sizes.reduce((product, size) => product * size, 1);

function rangeOf(values: ArrayLike<number>): readonly [least: number, most: number] {
  let [least, most] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  for (let i = 0; i < values.length; i++) [least, most] = [Math.min(least, values[i]), Math.max(most, values[i])];
  return [least, most];
}
