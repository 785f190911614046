/**
 * Messages of openpi's websocket protocol: msgpack, in which an array of NumPy is a map with the binary keys `__ndarray__`, `data`, `dtype` and
 * `shape`, and a single number of NumPy one with `__npgeneric__`, `data` and `dtype` (openpi-client, msgpack_numpy.py).
 */
import { Packr, Unpackr } from 'msgpackr';
import { InputError, quote, reasonOf } from '../../../engine/files/errors.ts';
import { decodeFloat16 } from '../../../engine/files/half.ts';

/** A dense array, its last axis contiguous: unsigned bytes, f32, or any other numbers as f64. */
export class NumberArray {
  constructor(
    readonly shape: readonly number[],
    readonly data: Uint8Array<ArrayBuffer> | Float32Array<ArrayBuffer> | Float64Array<ArrayBuffer>,
  ) {}
}

export type Message =
  | null
  | boolean
  | number
  | string
  | Uint8Array
  | NumberArray
  | readonly Message[]
  | { readonly [key: string]: Message };

type Reader = (bytes: ArrayBuffer) => NumberArray['data'];
/** Loops and copies: iterators and callbacks take a second for a few pictures. */
const float64 = (numbers: ArrayLike<number>) => new Float64Array(numbers);
function float64OfIntegers(integers: BigInt64Array | BigUint64Array): Float64Array<ArrayBuffer> {
  const numbers = new Float64Array(integers.length);
  for (let i = 0; i < integers.length; i++) numbers[i] = Number(integers[i]);
  return numbers;
}
/** NumPy's names of little-endian types: bytes of an element, and what makes numbers of them. */
const readers: Readonly<Record<string, readonly [bytes: number, read: Reader]>> = {
  '|b1': [1, (bytes) => new Uint8Array(bytes)],
  '|u1': [1, (bytes) => new Uint8Array(bytes)],
  '|i1': [1, (bytes) => float64(new Int8Array(bytes))],
  '<u2': [2, (bytes) => float64(new Uint16Array(bytes))],
  '<i2': [2, (bytes) => float64(new Int16Array(bytes))],
  '<u4': [4, (bytes) => float64(new Uint32Array(bytes))],
  '<i4': [4, (bytes) => float64(new Int32Array(bytes))],
  '<u8': [8, (bytes) => float64OfIntegers(new BigUint64Array(bytes))],
  '<i8': [8, (bytes) => float64OfIntegers(new BigInt64Array(bytes))],
  '<f2': [2, (bytes) => decodeFloat16(new Uint16Array(bytes))],
  '<f4': [4, (bytes) => new Float32Array(bytes)],
  '<f8': [8, (bytes) => new Float64Array(bytes)],
};

// Maps, because an object has no binary keys; no records and references, which are msgpackr's own.
const format = { useRecords: false, mapsAsObjects: false, moreTypes: false, int64AsType: 'number' } as const;
const packer = new Packr(format);

/** Values and keys of one message. An observation has a few dozen; millions of single ones would take minutes. */
const MOST_VALUES = 2 ** 14;
/** The axes that NumPy allows. */
const MOST_AXES = 64;

/** @throws InputError if the bytes are no message, or an array in it has other bytes than its shape and type take */
export function unpackMessage(bytes: Uint8Array): Message {
  if (hasMoreValues(bytes, MOST_VALUES))
    throw new InputError(`the message has more than ${MOST_VALUES} values; send many numbers as one array of NumPy`);
  let found: unknown;
  try {
    found = new Unpackr(format).unpack(bytes);
  } catch (error) {
    throw new InputError(`the message is no msgpack: ${reasonOf(error)}`);
  }
  return messageOf(found, '');
}

/** The tokens 0xc0 to 0xdf of msgpack: bytes of each, less those that a length in it counts; and bytes of that length. */
const tokenBytes = [1, 1, 1, 1, 2, 3, 5, 3, 4, 6, 5, 9, 2, 3, 5, 9, 2, 3, 5, 9, 3, 4, 6, 10, 18, 2, 3, 5, 3, 5, 3, 5];
const lengthBytes = [0, 0, 0, 0, 1, 2, 4, 1, 2, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 4, 2, 4, 2, 4];

/**
 * Whether a message has more values and keys than `most`, by its tokens alone, without making anything of them: a list or map counts as what
 * it says that it holds.
 */
function hasMoreValues(bytes: Uint8Array, most: number): boolean {
  let [seen, coming] = [0, 1];
  for (let at = 0; at < bytes.length && coming > 0; ) {
    const token = bytes[at];
    let length = 0;
    for (let i = 1; i <= (lengthBytes[token - 0xc0] ?? 0); i++) length = length * 256 + bytes[at + i];
    at += tokenBytes[token - 0xc0] ?? 1;
    seen += 1;
    coming -= 1;
    if (token >= 0x80 && token < 0x90) coming += 2 * (token & 15);
    else if (token >= 0x90 && token < 0xa0) coming += token & 15;
    else if (token >= 0xa0 && token < 0xc0) at += token & 31;
    else if (token >= 0xdc) coming += token >= 0xde ? 2 * length : length;
    else at += length;
    if (seen + coming > most) return true;
  }
  return false;
}

function messageOf(value: unknown, path: string): Message {
  if (value === null || ['boolean', 'number', 'string'].includes(typeof value)) return value as Message;
  if (value instanceof Uint8Array) return value;
  if (Array.isArray(value)) return value.map((own, i) => messageOf(own, `${path}/${i}`));
  if (!(value instanceof Map)) throw new InputError(`${path || 'the message'}: a msgpack extension, which is not read`);
  const entries = Array.from(value, ([key, own]) => [keyOf(key, path), own] as const);
  const map = new Map<string, unknown>(entries);
  if (map.has('__ndarray__')) return arrayOf(map, path);
  if (map.has('__npgeneric__')) return messageOf(map.get('data'), path);
  return Object.fromEntries(entries.map(([key, own]) => [key, messageOf(own, path ? `${path}/${key}` : key)]));
}

function keyOf(key: unknown, path: string): string {
  if (typeof key === 'string') return key;
  if (key instanceof Uint8Array) return new TextDecoder().decode(key);
  throw new InputError(`${path || 'the message'}: the key ${quote(key)} is no text`);
}

function arrayOf(map: ReadonlyMap<string, unknown>, path: string): NumberArray {
  const [data, dtype, shape] = ['data', 'dtype', 'shape'].map((key) => map.get(key));
  const refuse = (problem: string) => new InputError(`${path || 'the message'}: an array of NumPy ${problem}`);
  if (!(data instanceof Uint8Array)) throw refuse('without bytes');
  if (typeof dtype !== 'string' || !Object.hasOwn(readers, dtype))
    throw refuse(`of type ${quote(dtype)}; ${Object.keys(readers).join(', ')} are read`);
  if (!Array.isArray(shape) || !shape.every((size) => Number.isSafeInteger(size) && size >= 0))
    throw refuse(`of shape ${quote(shape)}; expected whole numbers from 0`);
  if (shape.length > MOST_AXES) throw refuse(`with ${shape.length} axes; there are at most ${MOST_AXES}`);
  const [elementBytes, read] = readers[dtype];
  const bytes = shape.reduce((product, size) => product * size, elementBytes);
  if (bytes !== data.byteLength)
    throw refuse(`of shape [${shape.join(', ')}] and type ${dtype} with ${data.byteLength} bytes; expected ${bytes}`);
  // A copy of its own: the bytes lie at any offset of the message, and the typed arrays need an aligned one.
  return new NumberArray(shape, read(new Uint8Array(data).buffer));
}

/** Arrays become f32, f64 or bytes of NumPy. */
export function packMessage(message: Message): Uint8Array {
  return packer.pack(packed(message));
}

const key = (name: string) => new TextEncoder().encode(name);
const typeOf = (data: NumberArray['data']) =>
  data instanceof Uint8Array ? '|u1' : data instanceof Float32Array ? '<f4' : '<f8';

function packed(message: Message): unknown {
  if (message instanceof NumberArray) {
    const { data, shape } = message;
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    return new Map<Uint8Array, unknown>([
      [key('__ndarray__'), true],
      [key('data'), bytes],
      [key('dtype'), typeOf(data)],
      [key('shape'), shape],
    ]);
  }
  if (message instanceof Uint8Array || message === null || typeof message !== 'object') return message;
  if (Array.isArray(message)) return message.map(packed);
  return new Map(Object.entries(message).map(([name, own]) => [name, packed(own)]));
}
