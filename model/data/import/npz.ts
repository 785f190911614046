/**
 * numpy's npz files: a zip archive with an array in a file each. All arrays hold the steps of all episodes one after the other, and
 * `episode_ends` says where these end, as in Diffusion Policy's replay buffers; without it there is one episode.
 */
import { Inflate } from 'fflate';
import { type ByteSource, joinBytes, readRange } from '../../../engine/files/bytes.ts';
import { InputError, quote, reasonOf } from '../../../engine/files/errors.ts';
import { decodeFloat16 } from '../../../engine/files/half.ts';
import { crc32 } from '../checksum.ts';
import type { Image } from '../dataset.ts';
import type { FieldUse, Importer, Source, SourceEpisode, SourceField } from './source.ts';

/** The bytes of the largest array of numbers or texts that is read. */
const LIMIT = 2 ** 29;
/** Deflate unpacks a byte to at most this many. */
const MOST_UNPACKED = 1032;
/** The end of the directory lies in these last bytes, before a comment of at most 64 KiB. */
const END_BYTES = 22 + 65535;
/** The bytes of an archive that are read at once. */
const READ_BYTES = 2 ** 15;

const types = {
  b1: Uint8Array,
  u1: Uint8Array,
  i1: Int8Array,
  u2: Uint16Array,
  i2: Int16Array,
  u4: Uint32Array,
  i4: Int32Array,
  u8: BigUint64Array,
  i8: BigInt64Array,
  f2: Uint16Array,
  f4: Float32Array,
  f8: Float64Array,
};

/** Names of arrays that have a use, the best first; the first one that is there counts. */
const uses: readonly (readonly [FieldUse, SourceField['kind'], ...string[]])[] = [
  ['action', 'numbers', 'action', 'actions'],
  ['state', 'numbers', 'state', 'states', 'qpos'],
  ['language', 'texts', 'language_instruction', 'language', 'instruction', 'task', 'prompt'],
  ['subtask', 'texts', 'subtask'],
  ['time', 'numbers', 'timestamp', 'timestamps'],
];

/** A file in the archive: its bytes there and unpacked, and where its data begin. */
type Entry = Awaited<ReturnType<typeof readDirectory>>[number];

/** An array; its elements begin at byte `body` of its file. `type` is numpy's, without the order of bytes: `f4`, `U12`. */
type NpyArray = Awaited<ReturnType<typeof readHeader>>;

export const npzImporter: Importer = {
  format: 'npz',
  version: 1,
  recognises: async (folder) => (await folder.list()).some((name) => name.endsWith('.npz')),
  async open(folder, options) {
    const listed = await folder.list();
    const archives = listed.filter((name) => name.endsWith('.npz')).map((name) => name.slice(0, -4));
    const name = options.name ?? archives[0];
    if (!archives.includes(name) || (options.name === undefined && archives.length > 1))
      throw new InputError(`${folder.name}: which data set? Name one with --dataset: ${archives.join(', ')}`);
    const path = `${name}.npz`;
    const archive = await folder.open(path);
    const { arrays, ends, fields } = await readFields(archive).finally(() => archive.close());
    const files = listed.filter((own) => own !== path);
    return {
      kind: 'npz file',
      name,
      rate: {},
      count: ends.length,
      fields: [
        ...fields,
        ...files.map((own) => ({ name: own, kind: 'other', use: null, reason: 'a file that is not read' }) as const),
      ],
      async *episodes(first) {
        const file = await folder.open(path);
        try {
          const read = keep((array) => readArray(file, array));
          const check = keep((array) => checkPictures(file, array));
          // Damage of a header may hide that an array is of use.
          for (const array of arrays.values())
            if (kindOf(array).kind !== 'pictures') for await (const _ of unpack(file, array.entry));
          for (let i = first; i < ends.length; i++) yield episodeOf(file.name, arrays, ends, i, read, check);
        } finally {
          await file.close();
        }
      },
      async picture(place, index) {
        const array = arrays.get(String(place.array))!;
        const size = rowBytes(array);
        const at = array.entry.start + array.body + (Number(place.from) + index) * size;
        const file = await folder.open(path);
        const read = readRange(file, at, at + size, `a picture of ${array.name}`);
        return imageOf(array, await read.finally(() => file.close()), Number(place.scale));
      },
      async *unpack(place) {
        const [array, from, to] = [arrays.get(String(place.array))!, Number(place.from), Number(place.to)];
        const file = await folder.open(path);
        try {
          let row = 0;
          for await (const bytes of pieces(file, array, rowBytes(array))) {
            if (row >= from) yield imageOf(array, bytes, Number(place.scale));
            row += 1;
            if (row === to) return;
          }
        } finally {
          await file.close();
        }
      },
    } satisfies Source;
  },
};

/** Remembers the results of a function. */
function keep<T>(make: (array: NpyArray) => Promise<T>) {
  const made = new Map<NpyArray, Promise<T>>();
  return (array: NpyArray) => made.get(array) ?? made.set(array, make(array)).get(array)!;
}

function episodeOf(
  file: string,
  arrays: ReadonlyMap<string, NpyArray>,
  ends: readonly number[],
  number: number,
  read: (array: NpyArray) => ReturnType<typeof readArray>,
  check: (array: NpyArray) => Promise<number>,
): SourceEpisode {
  const [from, to] = [ends[number - 1] ?? 0, ends[number]];
  return {
    id: `episode_${String(number).padStart(6, '0')}`,
    length: to - from,
    where: `${file}, rows ${from} to ${to - 1}`,
    async numbers(field) {
      const array = arrays.get(field)!;
      const values = (await read(array)) as Float64Array;
      const width = values.length / array.shape[0];
      return values.slice(from * width, to * width);
    },
    async texts(field) {
      const array = arrays.get(field)!;
      const texts = (await read(array)) as string[];
      if (array.shape[0] === ends.at(-1)) return texts.slice(from, to).map((text) => [text]);
      return [array.shape[0] === ends.length ? [texts[number]] : texts];
    },
    async pictures(field) {
      const array = arrays.get(field)!;
      if (kindOf(array).kind !== 'pictures') return null;
      const place = { array: field, from, to, scale: await check(array) };
      return { kind: array.entry.method === 0 ? 'pick' : 'unpack', place, count: to - from };
    },
  };
}

/** Reads the headers of all arrays, and decides what they are. */
async function readFields(file: ByteSource) {
  const arrays = new Map<string, NpyArray>();
  const others: SourceField[] = [];
  for (const entry of await readDirectory(file)) {
    const array = entry.name.endsWith('.npy') ? await readHeader(file, entry) : null;
    if (array) arrays.set(array.name, array);
    else others.push({ name: entry.name, kind: 'other', use: null, reason: 'a file that is no array' });
  }
  const named = (names: readonly string[], kind?: SourceField['kind']) =>
    names
      .flatMap((own) => [...arrays.values()].filter(({ name }) => name === own || name.endsWith(`/${own}`)))
      .find((own) => kind === undefined || kindOf(own).kind === kind);
  const [endsArray, actions] = [named(['episode_ends']), named(['action', 'actions'])];
  const stated = endsArray && [...((await readArray(file, endsArray)) as Float64Array)];
  const rows =
    actions?.shape[0] ?? stated?.at(-1) ?? Math.max(0, ...[...arrays.values()].map(({ shape: [own = 0] }) => own));
  const ends = stated ?? [rows];
  const wrong = ends.findIndex((end, i) => !Number.isInteger(end) || end <= (ends[i - 1] ?? 0));
  if (wrong >= 0 || ends.at(-1) !== rows)
    throw new InputError(
      `${file.name}: array "episode_ends" has ${wrong >= 0 ? `${ends[wrong]} in place ${wrong}` : `${ends.at(-1)} at its end`}; it grows, up to the ${rows} steps`,
    );
  const chosen = new Map(uses.map(([use, kind, ...names]) => [named(names, kind)?.name, use]));
  const fields = [...arrays.values()].map((array): SourceField => {
    const { name, shape } = array;
    const { kind, ...own } = kindOf(array);
    const use = chosen.get(name) ?? (kind === 'pictures' ? 'camera' : null);
    const fits = shape[0] === rows || (kind === 'texts' && (shape.length === 0 || shape[0] === ends.length));
    if (kind === 'other' || fits) {
      const reason = use === null ? { reason: own.reason ?? 'its name says no use: --map gives it one' } : {};
      return { name, kind, shape: own.shape, use, ...reason };
    }
    const reason = `it has shape [${shape}], and the set has ${rows} steps of ${ends.length} episodes`;
    if (use === 'action' || use === 'state') throw new InputError(`${file.name}: array ${quote(name)}: ${reason}`);
    return { name, kind: 'other', use: null, reason: array === endsArray ? 'it says where episodes end' : reason };
  });
  return { arrays, ends, fields: [...fields, ...others] };
}

/** Decides what an array holds by type, shape and name. */
function kindOf({ name, shape, type, fortran }: NpyArray): Pick<SourceField, 'kind' | 'shape' | 'reason'> {
  if (type === 'O')
    return { kind: 'other', reason: 'Python objects (pickle) are not read: save it with another dtype' };
  if (/^[US]/.test(type) && shape.length < 2) return { kind: 'texts' };
  if (!Object.hasOwn(types, type))
    return {
      kind: 'other',
      reason: `dtype ${type || 'of several fields'} of shape [${shape}] is not read; ${Object.keys(types).join(', ')} are`,
    };
  if (shape.length === 0) return { kind: 'other', reason: 'one number, not one for each step' };
  if (/depth/i.test(name) && shape.length > 2)
    return { kind: 'depth', shape: shape.slice(1), reason: 'depth is no colour picture' };
  const picture = layoutOf(shape);
  // Small tables of floats are matrices, such as rotations.
  const large = picture && Math.min(picture.height, picture.width) >= 8;
  if (!picture || !(type === 'u1' || (type.startsWith('f') && large)))
    return { kind: 'numbers', shape: [productOf(shape.slice(1))] };
  if (fortran) return { kind: 'other', reason: 'pictures in Fortran order: save it with np.ascontiguousarray' };
  return { kind: 'pictures', shape: [picture.height, picture.width, picture.channels] };
}

const productOf = (shape: readonly number[]) => shape.reduce((product, size) => product * size, 1);

/** The layout of pictures [steps, height, width, channels], or with channels first; null for other shapes. */
function layoutOf(shape: readonly number[]) {
  if (shape.length !== 4) return null;
  const [, a, b, c] = shape;
  if ([1, 3, 4].includes(c)) return { height: a, width: b, channels: c, pixel: c, plane: 1 };
  return [1, 3, 4].includes(a) ? { height: b, width: c, channels: a, pixel: 1, plane: b * c } : null;
}

const rowBytes = ({ shape, itemBytes }: NpyArray) => itemBytes * productOf(shape.slice(1));

/** Converts pixels to RGB: grey is repeated, alpha is dropped. */
function imageOf(array: NpyArray, bytes: Uint8Array<ArrayBuffer>, scale: number): Image {
  const { height, width, channels, pixel, plane } = layoutOf(array.shape)!;
  const values = valuesOf(array, bytes);
  const pixels = new Uint8ClampedArray(3 * height * width);
  for (let i = 0; i < height * width; i++)
    for (let c = 0; c < 3; c++) pixels[3 * i + c] = values[i * pixel + (channels < 3 ? 0 : c * plane)] * scale;
  return { width, height, pixels: new Uint8Array(pixels.buffer) };
}

/** Reads all pictures once: their checksum, and for floats whether they lie from 0 to 1 or to 255. Returns the factor to 0 ... 255. */
async function checkPictures(file: ByteSource, array: NpyArray): Promise<number> {
  let [least, most] = [0, 0];
  for await (const bytes of pieces(file, array, rowBytes(array))) {
    if (array.type === 'u1') continue;
    for (const value of valuesOf(array, bytes)) {
      if (!(value >= least)) least = value;
      if (!(value <= most)) most = value;
    }
  }
  if (least < 0 || !(most <= 255))
    throw new InputError(
      `${file.name}: array ${quote(array.name)} has pixels from ${least} to ${most}; 0 to 1, or 0 to 255, were expected`,
    );
  return array.type === 'u1' || most > 1 ? 1 : 255;
}

/** Reads a whole array of numbers, in C order, or texts. */
async function readArray(file: ByteSource, array: NpyArray): Promise<Float32Array | Float64Array | string[]> {
  const size = array.entry.size - array.body;
  if (size > LIMIT)
    throw new InputError(`${file.name}: array ${quote(array.name)} has ${size} bytes, at most ${LIMIT} are read here`);
  let bytes = new Uint8Array(0);
  for await (const all of pieces(file, array, size)) bytes = all;
  if (/^[US]/.test(array.type)) return textsOf(array, bytes);
  const values = valuesOf(array, bytes);
  if (!array.fortran || array.shape.length < 2) return values;
  const ordered = values.slice();
  for (let i = 0; i < values.length; i++) {
    let [rest, at, stride] = [i, 0, values.length];
    for (const size of array.shape.toReversed()) {
      stride /= size;
      at += (rest % size) * stride;
      rest = Math.floor(rest / size);
    }
    ordered[i] = values[at];
  }
  return ordered;
}

/** The elements of an array: floats of up to 32 bits and small integers as float32, all others as float64. */
function valuesOf({ type, itemBytes, swapped }: NpyArray, bytes: Uint8Array<ArrayBuffer>): Float32Array | Float64Array {
  if (swapped) for (let at = 0; at < bytes.length; at += itemBytes) bytes.subarray(at, at + itemBytes).reverse();
  const values = new types[type as keyof typeof types](bytes.buffer);
  if (values instanceof Float32Array || values instanceof Float64Array) return values;
  if (type === 'f2') return decodeFloat16(values as Uint16Array<ArrayBuffer>);
  if (itemBytes < 4) return Float32Array.from(values as Uint8Array);
  return Float64Array.from(values as Uint32Array, Number);
}

/** The texts of an array: UTF-32 (U) or UTF-8 (S), filled up with zeros. */
function textsOf({ type, itemBytes, swapped }: NpyArray, bytes: Uint8Array<ArrayBuffer>): string[] {
  const decoder = new TextDecoder();
  return Array.from({ length: bytes.length / itemBytes }, (_, i) => {
    const own = new DataView(bytes.buffer, i * itemBytes, itemBytes);
    const letter = (_: unknown, k: number) => {
      const code = own.getUint32(4 * k, !swapped);
      return String.fromCodePoint(code <= 0x10ffff ? code : 0xfffd);
    };
    const text = type[0] === 'S' ? decoder.decode(own) : Array.from({ length: itemBytes / 4 }, letter).join('');
    return text.replace(/\0+$/, '');
  });
}

/** Reads the header of numpy's npy format, versions 1 to 3. @throws InputError if it is damaged, or of another size than its file */
async function readHeader(file: ByteSource, entry: Entry) {
  const name = entry.name.slice(0, -'.npy'.length);
  const fail = (complaint: string) => new InputError(`${file.name}: array ${quote(name)}: ${complaint}`);
  let bytes = new Uint8Array(0);
  let end = 12;
  for await (const part of unpack(file, entry)) {
    bytes = joinBytes([bytes, part]);
    if (bytes.length < 12) continue;
    const view = new DataView(bytes.buffer);
    if (view.getUint32(0) !== 0x934e554d) throw fail('no npy file');
    end = bytes[6] === 1 ? 10 + view.getUint16(8, true) : 12 + view.getUint32(8, true);
    if (bytes.length >= end || end > entry.size) break;
  }
  if (bytes.length < end) throw fail('its header is cut off');
  const header = new TextDecoder('latin1').decode(bytes.subarray(bytes[6] === 1 ? 10 : 12, end));
  const [, order, type = ''] = /'descr':\s*'([<>|=]?)([^']+)'/.exec(header) ?? [];
  const shape = /'shape':\s*\(([\d,\s]*)\)/
    .exec(header)?.[1]
    .split(',')
    .flatMap((part) => part.trim() || [])
    .map(Number);
  if (!shape) throw fail('its header has no shape');
  const itemBytes = Number(/\d+$/.exec(type)?.[0]) * (type.startsWith('U') ? 4 : 1);
  const needed = productOf(shape) * itemBytes;
  // The bytes of objects are not known, and those of types that are not read do not matter.
  if (/^[biufUS]\d/.test(type) && needed !== entry.size - end)
    throw fail(`of shape ${quote(shape)} needs ${needed} bytes, it has ${entry.size - end}`);
  const fortran = /'fortran_order':\s*True/.test(header);
  return { entry, name, shape, type, swapped: order === '>', fortran, itemBytes, body: end };
}

/** Yields the elements of an array in pieces of `size` bytes. */
async function* pieces(file: ByteSource, { entry, body }: NpyArray, size: number) {
  let piece = new Uint8Array(size);
  let [skip, filled] = [body, 0];
  for await (let part of unpack(file, entry)) {
    const skipped = Math.min(skip, part.length);
    skip -= skipped;
    for (part = part.subarray(skipped); part.length > 0; ) {
      const taken = Math.min(part.length, size - filled);
      piece.set(part.subarray(0, taken), filled);
      part = part.subarray(taken);
      filled += taken;
      if (filled < size) continue;
      yield piece;
      [piece, filled] = [new Uint8Array(size), 0];
    }
  }
}

/** Unpacks a file in parts. @throws InputError if its size or checksum is not that of the directory, as soon as it is seen */
async function* unpack(file: ByteSource, { name, method, crc, packed, size, start }: Entry) {
  const what = `file ${quote(name)} of the archive`;
  const damaged = (why: string) => new InputError(`${file.name}: ${what} is damaged (${why}): fetch the archive again`);
  let parts: Uint8Array[] = [];
  const inflate = new Inflate((part) => parts.push(part));
  let [checked, count] = [0, 0];
  for (let at = 0; at < packed; at += READ_BYTES) {
    const end = Math.min(packed, at + READ_BYTES);
    const read = await readRange(file, start + at, start + end, what);
    try {
      if (method === 0) parts = [read];
      else inflate.push(read, end === packed);
    } catch (error) {
      throw damaged(reasonOf(error));
    }
    for (const part of parts) {
      count += part.length;
      if (count > size) throw damaged(`more than its ${size} bytes`);
      checked = crc32(part, checked);
      yield part;
    }
    parts = [];
  }
  if (count < size) throw damaged(`${count} of its ${size} bytes`);
  if (checked !== crc) throw damaged('checksum');
}

/** Lists the files of a zip archive below 4 GiB. @throws InputError if it is damaged, cut off, or no such archive */
async function readDirectory(file: ByteSource) {
  const fail = (complaint: string) => new InputError(`${file.name}: ${complaint}`);
  const tail = await readRange(file, Math.max(0, file.size - END_BYTES), file.size, 'the archive');
  const end = new DataView(tail.buffer);
  let at = tail.length - 22;
  while (at >= 0 && end.getUint32(at, true) !== 0x06054b50) at -= 1;
  if (at < 0) throw fail('cut off, or no zip archive');
  const [length, first] = [end.getUint32(at + 12, true), end.getUint32(at + 16, true)];
  if (first === 0xffffffff) throw fail('it has 4 GiB or more, and smaller archives are read');
  const unlike = fail('damaged: its end does not say where its directory of files lies');
  if (first + length !== file.size - tail.length + at) throw unlike;
  const bytes = await readRange(file, first, first + length, "the archive's directory");
  const view = new DataView(bytes.buffer);
  const entries = [];
  for (let place = 0; place < length; ) {
    if (place + 46 > length || view.getUint32(place, true) !== 0x02014b50)
      throw fail(`damaged: no entry at byte ${first + place} of the archive's directory`);
    const [nameLength, extra, comment] = [28, 30, 32].map((field) => view.getUint16(place + field, true));
    const [crc, packed, size] = [16, 20, 24].map((field) => view.getUint32(place + field, true));
    const [method, offset] = [view.getUint16(place + 10, true), view.getUint32(place + 42, true)];
    const name = new TextDecoder().decode(bytes.subarray(place + 46, place + 46 + nameLength));
    const own = `file ${quote(name)} of the archive`;
    if (size === 0xffffffff)
      throw fail(`${own} has 2 GiB or more (zip64), and smaller ones are read: save parts of it`);
    if (method !== 0 && method !== 8)
      throw fail(`${own} is packed by method ${method}; 0 and 8 are read, as numpy writes`);
    if (size > packed * MOST_UNPACKED) throw fail(`${own} says it unpacks from ${packed} to ${size} bytes: damaged`);
    // Checksums do not cover names, but each name stands twice.
    const twin = await readRange(file, offset, offset + 30 + nameLength, `the header of ${quote(name)}`);
    const header = new DataView(twin.buffer);
    if (header.getUint32(0, true) !== 0x04034b50 || new TextDecoder().decode(twin.subarray(30)) !== name)
      throw fail(`damaged: ${own} is not at byte ${offset}`);
    const start = offset + 30 + header.getUint16(26, true) + header.getUint16(28, true);
    entries.push({ name, method, crc, packed, size, start });
    place += 46 + nameLength + extra + comment;
  }
  if (entries.length !== end.getUint16(at + 10, true)) throw unlike;
  return entries;
}
