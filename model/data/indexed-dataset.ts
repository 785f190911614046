import type { Folder } from '../../engine/files/bytes.ts';
import { InputError, quote } from '../../engine/files/errors.ts';
import { nearest } from '../../engine/files/nearest.ts';
import { readSafetensors, type SafetensorsFile } from '../../engine/files/safetensors.ts';
import { checkFinite } from './assemble.ts';
import type { Dataset, Episode } from './dataset.ts';
import { firstWhere } from './first-where.ts';
import { ImageCache, imagesAt } from './image-files.ts';
import { openImagePack } from './image-pack.ts';
import { asObject, asOptionalText, asText, readJsonObject, unexpected } from './json.ts';
import { instructionsAmong } from './parts.ts';

/**
 * This file reads data folders with one index of several data sets:
 * - `index.json`: `{ format: 1, datasets: { NAME: { control_hz, actions, action_names?, images?, episodes: [{ id, steps,
 *   language?, language_alternatives? }] } } }`, where `actions` is a safetensors file and `images` a path without its ending;
 * - the actions file: float tensors `EPISODE/action` [steps, actionDimension] and `EPISODE/state` [steps,
 *   stateDimension]. If actions were derived from the next state, there is one action less than there are states;
 * - an image pack (image-pack.ts) with the columns episode, step and camera.
 */

/** The position of one image in the pack, and its control step. */
interface PackedImage {
  readonly step: number;
  readonly offset: number;
  readonly length: number;
}

/** The images of one episode by camera, in the order of their steps. */
type EpisodeImages = ReadonlyMap<string, readonly PackedImage[]>;

/**
 * Opens one data set of a folder: the numbers are read and checked now, an image when it is requested.
 *
 * @param chosen the data set's name; it may be left out if there is only one
 * @param images false ignores the images, so that their files need not exist
 * @throws InputError if the folder has no index or no such data set (the message lists those that exist), a file is
 *   missing, cut off or damaged, or a number is not finite (file, episode, tensor and step are named)
 */
export async function openIndexedDataset(
  folder: Folder,
  chosen?: string,
  { images = true }: { readonly images?: boolean } = {},
): Promise<Dataset> {
  const indexFile = await folder.open('index.json').catch((error) => {
    throw error instanceof InputError ? new InputError(`${error.message}; a data folder has this file`) : error;
  });
  const index = await readJsonObject(indexFile);
  const datasets = asObject(index.datasets, indexFile.name, '"datasets"');
  if (index.format !== 1)
    throw new InputError(`${indexFile.name}: format ${quote(index.format)}, format 1 was expected`);
  const names = Object.keys(datasets);
  if (chosen === undefined && names.length !== 1) {
    throw new InputError(`${indexFile.name}: which data set? Name one with --dataset: ${names.join(', ')}`);
  }
  const name = chosen ?? names[0];
  if (!Object.hasOwn(datasets, name)) {
    throw new InputError(`${indexFile.name}: no data set "${name}"; ${nearest(name, names)}`);
  }
  const where = `data set "${name}"`;
  const entry = asObject(datasets[name], indexFile.name, where);
  const rate = entry.control_hz;
  if (typeof rate !== 'number' || !(rate > 0))
    throw unexpected(rate, indexFile.name, `${where}: "control_hz"`, 'a number above 0');
  if (!Array.isArray(entry.episodes) || entry.episodes.length === 0) {
    throw unexpected(entry.episodes, indexFile.name, `${where}: "episodes"`, 'a list of at least one episode');
  }
  const listed = entry.episodes.map((item, i) => readListing(item, indexFile.name, `${where}, episode number ${i}`));
  const ids = new Set(listed.map(({ id }) => id));
  if (ids.size !== listed.length) throw new InputError(`${indexFile.name}: ${where} lists an episode twice`);

  const pack =
    entry.images === undefined || !images
      ? null
      : await openPack(folder, asText(entry.images, indexFile.name, `${where}: "images"`), ids);
  const file = await readSafetensors(await folder.open(asText(entry.actions, indexFile.name, `${where}: "actions"`)));
  try {
    const reader = new EpisodeReader(file, pack);
    const episodes: Episode[] = [];
    for (const listing of listed) episodes.push(await reader.read(listing));
    const { actionDimension, stateDimension } = reader;
    const steps = episodes.reduce((sum, { length }) => sum + length, 0);
    const cameras = pack?.cameras ?? [];
    const none = entry.images === undefined || images ? ', no cameras' : ', cameras not read';
    const seen = cameras.length > 0 ? `, cameras ${cameras.join(', ')}` : none;
    const description = `data folder with index.json: ${episodes.length} episodes, ${steps} steps at ${rate} Hz${seen}`;
    const actionNames = actionNamesOf(entry.action_names, actionDimension, indexFile.name, where);
    return { name, description, rate, actionNames, actionDimension, stateDimension, cameras, episodes };
  } finally {
    await file.close();
  }
}

function actionNamesOf(names: unknown, dimension: number, file: string, where: string): string[] | undefined {
  if (names === undefined) return undefined;
  if (!Array.isArray(names) || names.length !== dimension || !names.every((name) => typeof name === 'string'))
    throw unexpected(names, file, `${where}: "action_names"`, `a list of ${dimension} texts`);
  return names;
}

function readListing(item: unknown, file: string, where: string) {
  const { id, steps, language, language_alternatives: others } = asObject(item, file, where);
  if (typeof steps !== 'number' || !Number.isInteger(steps) || steps < 1)
    throw unexpected(steps, file, `${where}: "steps"`, 'a whole number from 1');
  const first = asOptionalText(language, file, `${where}: "language"`);
  // The alternatives are the sentences of one text.
  const sentences = asOptionalText(others, file, `${where}: "language_alternatives"`).split(/\.(?:\s+|$)/);
  return { id: asText(id, file, `${where}: "id"`), steps, instructions: instructionsAmong([first, ...sentences]) };
}

class EpisodeReader {
  actionDimension = 0;
  stateDimension = 0;

  constructor(
    private readonly file: SafetensorsFile,
    private readonly pack: Awaited<ReturnType<typeof openPack>> | null,
  ) {}

  async read({ id, steps, instructions }: ReturnType<typeof readListing>): Promise<Episode> {
    const actions = await this.#table(id, 'action');
    const states = this.file.has(`${id}/state`) ? await this.#table(id, 'state') : null;
    const length = actions.rows;
    if (length !== steps && states?.rows !== steps) {
      throw this.#error(id, `has ${length} actions, the index says ${steps} steps`);
    }
    if (states && states.rows < length) throw this.#error(id, `has ${length} actions but only ${states.rows} states`);
    this.actionDimension = this.#sameDimension(id, 'action', actions.dimension, this.actionDimension);
    if (states) this.stateDimension = this.#sameDimension(id, 'state', states.dimension, this.stateDimension);
    const { pack } = this;
    const images: EpisodeImages = pack?.episodes.get(id) ?? new Map();
    return {
      id,
      length,
      actions: actions.values,
      states: states?.values.subarray(0, length * states.dimension) ?? null,
      instructions,
      cameras: pack?.cameras.filter((camera) => images.has(camera)) ?? [],
      image: async () => null,
      ...(pack &&
        imagesAt(pack.cache, Number.POSITIVE_INFINITY, (camera, step) => {
          const own = images.get(camera) ?? [];
          const newest: PackedImage | undefined = own[firstWhere(own.length, (i) => own[i].step > step) - 1];
          return newest ? pack.place(newest.offset, newest.length, imageName(id, newest.step, camera)) : null;
        })),
    };
  }

  async #table(id: string, field: string): Promise<{ values: Float32Array; rows: number; dimension: number }> {
    const name = `${id}/${field}`;
    const { shape } = this.file.entry(name);
    if (shape.length !== 2 || shape[0] === 0 || shape[1] === 0) {
      throw new InputError(
        `${this.file.name}: tensor ${quote(name)} has shape ${quote(shape)}, [steps, dimension] was expected`,
      );
    }
    const [rows, dimension] = shape;
    const values = await this.file.readFloat32(name);
    checkFinite(values, dimension, this.file.name, `episode ${quote(id)}: tensor "${field}"`);
    return { values, rows, dimension };
  }

  #sameDimension(id: string, field: string, dimension: number, before: number): number {
    if (before !== 0 && dimension !== before) {
      throw this.#error(
        id,
        `has ${field} dimension ${dimension}, the episodes before it ${before}: a data set has one`,
      );
    }
    return dimension;
  }

  #error(id: string, complaint: string): InputError {
    return new InputError(`${this.file.name}: episode ${quote(id)}: ${complaint}`);
  }
}

async function openPack(folder: Folder, path: string, ids: ReadonlySet<string>) {
  const columns = ['episode', 'step', 'camera', 'offset', 'length'];
  const { list, pack, items, place } = await openImagePack(folder, path, columns);
  const cameras = new Set<string>();
  const episodes = new Map<string, Map<string, PackedImage[]>>();
  for (const [number, { item, values }] of items.entries()) {
    const [episode, step, camera, offset, length] = values;
    const sizes = [step, offset, length];
    if (
      typeof camera !== 'string' ||
      !ids.has(episode) ||
      !sizes.every((size) => Number.isSafeInteger(size) && size >= 0)
    ) {
      throw new InputError(`${list}: item ${number} is not an image of an episode of the index: ${quote(item)}`);
    }
    if (offset + length > pack.size) {
      throw new InputError(
        `${pack.name}: cut off: ${imageName(episode, step, camera)} ends at byte ${offset + length}, the file at ${pack.size}`,
      );
    }
    cameras.add(camera);
    const ofEpisode = episodes.get(episode) ?? new Map<string, PackedImage[]>();
    episodes.set(episode, ofEpisode);
    const images = ofEpisode.get(camera) ?? [];
    ofEpisode.set(camera, images);
    images.push({ step, offset, length });
  }
  for (const ofEpisode of episodes.values())
    for (const images of ofEpisode.values()) images.sort((a, b) => a.step - b.step);
  return { cameras: [...cameras], episodes, cache: new ImageCache(), place };
}

const imageName = (episode: string, step: number, camera: string) =>
  `the image of episode ${quote(episode)}, step ${step}, camera ${quote(camera)}`;
