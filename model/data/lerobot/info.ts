import type { Folder } from '../../../engine/files/bytes.ts';
import { InputError, quote } from '../../../engine/files/errors.ts';
import { asCount, asObject, asOptionalText, asText, readJsonObject, unexpected } from '../json.ts';
import { instructionsAmong } from '../parts.ts';

/**
 * The task of a step without an instruction in the data sets that are written here. LeRobot looks up a text for every row's
 * task_index and gives it to the policy's tokenizer, which null stops; an empty text would be an instruction that says nothing.
 */
export const NO_INSTRUCTION = 'no instruction';

/** The instructions among the texts of tasks. */
export function instructionsOf(tasks: Iterable<string>): string[] {
  return instructionsAmong(tasks).filter((text) => text !== NO_INSTRUCTION);
}

/** One column, or one camera, of a LeRobot data set. */
export type Feature = Readonly<ReturnType<typeof readFeature>>;
/** The contents of `meta/info.json` of a LeRobot data set, version 2.0, 2.1 or 3.0. */
export type LeRobotInfo = Readonly<Awaited<ReturnType<typeof readInfo>>>;

/** @throws InputError if the file is missing, of another version, or has an impossible value */
export async function readInfo(folder: Folder) {
  const source = await folder.open('meta/info.json');
  const file = source.name;
  const json = await readJsonObject(source);
  const version = asText(json.codebase_version, file, '"codebase_version"').replace(/^v/, '');
  if (!/^(2\.[01]|3\.\d+)$/.test(version)) {
    const convert = "convert it with LeRobot's own scripts to 2.1 or 3.0";
    throw new InputError(`${file}: codebase_version ${quote(json.codebase_version)} is not read here; ${convert}`);
  }
  const { fps } = json;
  if (typeof fps !== 'number' || !(fps > 0)) throw unexpected(fps, file, '"fps"', 'a number above 0');
  const features = new Map<string, Feature>();
  for (const [key, value] of Object.entries(asObject(json.features, file, '"features"'))) {
    features.set(key, readFeature(key, value, file));
  }
  const robot = asOptionalText(json.robot_type, file, '"robot_type"') || null;
  const videoPath = asOptionalText(json.video_path, file, '"video_path"') || null;
  return {
    file,
    version,
    robot,
    /** Frames per second. */
    rate: fps,
    episodes: asCount(json.total_episodes, file, '"total_episodes"', 1),
    frames: asCount(json.total_frames, file, '"total_frames"', 1),
    /** The number of episodes (version 2) or files (version 3) in a chunk folder. */
    chunkSize: asCount(json.chunks_size ?? 1000, file, '"chunks_size"', 1),
    dataPath: asText(json.data_path, file, '"data_path"'),
    videoPath,
    /** The parts of the set, which are read alike, where there is another than "train". */
    splits: Object.keys((json.splits ?? {}) as object).some((name) => name !== 'train')
      ? `the episodes of all are read: ${quote(json.splits)}`
      : null,
    features,
  };
}

function readFeature(key: string, value: unknown, file: string) {
  const what = `feature ${quote(key)}`;
  const json = asObject(value, file, what);
  const { shape } = json;
  if (!Array.isArray(shape) || !shape.every((size) => Number.isSafeInteger(size) && size >= 0 && size < 2 ** 20)) {
    throw unexpected(shape, file, `${what}: "shape"`, 'a list of whole numbers');
  }
  // Names are a list, or an object of lists such as { motors: [...] }.
  const lists = Array.isArray(json.names) ? [json.names] : Object.values((json.names ?? {}) as object);
  const names = lists.flat().map((name) => (typeof name === 'string' ? name : quote(name)));
  const notes = { ...(json.info as object | undefined), ...(json.video_info as object | undefined) };
  // A number type, "image" (files or bytes in the parquet files), "video" (frames of MP4 files), "string" or "language".
  const dtype = asText(json.dtype, file, `${what}: "dtype"`);
  const said = (name: string) => (notes as Record<string, unknown>)[name];
  // Sets without the flags name their depth maps so, or store them in one channel of more than 8 bits.
  const depth =
    said('is_depth_map') === true ||
    said('video.is_depth_map') === true ||
    /(?<![a-z])depth|depth(?![a-z])/i.test(`${key} ${dtype}`) ||
    /^gray\d/.test(String(said('video.pix_fmt') ?? said('pix_fmt')));
  const sizes: readonly number[] = shape;
  return { key, dtype, shape: sizes, names: names.length === sizes[0] ? names : null, depth };
}

/** Returns the numbers in one row of a feature. */
export const widthOf = ({ shape }: Feature): number => shape.reduce((product, size) => product * size, 1);

/**
 * Fills a path pattern of Python's str.format, such as `data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet`.
 *
 * @throws InputError if the pattern needs a value that is not in `values`, or leads out of the data set's folder
 */
export function formatPath(pattern: string, values: Readonly<Record<string, number | string>>, file: string): string {
  const path = pattern.replace(/\{(\w+)(?::0?(\d+)d)?\}/g, (whole, name: string, digits?: string) => {
    if (!Object.hasOwn(values, name)) throw new InputError(`${file}: path ${quote(pattern)} asks for ${whole}`);
    return String(values[name]).padStart(Number(digits ?? 0), '0');
  });
  if (/^[\\/]|^[a-z]:|(^|[\\/])\.\.([\\/]|$)/i.test(path)) {
    throw new InputError(`${file}: path ${quote(pattern)} leads out of the data set's folder`);
  }
  return path;
}
