import * as v from 'valibot';
import type { Folder } from '../../../engine/files/bytes.ts';
import { InputError, quote } from '../../../engine/files/errors.ts';
import { count, dictionary, readChecked } from '../../../engine/files/json-schema.ts';
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

const text = v.pipe(v.string('text'), v.nonEmpty('text'));
const optionalText = v.pipe(
  v.nullish(v.string('text'), ''),
  v.transform((own) => own.trim() || null),
);
const positive = 'a number above 0';
const featureSchema = v.object({
  /** A number type, "image" (files or bytes in the parquet files), "video" (frames of MP4 files), "string" or "language". */
  dtype: text,
  shape: v.pipe(v.array(count(0, 2 ** 20), 'a list of whole numbers'), v.readonly()),
  names: v.optional(v.unknown()),
  info: v.optional(v.unknown()),
  video_info: v.optional(v.unknown()),
});
const infoSchema = v.object({
  codebase_version: v.pipe(
    v.string('text'),
    v.regex(/^v?(2\.[01]|3\.\d+)$/, "2.0, 2.1 or 3.0, to which LeRobot's own scripts convert"),
  ),
  robot_type: optionalText,
  fps: v.pipe(v.number(positive), v.gtValue(0, positive)),
  total_episodes: count(1),
  total_frames: count(1),
  chunks_size: v.nullish(count(1), 1000),
  data_path: text,
  video_path: optionalText,
  splits: v.optional(v.unknown()),
  features: dictionary(featureSchema),
});

/** One column, or one camera, of a LeRobot data set. */
export type Feature = Readonly<ReturnType<typeof featureOf>>;
/** The contents of `meta/info.json` of a LeRobot data set, version 2.0, 2.1 or 3.0. */
export type LeRobotInfo = Readonly<Awaited<ReturnType<typeof readInfo>>>;

/** @throws InputError if the file is missing, of another version, or has an impossible value */
export async function readInfo(folder: Folder) {
  const source = await folder.open('meta/info.json');
  const json = await readChecked(source, infoSchema);
  const splits = Object.keys((json.splits ?? {}) as object);
  return {
    file: source.name,
    version: json.codebase_version.replace('v', ''),
    robot: json.robot_type,
    /** Frames per second. */
    rate: json.fps,
    episodes: json.total_episodes,
    frames: json.total_frames,
    /** The number of episodes (version 2) or files (version 3) in a chunk folder. */
    chunkSize: json.chunks_size,
    dataPath: json.data_path,
    videoPath: json.video_path,
    /** The parts of the set, which are read alike, where there is another than "train". */
    splits: splits.some((name) => name !== 'train') ? `the episodes of all are read: ${quote(json.splits)}` : null,
    features: new Map(Object.entries(json.features).map(([key, own]) => [key, featureOf(key, own)])),
  };
}

function featureOf(key: string, { dtype, shape, names, info, video_info }: v.InferOutput<typeof featureSchema>) {
  // Names are a list, or an object of lists such as { motors: [...] }.
  const lists = Array.isArray(names) ? names : Object.values((names ?? {}) as object).flat();
  const labels = lists.map((name) => (typeof name === 'string' ? name : quote(name)));
  const said: Record<string, unknown> = { ...(info as object), ...(video_info as object) };
  // Sets without the flags name their depth maps so, or store them in one channel of more than 8 bits.
  const depth =
    said.is_depth_map === true ||
    said['video.is_depth_map'] === true ||
    /(?<![a-z])depth|depth(?![a-z])/i.test(`${key} ${dtype}`) ||
    /^gray\d/.test(String(said['video.pix_fmt'] ?? said.pix_fmt));
  return { key, dtype, shape, names: labels.length === shape[0] ? labels : null, depth };
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
