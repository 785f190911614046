import type { Group, Dataset as Table } from 'h5wasm';
import { InputError } from '../../../engine/files/errors.ts';
import { decodeFloat16 } from '../../../engine/files/half.ts';
import { optionalPackages } from '../../../engine/files/optional-packages.ts';
import { imageTypeOf, isDepthImage } from '../image-header.ts';
import { describeArray, imageOf, productOf, sampledSteps } from './pixels.ts';
import type { SourcePicture } from './source.ts';
import type { FoundField } from './uses.ts';

// What the tables and attributes of HDF5 files are, and their values. This file runs under node only.

/** The most bytes of one table, or of one picture, that are read at a time. */
const BYTES_LIMIT = 2 ** 30;
/** The largest number of HDF5's own filters, which the library has; those of others have larger ones. */
const OWN_FILTERS = 6;
/** HDF5's numbers of the classes of types. */
const types = { integer: 0, float: 1, string: 3, opaque: 5, enumeration: 8, variable: 9 };
/** The keys of the instruction in texts that are JSON. */
const languageKeys = ['lang', 'language_instruction', 'language', 'instruction', 'task_description', 'env_lang'];

/** The name of the file that is read in the library's own file system. There is no other: a file may have links to any, or storage in it. */
const ONLY = '/file.hdf5';
/** The part of that file system (Emscripten's, in memory) by which a file of the disk is read in its place. */
interface FileSystem {
  createFile(folder: string, name: string, settings: object, canRead: boolean): { stream_ops: object };
  unlink(path: string): void;
}
/** Reads bytes of an open file. */
type Read = (stream: unknown, into: Uint8Array, offset: number, length: number, position: number) => number;

let library: ReturnType<typeof loadLibrary> | undefined;

/** Loads the library once, and gives what opens a file of the disk, uses it and closes it. @throws InputError if it is not installed */
export function openLibrary() {
  library ??= loadLibrary();
  return library;
}

async function loadLibrary() {
  const { closeSync, fstatSync, openSync, readSync } = await import('node:fs');
  const { File, ready } = await optionalPackages('h5wasm', 'reading HDF5 files', () => import('h5wasm'));
  const module = await ready;
  module.activate_throwing_error_handler(); // otherwise errors are printed and ignored
  // NumPy's type for bytes says ASCII of all texts, which are UTF-8.
  const { get_attribute_metadata: ofAttribute, get_dataset_metadata: ofTable } = module;
  module.get_attribute_metadata = (...place) => ({ ...ofAttribute(...place), cset: 1 });
  module.get_dataset_metadata = (...place) => ({ ...ofTable(...place), cset: 1 });
  const files = module.FS as unknown as FileSystem;
  return <T>(path: string, use: (root: Group) => T): T => {
    const file = openSync(path, 'r');
    const { size } = fstatSync(file);
    const read: Read = (_, into, offset, length, position) =>
      readSync(file, into, offset, Math.min(length, size - position), position);
    const node = files.createFile('/', ONLY, {}, true);
    Object.assign(node, { usedBytes: size, stream_ops: { ...node.stream_ops, read } });
    let root: InstanceType<typeof File> | undefined;
    try {
      root = new File(ONLY, 'r');
      return use(root);
    } finally {
      root?.close();
      files.unlink(ONLY);
      closeSync(file);
    }
  };
}

/** A string says why an entry is not read. */
export type Entry = Table | Group['attrs'][string] | string;
/** A field by its type and shape; `scale` makes the numbers of a picture 0 to 255, and is 0 for image files. */
export type Found = FoundField & { readonly scale?: number };

export const isTable = (entry: unknown): entry is Table =>
  entry !== null && typeof entry === 'object' && 'filters' in entry;

/** Says what an entry is by its type, its shape and its first step. */
export function describe(name: string, entry: Entry): Found {
  const other = (reason: string): Found => ({ name, kind: 'other', reason });
  const textKind = (value: unknown) => {
    if (value === null) return other(notText);
    return wordsIn(value).length > 0 ? { name, kind: 'texts' as const } : other(wordless(value));
  };
  if (typeof entry === 'string') return other(entry);
  const { type, shape, size, signed, virtual_sources } = entry.metadata;
  if (!isTable(entry)) {
    if (type !== types.string) return other('an attribute that is no text');
    return textKind(textsOf(entry));
  }
  if (virtual_sources) return other('a virtual table, which is made of others');
  if (!shape || shape.includes(0)) return other('empty');
  const readable = missingFilter(entry) === null;
  if (readable && holdsFiles(entry)) {
    const file = fileAt(entry, 0);
    const depth = /depth/i.test(name) || isDepthImage(file);
    if (imageTypeOf(file) !== 'unknown')
      return depth ? { name, kind: 'depth', reason: 'depth is no colour' } : { name, kind: 'pictures', scale: 0 };
  }
  if (type === types.string) return readable ? textKind(textsOf(entry)) : { name, kind: 'texts' };
  const float = type === types.float;
  const numeric = type === types.integer || type === types.enumeration || (float && size <= 8);
  if (!numeric || shape.length === 0) return other('a single value, or neither numbers, texts nor pictures');
  if (type === types.enumeration) return { name, kind: 'numbers', shape: [productOf(shape.slice(1))], whole: true };
  const element = float ? 'float' : size === 1 && !signed ? 'byte' : 'integer';
  const sampled = readable && shape.length === 4 && element !== 'byte' ? sampledSteps(shape[0]) : [];
  const numbers = sampled.map((step) => numbersOf(entry, step));
  return { name, whole: !float, ...describeArray(name, shape, element, numbers) };
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

export function pictureOf(table: Table, step: number, scale: number, where: string): SourcePicture {
  const what = `${where}, step ${step}`;
  if (scale > 0) {
    const { size, signed } = table.metadata;
    const values = size === 1 && !signed ? (read(table, step) as Uint8Array<ArrayBuffer>) : numbersOf(table, step);
    return imageOf(table.shape!, values, scale, what);
  }
  const bytes = fileAt(table, step);
  if (bytes.length === 0) throw new InputError(`${what}: no picture, the place is empty`);
  return bytes;
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
  const webp = imageTypeOf(bytes) === 'image/webp';
  const stated = webp ? 8 + new DataView(bytes.buffer, bytes.byteOffset).getUint32(4, true) : 0;
  return bytes.slice(0, stated || bytes.findLastIndex((byte) => byte !== 0) + 1);
}

/** The numbers of a table, or of its row at one step; of 64 bits if a float of 32 may not hold them. */
export function numbersOf(table: Table, step: number | null): Float32Array | Float64Array {
  const { type, size } = table.metadata;
  if (type === types.float && size === 2) return decodeFloat16(new Uint16Array(bytesOf(table, step).buffer));
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

export const notText = 'its bytes are not text in UTF-8';

/** The text, or texts, of an entry; null if they are not in UTF-8. */
export function textsOf(entry: Exclude<Entry, string>): unknown {
  const value = isTable(entry) ? read(entry, null) : entry.value;
  return [value].flat(4).some((text) => typeof text === 'string' && text.includes('\ufffd')) ? null : value;
}

/** Why there is no instruction in texts. */
function wordless(value: unknown): string {
  const broken = [value].flat(4).some((text) => typeof text === 'string' && isJson(text) && parsed(text) === null);
  return broken ? 'it begins like JSON, and cannot be read as JSON' : 'empty, "None", or JSON without an instruction';
}
const isJson = (text: string) => /^\s*[{[]/.test(text);

/**
 * The instructions in a text, in a list of texts, of words or of characters, or in JSON that has one or is a list of them; none in JSON
 * that cannot be read.
 */
export function wordsIn(value: unknown, json = false): string[] {
  if (Array.isArray(value) && value.every((item) => typeof item === 'string')) {
    const spaced = value.slice(1).every((item, i) => /^\s/.test(item) || /\s$/.test(value[i]));
    if (value.some((item) => /\S\s+\S/.test(item)) && !(json && spaced)) return value;
    const pieces = value.some((item) => /^\s|\s$/.test(item)) || value.every((item) => item.length <= 1);
    return wordsIn(value.join(pieces ? '' : ' '));
  }
  if (typeof value !== 'string' || /^\s*(none)?\s*$/i.test(value)) return [];
  if (!isJson(value)) return [value];
  const fields = parsed(value) ?? {};
  if (Array.isArray(fields)) return fields.flatMap((item) => (typeof item === 'string' ? wordsIn(item) : []));
  const key = languageKeys.find((own) => fields[own] !== undefined);
  return key ? wordsIn(fields[key], true) : [];
}

export function parsed(text: string): Record<string, unknown> | null {
  try {
    return JSON.parse(text);
  } catch {
    return null; // a text that only begins like JSON
  }
}
