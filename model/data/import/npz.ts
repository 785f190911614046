/**
 * numpy's npz files: a zip archive with an array in a file each. All arrays hold the steps of all episodes one after the other, and
 * `episode_ends` says where these end, as in Diffusion Policy's replay buffers, or marks of last steps; without any there is one episode.
 */
import { inflateSync } from 'fflate';
import { type ByteSource, readRange } from '../../../engine/files/bytes.ts';
import { crc32 } from '../../../engine/files/checksum.ts';
import { counted, InputError, quote, reasonOf } from '../../../engine/files/errors.ts';
import { decodeFloat16 } from '../../../engine/files/half.ts';
import { describeArray, type FoundArray, imageOf, productOf, sampledSteps } from './pixels.ts';
import type { Importer, Source, SourceEpisode } from './source.ts';
import { type FoundField, type UsePatterns, withUses } from './uses.ts';

/** The bytes of the largest array that is held in memory: numbers, texts, and whatever is packed. */
const LIMIT = 2 ** 30;
/** Deflate unpacks a byte to at most this many. */
const MOST_UNPACKED = 1032;
/** The bytes of which a checksum is made at once. */
const CHECKED = 2 ** 20;
/** The longest header of an array. */
const HEADER = 4096;

const types = {
  ...{ b1: Uint8Array, u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, u8: BigUint64Array },
  ...{ i1: Int8Array, i2: Int16Array, i4: Int32Array, i8: BigInt64Array },
  ...{ f2: Uint16Array, f4: Float32Array, f8: Float64Array },
};

const uses: UsePatterns = [
  ['action', 'numbers', /(^|\/)actions?$/],
  ['state', 'numbers', /(^|\/)states?$/, /(^|\/)qpos$/],
  ['language', 'texts', /(^|\/)language(_instruction)?$/, /(^|\/)instruction$/, /(^|\/)task$/, /(^|\/)prompt$/],
  ['subtask', 'texts', /(^|\/)subtask$/],
  ['time', 'numbers', /(^|\/)timestamps?$/],
  ['camera', 'pictures', /./],
];
/** What says where episodes end, in place of `episode_ends`: a number for each of them, or marks of their last steps, as D4RL has. */
const numbering = /(^|\/)(episode|episode_?(index|idx|ids?)|traj(ectory)?_?(index|idx|ids?))$/;
const lastMarks = /(^|\/)(terminals?|timeouts?|terminated|truncated|truncations?|dones?|is_last)$/;
const otherMarks = /(^|\/)(is_first|(episode|traj(ectory)?)_?(starts?|lengths?|lens?))$/;
/** Arrays that must be as they are wanted. */
const needed = /(^|\/)(actions?|states?|qpos|episode_ends)$/;

/** A file in the archive: its bytes there and unpacked, and where its data begin. */
type Entry = Awaited<ReturnType<typeof readDirectory>>[number];

/** An array; its elements begin at byte `body` of its file. `type` is numpy's, without the order of bytes: `f4`, `U12`. */
interface NpyArray extends Record<'rows' | 'rowBytes' | 'itemBytes' | 'body', number> {
  readonly entry: Entry;
  readonly name: string;
  readonly shape: readonly number[];
  readonly type: string;
  readonly found: FoundArray;
}

export const npzImporter: Importer = {
  format: 'npz',
  version: 3,
  recognises: async (folder) => (await folder.list()).some((name) => name.endsWith('.npz')),
  async open(folder, options) {
    const listed = await folder.list();
    const archives = listed.filter((name) => name.endsWith('.npz')).map((name) => name.slice(0, -4));
    const name = options.name ?? archives[0];
    if (!archives.includes(name) || (options.name === undefined && archives.length > 1))
      throw new InputError(`${folder.name}: which data set? Name one with --dataset: ${archives.join(', ')}`);
    const path = `${name}.npz`;
    const using = async <T>(use: (file: ByteSource) => Promise<T>) => {
      const file = await folder.open(path);
      return use(file).finally(() => file.close());
    };
    const { file, arrays, ends, found } = await using((file) => readArrays(file, options.note ?? (() => {})));
    const images = async function* (name: string, from: number, to: number) {
      const array = arrays.get(name)!;
      const bytes = await using((archive) => readRows(archive, array, from, to));
      for (let row = from, at = 0; row < to; row++, at += array.rowBytes) {
        const values = valuesOf(array, bytes.slice(at, at + array.rowBytes));
        yield imageOf(array.shape, values, array.found.scale!, `${file}: array ${quote(name)}, row ${row}`);
      }
    };
    const files = listed.filter((own) => own !== path);
    const unread = files.map((own) => ({ name: own, kind: 'other', reason: 'a file that is not read' }) as const);
    return {
      kind: 'npz file',
      name,
      rate: {},
      count: ends.length,
      fields: withUses([...found, ...unread], uses),
      async *episodes(first) {
        // Damage of a header may hide that an array is of use.
        await using((file) => checkStored(file, [...arrays.values()]));
        const known = new Map<NpyArray, Values>();
        const read = async (array: NpyArray) => {
          if (!known.has(array))
            known.set(array, valuesOf(array, await using((file) => readRows(file, array, 0, array.rows))));
          return known.get(array)!;
        };
        for (let i = first; i < ends.length; i++) yield episodeOf(file, arrays, ends, i, read);
      },
      async picture({ array, from }, index) {
        const row = Number(from) + index;
        for await (const image of images(String(array), row, row + 1)) return image;
        throw new RangeError('there is no such row');
      },
      unpack: ({ array, from, to }) => images(String(array), Number(from), Number(to)),
    } satisfies Source;
  },
};

function episodeOf(
  file: string,
  arrays: ReadonlyMap<string, NpyArray>,
  ends: readonly number[],
  number: number,
  read: (array: NpyArray) => Promise<Values>,
): SourceEpisode {
  const [from, to] = [ends[number - 1] ?? 0, ends[number]];
  return {
    id: `episode_${String(number).padStart(6, '0')}`,
    length: to - from,
    where: `${file}, rows ${from} to ${to - 1}`,
    async numbers(field) {
      const array = arrays.get(field)!;
      const values = await read(array);
      const width = values.length / array.rows;
      return (values instanceof Uint8Array ? Float32Array.from(values) : values).slice(from * width, to * width);
    },
    async texts(field) {
      const array = arrays.get(field)!;
      const texts = textsOf(file, array, await read(array));
      if (array.rows === ends.at(-1)) return texts.slice(from, to).map((text) => [text]);
      return [array.rows === ends.length ? [texts[number]] : texts];
    },
    async pictures(field) {
      const { entry, found } = arrays.get(field)!;
      if (found.kind !== 'pictures') return null;
      const kind = entry.method === 0 ? 'pick' : 'unpack';
      return { kind, place: { array: field, from, to }, count: to - from };
    },
  };
}

/** Reads the headers of all arrays, and decides what they are. */
async function readArrays(file: ByteSource, note: (line: string) => void) {
  const arrays = new Map<string, NpyArray>();
  const entries = await readDirectory(file);
  const others = entries.filter(({ name }) => !name.endsWith('.npy'));
  for (const entry of entries.filter((own) => !others.includes(own))) {
    const array = await readHeader(file, entry);
    arrays.set(array.name, array);
  }
  const all = [...arrays.values()];
  const endsArray = all.find(({ name, found }) => /(^|\/)episode_ends$/.test(name) && found.kind === 'numbers');
  const actions = all.find(({ name }) => /(^|\/)actions?$/.test(name));
  const stated = endsArray && [...valuesOf(endsArray, await readRows(file, endsArray, 0, endsArray.rows))];
  const rows = actions?.rows ?? stated?.at(-1) ?? Math.max(0, ...all.map((own) => own.rows));
  const marking = endsArray ? [] : marksOf(file.name, all, rows);
  const ends = stated ?? (await markedEnds(file, marking, rows));
  if (marking.length > 0)
    note(`episodes end by ${marking.map(({ name }) => quote(name)).join(' and ')}: ${counted(ends.length, 'episode')}`);
  const wrong = ends.findIndex((end, i) => !Number.isInteger(end) || end <= (ends[i - 1] ?? 0));
  if (wrong >= 0 || ends.at(-1) !== rows)
    throw new InputError(
      `${file.name}: array "episode_ends" has ${wrong >= 0 ? `${ends[wrong]} in place ${wrong}` : `${ends.at(-1)} at its end`}; it grows, up to the ${rows} steps`,
    );
  const found = all.map((array): FoundField => {
    const { name, shape, found } = array;
    if (array === endsArray || marking.includes(array))
      return { name, kind: 'other', reason: 'it says where episodes end' };
    const fits = shape[0] === rows || (found.kind === 'texts' && (shape.length === 0 || shape[0] === ends.length));
    const reason = `it has shape [${shape}], and the set has ${rows} steps of ${ends.length} episodes`;
    const own: FoundArray = found.kind === 'other' || fits ? found : { kind: 'other', reason };
    if (own.kind === 'other' && needed.test(name))
      throw new InputError(`${file.name}: array ${quote(name)}: ${own.reason}`);
    return { name, ...own, whole: !array.type.startsWith('f') };
  });
  for (const { name } of others) found.push({ name, kind: 'other', reason: 'a file that is no array' });
  return { file: file.name, arrays, ends, found };
}

/** The arrays that say where episodes end, where `episode_ends` is missing. @throws InputError if one says it in a way that is not read */
function marksOf(file: string, all: readonly NpyArray[], rows: number): NpyArray[] {
  const [numbered, last, other] = [numbering, lastMarks, otherMarks].map((pattern) =>
    all.filter(({ name }) => pattern.test(name)),
  );
  const marks = numbered.length > 0 ? numbered.slice(0, 1) : last;
  const wrong = marks.find(
    ({ found, shape }) => found.kind !== 'numbers' || productOf(shape) !== rows || shape[0] !== rows,
  );
  const unread = wrong ?? (marks.length === 0 ? other[0] : undefined);
  if (unread)
    throw new InputError(
      `${file}: array ${quote(unread.name)} of shape [${unread.shape}] says where episodes are, and is not read: save their ends as an array "episode_ends"`,
    );
  return marks;
}

/** The ends of episodes: after the last step of each number, or after each step with a mark. */
async function markedEnds(file: ByteSource, marks: readonly NpyArray[], rows: number): Promise<number[]> {
  const ends = new Set<number>();
  for (const array of marks) {
    const values = valuesOf(array, await readRows(file, array, 0, rows));
    for (let i = 0; i < rows - 1; i++)
      if (numbering.test(array.name) ? values[i] !== values[i + 1] : values[i] !== 0) ends.add(i + 1);
  }
  return [...ends.add(rows)].sort((a, b) => a - b);
}

/** Reads the header of numpy's npy format, versions 1 to 3. @throws InputError if it is damaged, or of another size than its file */
async function readHeader(file: ByteSource, entry: Entry): Promise<NpyArray> {
  const name = entry.name.slice(0, -'.npy'.length);
  const fail = (complaint: string) => new InputError(`${file.name}: array ${quote(name)}: ${complaint}`);
  const bytes = await readFile(file, entry, 0, Math.min(HEADER, entry.size));
  const view = new DataView(bytes.buffer);
  if (bytes.length < 12 || view.getUint32(0) !== 0x934e554d) throw fail('no npy file');
  const start = bytes[6] === 1 ? 10 : 12;
  const body = start + (start === 10 ? view.getUint16(8, true) : view.getUint32(8, true));
  if (body > bytes.length) throw fail('its header is cut off, or too long');
  const header = new TextDecoder('latin1').decode(bytes.subarray(start, body));
  const [, order, type = ''] = /'descr':\s*'([<>|=]?)([^']+)'/.exec(header) ?? [];
  const sizes = /'shape':\s*\(([\d,\s]*)\)/.exec(header)?.[1];
  if (sizes === undefined) throw fail('its header has no shape');
  const shape = (sizes.match(/\d+/g) ?? []).map(Number);
  const itemBytes = Number(/\d+$/.exec(type)?.[0]) * (type.startsWith('U') ? 4 : 1);
  const rowBytes = itemBytes * productOf(shape.slice(1));
  const array: Omit<NpyArray, 'found'> = { entry, name, shape, rows: shape[0] ?? 1, rowBytes, type, itemBytes, body };
  const other = (reason: string): NpyArray => ({ ...array, found: { kind: 'other', reason } });
  if (type === 'O') return other('Python objects (pickle) are not read: save it with another dtype');
  const texts = /^[US]\d/.test(type);
  if (!texts && !Object.hasOwn(types, type))
    return other(`dtype ${type || 'of several fields'} is not read; ${Object.keys(types).join(', ')}, S and U are`);
  const needed = array.rows * rowBytes;
  if (needed !== entry.size - body)
    throw fail(`of shape ${quote(shape)} needs ${needed} bytes, it has ${entry.size - body}`);
  if (order === '>') return other('its bytes are in big-endian order: save it with the usual dtype');
  if (/'fortran_order':\s*True/.test(header) && shape.length > 1)
    return other('it is in Fortran order: save it with np.ascontiguousarray');
  if (texts && shape.length < 2) return { ...array, found: { kind: 'texts' } };
  if (texts || shape.length === 0) return other('not one number or text for each step');
  if (type === 'b1') return { ...array, found: { kind: 'numbers', shape: [rowBytes] } };
  const element = type === 'u1' ? 'byte' : type.startsWith('f') ? 'float' : 'integer';
  const sampled: Values[] = [];
  if (element !== 'byte' && shape.length === 4)
    for (const row of sampledSteps(array.rows))
      sampled.push(valuesOf(array, await readRows(file, array, row, row + 1)));
  return { ...array, found: describeArray(name, shape, element, sampled) };
}

/** Numbers, or the bytes of texts. */
type Values = Uint8Array<ArrayBuffer> | Float32Array<ArrayBuffer> | Float64Array<ArrayBuffer>;

/** The elements of an array: unsigned bytes as they are, floats of up to 32 bits and small integers as float32, others as float64. */
function valuesOf({ type, itemBytes }: Pick<NpyArray, 'type' | 'itemBytes'>, bytes: Uint8Array<ArrayBuffer>): Values {
  if (/^[US]/.test(type)) return bytes;
  const values = new types[type as keyof typeof types](bytes.buffer);
  if (values instanceof Float32Array || values instanceof Float64Array || values instanceof Uint8Array) return values;
  if (type === 'f2') return decodeFloat16(values as Uint16Array<ArrayBuffer>);
  if (itemBytes < 4) return Float32Array.from(values as Uint16Array);
  return Float64Array.from(values as Uint32Array, Number);
}

/** The texts of an array: UTF-32 (U) or UTF-8 (S), filled up with zeros. @throws InputError if they are something else */
function textsOf(file: string, { name, type, rows, itemBytes }: NpyArray, { buffer }: Values): string[] {
  const letter = (code: number) => String.fromCodePoint(code <= 0x10ffff ? code : 0xfffd);
  return Array.from({ length: rows }, (_, i) => {
    const own = buffer.slice(i * itemBytes, (i + 1) * itemBytes);
    const text = type[0] === 'S' ? new TextDecoder().decode(own) : Array.from(new Uint32Array(own), letter).join('');
    if (text.includes('\ufffd'))
      throw new InputError(`${file}: array ${quote(name)}: text ${i} is not in UTF-8: save it with dtype U`);
    return text.replace(/\0+$/, '');
  });
}

const readRows = (
  file: ByteSource,
  { entry, body, rowBytes }: Pick<NpyArray, 'entry' | 'body' | 'rowBytes'>,
  from: number,
  to: number,
) => readFile(file, entry, body + from * rowBytes, body + to * rowBytes);

const damaged = (file: ByteSource, { name }: Entry, why: string) =>
  new InputError(`${file.name}: file ${quote(name)} of the archive is damaged (${why}): fetch the archive again`);

/** What was unpacked, while memory lasts: the pictures of one episode after another are of the same file. */
const unpacked = new WeakMap<Entry, WeakRef<Uint8Array<ArrayBuffer>>>();

/** Reads bytes of a file: in place, or by unpacking all of it, to as many bytes as the directory says. */
async function readFile(file: ByteSource, entry: Entry, from: number, to: number): Promise<Uint8Array<ArrayBuffer>> {
  const { name, method, crc, packed, size, start } = entry;
  const what = `file ${quote(name)} of the archive`;
  const wanted = method === 0 ? to - from : size;
  if (wanted > LIMIT)
    throw new InputError(
      `${file.name}: ${what} has ${wanted} bytes; above ${LIMIT} only pictures that np.savez saved are read`,
    );
  if (method === 0) return readRange(file, start + from, start + to, what);
  const held = unpacked.get(entry)?.deref();
  if (held) return held.slice(from, to);
  let bytes = await readRange(file, start, start + packed, what);
  try {
    bytes = inflateSync(bytes, { out: new Uint8Array(size) });
  } catch (error) {
    throw damaged(file, entry, reasonOf(error));
  }
  if (bytes.length < size || crc32(bytes) !== crc) throw damaged(file, entry, 'checksum');
  unpacked.set(entry, new WeakRef(bytes));
  return bytes.slice(from, to);
}

/** Compares the checksums of the files that are not packed. */
async function checkStored(file: ByteSource, arrays: readonly NpyArray[]): Promise<void> {
  for (const { entry } of arrays.filter((array) => array.entry.method === 0)) {
    let crc = 0;
    for (let at = 0; at < entry.size; at += CHECKED)
      crc = crc32(await readFile(file, entry, at, Math.min(entry.size, at + CHECKED)), crc);
    if (crc !== entry.crc) throw damaged(file, entry, 'checksum');
  }
}

/** Lists the files of a zip archive below 4 GiB. @throws InputError if it is damaged, cut off, or no such archive */
async function readDirectory(file: ByteSource) {
  const fail = (complaint: string) => new InputError(`${file.name}: ${complaint}`);
  // The end of the directory lies in these last bytes, before a comment, which numpy does not write.
  const at = Math.max(0, file.size - 22);
  const end = new DataView((await readRange(file, at, file.size, 'the archive')).buffer);
  if (end.byteLength < 22 || end.getUint32(0, true) !== 0x06054b50) throw fail('cut off, or no zip archive of numpy');
  const [length, first] = [end.getUint32(12, true), end.getUint32(16, true)];
  if (first === 0xffffffff) throw fail('it has 4 GiB or more, and smaller archives are read');
  const unlike = fail('damaged: its end does not say where its directory of files lies');
  if (first + length !== at) throw unlike;
  const bytes = await readRange(file, first, at, "the archive's directory");
  const view = new DataView(bytes.buffer);
  const entries = [];
  for (let place = 0; place < length; ) {
    if (place + 46 > length || view.getUint32(place, true) !== 0x02014b50)
      throw fail(`damaged: no entry at byte ${first + place} of the archive's directory`);
    const [method, nameLength, extra, comment] = [10, 28, 30, 32].map((field) => view.getUint16(place + field, true));
    const [crc, packed, size, offset] = [16, 20, 24, 42].map((field) => view.getUint32(place + field, true));
    const name = new TextDecoder().decode(bytes.subarray(place + 46, place + 46 + nameLength));
    const own = `file ${quote(name)} of the archive`;
    if (size === 0xffffffff)
      throw fail(`${own} has 2 GiB or more (zip64), and smaller ones are read: save parts of it`);
    if (method !== 0 && method !== 8)
      throw fail(`${own} is packed by method ${method}; 0 and 8 are read, as numpy writes`);
    if (method === 0 ? size !== packed : size > packed * MOST_UNPACKED)
      throw fail(`${own} says it unpacks from ${packed} to ${size} bytes: damaged`);
    // Checksums do not cover names, but each name stands twice.
    const twin = await readRange(file, offset, offset + 30 + nameLength, `the header of ${quote(name)}`);
    const header = new DataView(twin.buffer);
    if (header.getUint32(0, true) !== 0x04034b50 || new TextDecoder().decode(twin.subarray(30)) !== name)
      throw fail(`damaged: ${own} is not at byte ${offset}`);
    const start = offset + 30 + header.getUint16(26, true) + header.getUint16(28, true);
    entries.push({ name, method, crc, packed, size, start });
    place += 46 + nameLength + extra + comment;
  }
  if (entries.length !== end.getUint16(10, true)) throw unlike;
  return entries;
}
