import type { Group, Dataset as Hdf5Table } from 'h5wasm/node';
import { InputError, quote } from '../../../engine/files/errors.ts';
import { optionalPackages } from '../../../engine/files/optional-packages.ts';
import { assembleDataset, checkFinite, type FoundEpisode } from '../assemble.ts';
import type { Dataset } from '../dataset.ts';
import { ImageCache, imagesAt } from '../image-files.ts';
import { instructionsAmong, onDisk } from '../parts.ts';

// This file runs under node only; the library is loaded when a file is opened.

/** The most numbers of one table that are read. */
const VALUES_LIMIT = 2 ** 28;

/** The places of tables in an episode's group, as a program writes them. */
type Layout = typeof aloha;

const aloha = {
  kind: 'HDF5 files of ACT (ALOHA)',
  /** The usual rate of the program's robots in Hz, for when none is given. */
  rate: 50,
  /** Alternative lists of tables: the columns of the first complete list are concatenated. */
  actions: [['action', 'base_action'], ['action']], // a mobile ALOHA drives, too
  states: [['observations/qpos']],
  images: 'observations/images',
};
const robomimic: Layout = {
  kind: 'HDF5 file of robomimic or LIBERO',
  rate: 20,
  actions: [['actions']],
  states: [
    ['obs/ee_states', 'obs/gripper_states'],
    ['obs/robot0_eef_pos', 'obs/robot0_eef_quat', 'obs/robot0_gripper_qpos'],
  ],
  images: 'obs',
};

/**
 * Opens HDF5 files. ACT writes one file an episode (/action, /observations/qpos, /observations/images), robomimic and
 * LIBERO write one file with many (/data/demo_0/actions, obs). Numbers are read now and held if they fit in `memory`.
 * Images, which are arrays or padded JPEG files, are read one by one.
 */
export async function openHdf5(
  paths: readonly string[],
  name: string,
  memory: number,
  rate?: number,
): Promise<Dataset> {
  const { File, ready } = await optionalPackages('h5wasm', 'reading HDF5 files', () => import('h5wasm/node'));
  (await ready).activate_throwing_error_handler(); // otherwise errors are printed and ignored
  const images = new ImageCache();
  const opened = <T>(path: string, use: (root: Group) => T): T => {
    let file: InstanceType<typeof File> | undefined;
    try {
      file = new File(path, 'r');
      return use(file);
    } catch (error) {
      if (error instanceof InputError) throw error;
      throw new InputError(`${path}: cannot be opened, is damaged, or no HDF5 file (${lastReason(error)})`);
    } finally {
      file?.close();
    }
  };
  const found: FoundEpisode[] = [];
  let layout = aloha;
  let bytes = 0;
  const imagesIn = (path: string, place: string, shapes: ReadonlyMap<string, number[]>, length: number) =>
    imagesAt(images, length, (camera, step) => {
      const shape = shapes.get(camera);
      if (!shape) return null;
      const table = [place, layout.images, camera].filter((part) => part !== '').join('/');
      const key = `${path}:${table}:${step}`;
      const bytesOf = (root: Group) => {
        const rest = shape.slice(1).map(() => [] as []);
        return Uint8Array.from((root.get(table) as Hdf5Table).slice([[step, step + 1], ...rest]) as Uint8Array);
      };
      if (shape.length === 4)
        return { key, frame: async () => ({ height: shape[1], width: shape[2], pixels: opened(path, bytesOf) }) };
      const read = async () => {
        const padded = opened(path, bytesOf);
        // Zeros pad every file to the length of the longest; the last byte of a JPEG or PNG file is not zero.
        return { bytes: padded.slice(0, padded.findLastIndex((byte) => byte !== 0) + 1), file: path };
      };
      return { key, what: `${table}, step ${step}`, read };
    });
  const episodeOf = (path: string, place: string, group: Group, words: readonly string[]): FoundEpisode => {
    const own = readEpisode(path, place, group, layout, words);
    const { length, instructions, actions, states } = own.episode;
    const id = [place === '' || paths.length > 1 ? stem(path) : '', place.replace('data/', '')]
      .filter(Boolean)
      .join('/');
    const cameras = [...own.shapes.keys()];
    const known = { id, length, instructions, cameras, ...imagesIn(path, place, own.shapes, length) };
    bytes += actions.byteLength + (states?.byteLength ?? 0);
    if (bytes <= memory) return { ...own, episode: { ...known, actions, states } };
    const load = async () => {
      const { episode } = opened(path, (root) => {
        const again = place === '' ? root : (root.get(place) as Group);
        return readEpisode(path, place, again, layout, words);
      });
      return { ...known, actions: episode.actions, states: episode.states };
    };
    return { ...own, episode: onDisk(known, load) };
  };
  for (const path of paths) {
    opened(path, (root) => {
      const demos = root.get('data');
      const groups: [id: string, group: Group][] = [];
      if (demos && 'keys' in demos) {
        layout = robomimic;
        const numbered = (demos as Group).keys().filter((key) => key.startsWith('demo'));
        numbered.sort((a, b) => Number(a.replace(/\D/g, '')) - Number(b.replace(/\D/g, '')));
        for (const key of numbered) groups.push([`data/${key}`, (demos as Group).get(key) as Group]);
      } else groups.push(['', root]);
      const words = instructionOf(demos);
      for (const [place, group] of groups) found.push(episodeOf(path, place, group, words));
    });
  }
  return assembleDataset(found, { name, rate: rate ?? layout.rate, kind: layout.kind, place: paths[0] });
}

function readEpisode(file: string, place: string, group: Group, layout: Layout, instructions: readonly string[]) {
  const where = place === '' ? file : `${file}: ${place}`;
  const table = (key: string): { values: Float32Array; shape: number[] } | null => {
    const own = group.get(key);
    if (!own || !('shape' in own) || !own.shape) return null;
    const count = own.shape.reduce((product, size) => product * size, 1);
    if (own.shape.length !== 2 || count === 0 || count > VALUES_LIMIT)
      throw new InputError(`${where}: ${quote(key)} has shape ${quote(own.shape)}, [steps, dimension] was expected`);
    return { values: Float32Array.from(own.value as ArrayLike<number>, Number), shape: own.shape };
  };
  /** Concatenates the columns of the first complete list of tables. */
  const joined = (choices: Layout['actions'], what: string) => {
    const parts = choices
      .map((keys) => keys.flatMap((key) => table(key) ?? []))
      .find((own, i) => own.length === choices[i].length);
    if (!parts) return null;
    const [length] = parts[0].shape;
    const unlike = parts.find(({ shape }) => shape[0] !== length);
    if (unlike) throw new InputError(`${where}: ${what} of ${length} and of ${unlike.shape[0]} steps`);
    const width = parts.reduce((sum, { shape }) => sum + shape[1], 0);
    const values = new Float32Array(length * width);
    for (let row = 0; row < length; row++) {
      let first = row * width;
      for (const own of parts) {
        values.set(own.values.subarray(row * own.shape[1], (row + 1) * own.shape[1]), first);
        first += own.shape[1];
      }
    }
    checkFinite(values, width, where, what);
    return { values, length, width };
  };
  const actions = joined(layout.actions, 'actions');
  if (!actions) {
    const wanted = layout.actions.at(-1)!.join(', ');
    throw new InputError(`${where}: no table ${quote(wanted)}; there are ${group.keys().join(', ')}`);
  }
  const { length } = actions;
  const states = joined(layout.states, 'states');
  if (states && states.length !== length) throw new InputError(`${where}: ${length} actions, ${states.length} states`);
  const pictures = group.get(layout.images);
  const keys = pictures && 'keys' in pictures ? (pictures as Group).keys() : [];
  const shapes = new Map(
    keys.flatMap((key) => {
      const shape = imageShape((pictures as Group).get(key), length);
      return shape ? [[key, shape]] : [];
    }),
  );
  const episode = { length, actions: actions.values, states: states?.values ?? null, instructions };
  return { file, actionDimension: actions.width, stateDimension: states?.width ?? 0, shapes, episode };
}

const stem = (file: string) => file.replace(/^.*[\\/]|\.\w+$/g, '');

/** The shape of a table of images: [steps, height, width, 3], or a padded file for each step; null for another table. */
function imageShape(table: ReturnType<Group['get']>, length: number): number[] | null {
  if (!table || !('shape' in table) || !table.shape || table.shape[0] !== length) return null;
  const { shape, dtype } = table;
  const bytes = shape.slice(1).reduce((product, size) => product * size, 1);
  const isImage = shape.length === 2 || (shape.length === 4 && shape[3] === 3);
  return isImage && /[Bb]$/.test(String(dtype)) && bytes <= VALUES_LIMIT ? shape : null;
}

/** Extracts the innermost of the reasons that the library lists on many lines. */
function lastReason(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  const reasons = [...text.matchAll(/in \w+\(\): ([^\n]+)/g)];
  return reasons.at(-1)?.[1] ?? text.split('\n')[0];
}

/** Reads the instruction, which LIBERO keeps in an attribute that is JSON. */
function instructionOf(group: unknown): string[] {
  const text = (group as Group | null)?.attrs?.problem_info?.value;
  if (typeof text !== 'string') return [];
  try {
    const { language_instruction: words } = JSON.parse(text);
    return typeof words === 'string' ? instructionsAmong([words]) : [];
  } catch {
    return []; // the attribute belongs to another program
  }
}
