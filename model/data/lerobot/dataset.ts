import type { Folder } from '../../../engine/files/bytes.ts';
import { InputError, quote } from '../../../engine/files/errors.ts';
import { checkFinite } from '../assemble.ts';
import type { Dataset, DatasetOptions, Episode, Image } from '../dataset.ts';
import { ImageCache, type ImagePlace, imagesAt, readImage } from '../image-files.ts';
import { MemoryCache } from '../memory-cache.ts';
import { type ParquetFile, ParquetFolder } from '../parquet/file.ts';
import { loadedInOrder, onDisk, wholeEpisodes } from '../parts.ts';
import { type EpisodeInstructions, type EpisodePlace, readEpisodes, readInstructions } from './episodes.ts';
import { type Feature, formatPath, type LeRobotInfo, readInfo, widthOf } from './info.ts';

/** The bytes of recently loaded numbers kept in memory. */
const EPISODE_CACHE_BYTES = 64 * 2 ** 20;
/** The default limit of a decoded video frame's width and height: the image size of the public models, in pixels. */
export const FRAME_SIZE = 224;
/** The average step of an episode may differ from 1 / fps by this fraction. */
const RATE_TOLERANCE = 0.05;

/** The frames of one camera in one episode, as a part of a video file. */
export interface VideoClip {
  /** The video file, in the data set's folder. */
  readonly path: string;
  /** The second in the file at which the first frame begins, the number of frames, and frames per second. */
  readonly start: number;
  readonly length: number;
  readonly rate: number;
  /** The clip's name in errors. */
  readonly what: string;
}

/** Decodes videos. */
export interface VideoFrames {
  frame(clip: VideoClip, step: number): Promise<Image>;
}

/** Here a camera may also be named by its feature key. */
interface LeRobotOptions extends DatasetOptions {
  readonly name: string;
  /** Makes the decoder when a camera exists only as video. @throws InputError if no decoder is available */
  readonly video: (cameras: readonly string[]) => Promise<VideoFrames>;
  readonly memory: number;
}

/**
 * Opens a LeRobot data set of version 2.0, 2.1 or 3.0. meta/info.json and the list of episodes are read and checked
 * now, the numbers too if they fit in `memory`; images are read when they are requested.
 */
export async function openLeRobot(folder: Folder, options: LeRobotOptions): Promise<Dataset> {
  const info = await readInfo(folder);
  const parquet = new ParquetFolder(folder);
  const reader = new Reader(folder, parquet, info, await camerasOf(info, options));
  const places = await readEpisodes(folder, parquet, info);
  const instructions = await readInstructions(folder, parquet, info, places);
  reader.instructions = new Map(places.map(({ index }, i) => [index, instructions[i]]));
  const { action, state, cameras } = reader;
  const bytes = info.frames * (widthOf(action) + (state ? widthOf(state) : 0)) * 4;
  const streamed = bytes > options.memory;
  const listed = places.map((place) => reader.listed(place));
  const episodes: Episode[] = streamed ? listed : [];
  if (!streamed) {
    for await (const { episode } of loadedInOrder(wholeEpisodes(listed))) episodes.push(episode);
    parquet.forget();
  }
  const none = camerasIn(info).length > 0 ? ', cameras not read' : ', no cameras';
  const seen = cameras.length > 0 ? `, cameras ${cameras.map(({ name }) => name).join(', ')}` : none;
  const kind = `LeRobot data set, version ${info.version}${info.robot ? ` (${info.robot})` : ''}`;
  const numbers = streamed ? ', numbers read as they are needed' : '';
  return {
    name: options.name,
    description: `${kind}: ${places.length} episodes, ${info.frames} steps at ${info.rate} Hz${seen}${numbers}`,
    actionNames: action.names ?? undefined,
    rate: info.rate,
    actionDimension: widthOf(action),
    stateDimension: state ? widthOf(state) : 0,
    cameras: cameras.map(({ name }) => name),
    episodes,
  };
}

function camerasIn({ features }: LeRobotInfo): Feature[] {
  return [...features.values()].filter(({ dtype, depth }) => !depth && /^(image|video)$/.test(dtype));
}

async function camerasOf(info: LeRobotInfo, { cameras: wanted, video }: LeRobotOptions) {
  const named = camerasIn(info).map((feature) => ({
    feature,
    // Without the prefix that all cameras share.
    name: feature.key.replace(/^observation\.(images?\.)?/, ''),
  }));
  const called = (wanted: string) => named.find(({ name, feature }) => name === wanted || feature.key === wanted);
  const unknown = wanted?.find((name) => !called(name));
  if (unknown !== undefined) {
    const there = named.map(({ name }) => name).join(', ') || 'none';
    throw new InputError(`${info.file}: no camera ${quote(unknown)}; there are ${there}`);
  }
  const chosen = wanted ? wanted.map((name) => called(name)!) : named;
  const twice = chosen.find((camera, i) => chosen.indexOf(camera) < i);
  if (twice) throw new InputError(`${info.file}: camera ${quote(twice.name)} is named twice, by its feature too`);
  const videos = chosen.filter(({ feature }) => feature.dtype === 'video').map(({ name }) => name);
  const frames = videos.length > 0 ? await video(videos) : null;
  return chosen.map((camera) => ({ ...camera, video: camera.feature.dtype === 'video' ? frames : null }));
}

class Reader {
  readonly action: Feature;
  readonly state: Feature | null;
  readonly #images = new ImageCache();
  readonly #loaded = new MemoryCache<Episode>(
    EPISODE_CACHE_BYTES,
    ({ actions, states }) => actions.byteLength + (states?.byteLength ?? 0),
  );

  /** The instructions of each episode by its index. */
  instructions: ReadonlyMap<number, EpisodeInstructions> = new Map();
  /** The episodes with rows and times that were checked and are right. */
  readonly #checked = new Set<number>();

  constructor(
    private readonly folder: Folder,
    private readonly parquet: ParquetFolder,
    private readonly info: LeRobotInfo,
    readonly cameras: Awaited<ReturnType<typeof camerasOf>>,
  ) {
    const action = this.#numbers('action', 'actions');
    if (!action) throw new InputError(`${info.file}: no feature "action" or "actions" with numbers`);
    this.action = action;
    this.state = this.#numbers('observation.state', 'state');
  }

  #numbers(...keys: string[]): Feature | null {
    const found = keys.map((key) => this.info.features.get(key)).find((feature) => feature);
    if (!found) return null;
    const width = widthOf(found);
    if (!/^(float|int|uint|bool)/.test(found.dtype) || width < 1 || width > 4096) {
      const had = `dtype ${quote(found.dtype)} and shape ${quote(found.shape)}`;
      throw new InputError(
        `${this.info.file}: feature "${found.key}" has ${had}; numbers were expected, 1 to 4096 a row`,
      );
    }
    return found;
  }

  listed(place: EpisodePlace): Episode {
    return onDisk(this.#common(place), () => this.#loaded.get(idOf(place), () => this.load(place)));
  }

  async load(place: EpisodePlace): Promise<Episode> {
    const file = await this.parquet.open(place.file);
    const { from, length, index } = place;
    if (this.info.version.startsWith('2') && file.rows !== length) {
      throw new InputError(`${file.name}: has ${file.rows} rows, meta/episodes.jsonl says ${length} steps`);
    }
    const table = (feature: Feature) => this.#table(file, feature, place);
    const [actions, states] = await Promise.all([table(this.action), this.state && table(this.state)]);
    if (!this.#checked.has(index)) await this.#check(file, from, length, index);
    this.#checked.add(index);
    return { ...this.#common(place), actions, states };
  }

  #common(place: EpisodePlace) {
    const { all, at } = this.instructions.get(place.index)!;
    return {
      id: idOf(place),
      length: place.length,
      instructions: all,
      ...(at && { instructionsAt: (step: number) => at[step] }),
      cameras: this.cameras.map(({ name }) => name),
      ...imagesAt(this.#images, place.length, (camera, step) => this.#imagePlace(place, camera, step)),
    };
  }

  async #table(file: ParquetFile, feature: Feature, { from, length, index }: EpisodePlace): Promise<Float32Array> {
    const width = widthOf(feature);
    const values = await file.numbers(feature.key, from, from + length, width, Float32Array);
    checkFinite(values, width, file.name, `episode ${index}: column "${feature.key}"`);
    return values;
  }

  /** Checks that the rows belong to the episode, and that their times agree with the rate. */
  async #check(file: ParquetFile, from: number, length: number, index: number): Promise<void> {
    if (file.has('episode_index')) {
      const owners = await file.numbers('episode_index', from, from + length, 1, Float64Array);
      const other = owners.findIndex((owner) => owner !== index);
      if (other >= 0) {
        const found = `column "episode_index" is ${owners[other]} in row ${from + other}`;
        throw new InputError(`${file.name}: ${found}, episode ${index} was expected there`);
      }
    }
    if (!file.has('timestamp') || length < 2) return;
    const times = await file.numbers('timestamp', from, from + length, 1, Float64Array);
    const step = (times[length - 1] - times[0]) / (length - 1);
    if (!(Math.abs(step * this.info.rate - 1) < RATE_TOLERANCE)) {
      const found = `"timestamp" advances by ${Number(step.toPrecision(4))} s a step, meta/info.json says fps ${this.info.rate}`;
      throw new InputError(`${file.name}: episode ${index}: ${found}: correct it, or leave out the episode`);
    }
  }

  #imagePlace(place: EpisodePlace, name: string, step: number): ImagePlace | null {
    const camera = this.cameras.find((own) => own.name === name);
    if (!camera) return null;
    const { feature, video } = camera;
    const { index, length } = place;
    const key = `${feature.key}:${index}:${step}`;
    if (video) {
      const clip = { ...place.videos.get(feature.key)!, length, rate: this.info.rate, what: `episode ${index}` };
      return { key, frame: () => video.frame(clip, step) };
    }
    const what = `the image of episode ${index}, step ${step}, camera "${name}"`;
    return { key, what, read: () => this.#imageBytes(place, feature.key, step, what) };
  }

  /** Reads an image from the parquet file, or from a file of a fixed name beside it. */
  async #imageBytes(place: EpisodePlace, key: string, step: number, what: string) {
    const file = await this.parquet.open(place.file);
    const held = file.has(key) ? await file.bytes(key, place.from + step, 'bytes') : null;
    if (held) return { bytes: new Uint8Array(held), file: file.name };
    const values = { image_key: key, episode_index: place.index, frame_index: step };
    const pattern = 'images/{image_key}/episode_{episode_index:06d}/frame_{frame_index:06d}.png';
    return readImage(this.folder.open(formatPath(pattern, values, this.info.file)), what);
  }
}

const idOf = ({ index }: EpisodePlace) => `episode_${String(index).padStart(6, '0')}`;
