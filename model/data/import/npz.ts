/**
 * numpy's npz files: a zip archive with an array in a file each. All arrays hold the steps of all episodes one after the other, and
 * `episode_ends` says where these end, as in Diffusion Policy's replay buffers; without it there is one episode.
 */
import type { ByteSource } from '../../../engine/files/bytes.ts';
import { InputError, quote } from '../../../engine/files/errors.ts';
import { decodeFloat16 } from '../../../engine/files/half.ts';
import { describeArray, type FoundArray, imageOf, productOf, sampledSteps } from './pixels.ts';
import type { Importer, Source, SourceEpisode } from './source.ts';
import { type FoundField, type UsePatterns, withUses } from './uses.ts';
import { type ArchiveFile, checkStored, readDirectory, readFile } from './zip.ts';

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
/** Arrays that say in other ways where episodes are. */
const marks =
  /(^|\/)(episode|(episode|traj(ectory)?)_?(index|idx|ids?|starts?|lengths?|lens?)|terminals?|timeouts?|terminated|truncated|truncations?|dones?|is_first|is_last)$/;
/** Arrays that must be as they are wanted. */
const needed = /(^|\/)(actions?|states?|qpos|episode_ends)$/;

/** An array; its elements begin at byte `body` of its file. `type` is numpy's, without the order of bytes: `f4`, `U12`. */
interface NpyArray extends Record<'rows' | 'rowBytes' | 'itemBytes' | 'body', number> {
  readonly entry: ArchiveFile;
  readonly name: string;
  readonly shape: readonly number[];
  readonly type: string;
  readonly found: FoundArray;
}

export const npzImporter: Importer = {
  format: 'npz',
  version: 4,
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
    const { file, arrays, ends, found } = await using(readArrays);
    const images = async function* (name: string, from: number, to: number) {
      const array = arrays.get(name)!;
      const values = await using((archive) => readRows(archive, array, from, to));
      const size = values.length / (to - from);
      for (let i = 0; i < to - from; i++) {
        const own = values.slice(i * size, (i + 1) * size);
        yield imageOf(array.shape, own, array.found.scale!, `${file}: array ${quote(name)}, row ${from + i}`);
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
        await using((file) =>
          checkStored(
            file,
            Array.from(arrays.values(), ({ entry }) => entry),
          ),
        );
        const known = new Map<NpyArray, Values>();
        const read = async (array: NpyArray) => {
          if (!known.has(array)) known.set(array, await using((file) => readRows(file, array, 0, array.rows)));
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
async function readArrays(file: ByteSource) {
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
  const stated = endsArray && [...(await readRows(file, endsArray, 0, endsArray.rows))];
  const rows = actions?.rows ?? stated?.at(-1) ?? Math.max(0, ...all.map((own) => own.rows));
  const marking = endsArray ? undefined : all.find(({ name }) => marks.test(name));
  if (marking)
    throw new InputError(
      `${file.name}: array ${quote(marking.name)} says where episodes are, and is not read: save their ends as an array "episode_ends"`,
    );
  const ends = stated ?? [rows];
  const wrong = ends.findIndex((end, i) => !Number.isInteger(end) || end <= (ends[i - 1] ?? 0));
  if (wrong >= 0 || ends.at(-1) !== rows)
    throw new InputError(
      `${file.name}: array "episode_ends" has ${wrong >= 0 ? `${ends[wrong]} in place ${wrong}` : `${ends.at(-1)} at its end`}; it grows, up to the ${rows} steps`,
    );
  const found = all.map((array): FoundField => {
    const { name, shape, found } = array;
    if (array === endsArray) return { name, kind: 'other', reason: 'it says where episodes end' };
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

/** Reads the header of numpy's npy format, versions 1 to 3. @throws InputError if it is damaged, or of another size than its file */
async function readHeader(file: ByteSource, entry: ArchiveFile): Promise<NpyArray> {
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
    for (const row of sampledSteps(array.rows)) sampled.push(await readRows(file, array, row, row + 1));
  return { ...array, found: describeArray(name, shape, element, sampled) };
}

/** Numbers, or the bytes of texts. */
type Values = Uint8Array<ArrayBuffer> | Float32Array<ArrayBuffer> | Float64Array<ArrayBuffer>;

/** Reads rows of an array: unsigned bytes as they are, floats of up to 32 bits and small integers as float32, others as float64. */
async function readRows(
  file: ByteSource,
  { entry, body, rowBytes, type, itemBytes }: Omit<NpyArray, 'found'>,
  from: number,
  to: number,
): Promise<Values> {
  const bytes = await readFile(file, entry, body + from * rowBytes, body + to * rowBytes);
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
