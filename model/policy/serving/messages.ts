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
const float64 = (numbers: ArrayLike<number> | BigInt64Array | BigUint64Array) => Float64Array.from(numbers, Number);
/** NumPy's names of little-endian types: bytes of an element, and what makes numbers of them. */
const readers: Readonly<Record<string, readonly [bytes: number, read: Reader]>> = {
  '|b1': [1, (bytes) => new Uint8Array(bytes)],
  '|u1': [1, (bytes) => new Uint8Array(bytes)],
  '|i1': [1, (bytes) => float64(new Int8Array(bytes))],
  '<u2': [2, (bytes) => float64(new Uint16Array(bytes))],
  '<i2': [2, (bytes) => float64(new Int16Array(bytes))],
  '<u4': [4, (bytes) => float64(new Uint32Array(bytes))],
  '<i4': [4, (bytes) => float64(new Int32Array(bytes))],
  '<u8': [8, (bytes) => float64(new BigUint64Array(bytes))],
  '<i8': [8, (bytes) => float64(new BigInt64Array(bytes))],
  '<f2': [2, (bytes) => decodeFloat16(new Uint16Array(bytes))],
  '<f4': [4, (bytes) => new Float32Array(bytes)],
  '<f8': [8, (bytes) => new Float64Array(bytes)],
};

// Maps, because an object has no binary keys; no records and references, which are msgpackr's own.
const format = { useRecords: false, mapsAsObjects: false, moreTypes: false, int64AsType: 'number' } as const;
const packer = new Packr(format);

/** @throws InputError if the bytes are no message, or an array in it has other bytes than its shape and type take */
export function unpackMessage(bytes: Uint8Array): Message {
  let found: unknown;
  try {
    found = new Unpackr(format).unpack(bytes);
  } catch (error) {
    throw new InputError(`the message is no msgpack: ${reasonOf(error)}`);
  }
  return messageOf(found, '');
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
    throw refuse(`of shape ${quote(shape)}`);
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
