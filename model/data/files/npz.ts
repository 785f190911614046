import type { ByteSource } from '../../../engine/files/bytes.ts';
import { InputError, quote } from '../../../engine/files/errors.ts';
import { assembleDataset, checkFinite } from '../assemble.ts';
import type { Dataset } from '../dataset.ts';
import { readZip, readZipEntry } from './zip.ts';

/** The bytes of the largest array that is read. */
const LIMIT = 2 ** 30;

const types = {
  '<f4': Float32Array,
  '<f8': Float64Array,
  '<i4': Int32Array,
  '<i8': BigInt64Array,
  '|u1': Uint8Array,
  '|i1': Int8Array,
} as const;

type NumpyArray = ReturnType<typeof parseNpy>;

/**
 * Reads a data set without images from numpy's npz: arrays `action` [steps, dimension], `state` if any, and, for
 * several episodes one after the other, `episode_ends` (as in Diffusion Policy's replay buffers). Plural names are read
 * too.
 */
export async function readNpz(source: ByteSource, name: string, rate: number | undefined): Promise<Dataset> {
  if (rate === undefined) {
    throw new InputError(`${source.name}: npz files do not say at how many Hz they were recorded: give it with --rate`);
  }
  const entries = await readZip(source);
  const read = async (...keys: string[]): Promise<NumpyArray | null> => {
    const entry = entries.find(({ name: path }) =>
      keys.some((key) => path === `${key}.npy` || path.endsWith(`/${key}.npy`)),
    );
    if (!entry) return null;
    const what = `${source.name}: array ${quote(entry.name)}`;
    if (entry.size > LIMIT) throw new InputError(`${what} has ${entry.size} bytes, at most ${LIMIT} are read here`);
    return parseNpy(await readZipEntry(source, entry), what);
  };
  const actions = await read('action', 'actions');
  if (!actions)
    throw new InputError(`${source.name}: no array "action"; there are ${entries.map((own) => own.name).join(', ')}`);
  const states = await read('state', 'states', 'qpos');
  const steps = actions.shape[0];
  const widthOf = ({ values, shape }: NumpyArray, what: string) => {
    if (shape.length < 1 || shape.length > 2 || shape[0] !== steps || values.length === 0) {
      const expected = `${steps} rows of numbers were expected, of all episodes one after the other`;
      throw new InputError(`${source.name}: array ${quote(what)} has shape ${quote(shape)}, ${expected}`);
    }
    return values.length / steps;
  };
  const [actionDimension, stateDimension] = [widthOf(actions, 'action'), states ? widthOf(states, 'state') : 0];
  const ends = [...((await read('episode_ends'))?.values ?? [steps])];
  const wrong = ends.findIndex((end, i) => !Number.isInteger(end) || end <= (ends[i - 1] ?? 0));
  if (wrong >= 0 || ends.at(-1) !== steps) {
    const found = wrong >= 0 ? `${ends[wrong]} in place ${wrong}` : `${ends.at(-1)} at its end`;
    throw new InputError(`${source.name}: array "episode_ends" has ${found}; it grows, up to the ${steps} steps`);
  }
  const found = ends.map((end, i) => {
    const from = ends[i - 1] ?? 0;
    const id = `episode_${String(i).padStart(6, '0')}`;
    const rows = (table: Float32Array, width: number, what: string) => {
      const own = table.subarray(from * width, end * width);
      checkFinite(own, width, source.name, `episode ${id}: array "${what}"`);
      return own;
    };
    const episode = {
      id,
      length: end - from,
      actions: rows(actions.values, actionDimension, 'action'),
      states: states && rows(states.values, stateDimension, 'state'),
      instructions: [],
      cameras: [],
      image: async () => null,
    };
    return { file: source.name, actionDimension, stateDimension, episode };
  });
  return assembleDataset(found, { name, rate, kind: 'npz file', place: source.name });
}

/** Reads numpy's npy format, versions 1 to 3, in C order. @throws InputError if it is damaged or of another type */
function parseNpy(bytes: Uint8Array, what: string) {
  const fail = (complaint: string) => new InputError(`${what}: ${complaint}`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 12 || view.getUint32(0) !== 0x934e554d) throw fail('no npy file');
  const [start, length] = bytes[6] === 1 ? [10, view.getUint16(8, true)] : [12, view.getUint32(8, true)];
  if (length > bytes.length - start) throw fail('cut off');
  const header = new TextDecoder('latin1').decode(bytes.subarray(start, start + length));
  const type = /'descr':\s*'([^']+)'/.exec(header)?.[1] ?? '';
  const shape = /'shape':\s*\(([\d,\s]*)\)/
    .exec(header)?.[1]
    .split(',')
    .flatMap((part) => part.trim() || [])
    .map(Number);
  if (!shape) throw fail('its header has no shape');
  if (!/'fortran_order':\s*False/.test(header)) throw fail('is in Fortran order: save it with np.ascontiguousarray');
  if (!Object.hasOwn(types, type)) throw fail(`holds ${quote(type)}; ${Object.keys(types).join(', ')} are read`);
  const make = types[type as keyof typeof types];
  const count = shape.reduce((product, size) => product * size, 1);
  const body = bytes.subarray(start + length);
  if (count * make.BYTES_PER_ELEMENT !== body.length) {
    throw fail(`of shape ${quote(shape)} needs ${count * make.BYTES_PER_ELEMENT} bytes, it has ${body.length}`);
  }
  // Values that are aligned, as numpy writes them, are not copied.
  const aligned = body.byteOffset % make.BYTES_PER_ELEMENT === 0 ? body : body.slice();
  const values = new make(aligned.buffer as ArrayBuffer, aligned.byteOffset, count);
  return { shape, values: values instanceof Float32Array ? values : Float32Array.from(values as Float64Array, Number) };
}
