/**
 * The project's own data folder, one index of several data sets:
 * - `index.json`: `{ format: 1, datasets: { NAME: { control_hz, actions, action_names?, images?, episodes: [{ id, steps, language?,
 *   language_alternatives? }] } } }`, where `actions` is a safetensors file and `images` a path without its ending;
 * - the actions file: float tensors `EPISODE/action` [steps, actionDimension], `EPISODE/state` [steps, stateDimension], and others. If
 *   actions were derived from the next state, there is one action less than there are states;
 * - an image pack: `IMAGES.pack`, image files one after the other, and their list `IMAGES.json`: `{ columns, items }` with the columns
 *   episode, step, camera, offset and length.
 */
import type { Folder } from '../../../engine/files/bytes.ts';
import { counted, InputError, quote } from '../../../engine/files/errors.ts';
import { nearest } from '../../../engine/files/nearest.ts';
import { readSafetensors, type SafetensorsFile } from '../../../engine/files/safetensors.ts';
import { openImagePack } from '../image-pack.ts';
import { asCount, asObject, asOptionalText, asText, readJsonObject, unexpected } from '../json.ts';
import type { Importer, Source, SourceEpisode, SourceField } from './source.ts';

/** The position of one image in the pack, and its control step. */
interface PackedImage {
  readonly step: number;
  readonly offset: number;
  readonly length: number;
}

/** The images by episode and camera, in the order of their steps. */
type Pack = ReadonlyMap<string, ReadonlyMap<string, readonly PackedImage[]>>;

export const indexedImporter: Importer = {
  format: 'data folder with index.json',
  version: 1,
  recognises: async (folder) => (await folder.list()).includes('index.json'),
  async open(folder, options) {
    const { file, name, entry } = await findEntry(folder, options.name);
    const where = `data set ${quote(name)}`;
    const rate = entry.control_hz;
    if (typeof rate !== 'number' || !(rate > 0))
      throw unexpected(rate, file, `${where}: "control_hz"`, 'a number above 0');
    if (!Array.isArray(entry.episodes) || entry.episodes.length === 0)
      throw unexpected(entry.episodes, file, `${where}: "episodes"`, 'a list of at least one episode');
    const listed = entry.episodes.map((item, i) => readListing(item, file, `${where}, episode number ${i}`));
    const ids = new Set(listed.map(({ id }) => id));
    if (ids.size !== listed.length) throw new InputError(`${file}: ${where} lists an episode twice`);
    const images = entry.images === undefined ? '' : asText(entry.images, file, `${where}: "images"`);
    const pack: Pack = images === '' || options.pictures === false ? new Map() : await readPack(folder, images, ids);
    const path = asText(entry.actions, file, `${where}: "actions"`);
    const tensors = await readSafetensors(await folder.open(path));
    await tensors.close();
    const cameras = new Set([...pack.values()].flatMap((own) => [...own.keys()]));
    const unread = new Set(listed.flatMap(({ unread }) => unread));
    return {
      kind: 'data folder with index.json',
      name,
      rate: { stated: rate },
      count: listed.length,
      fields: [
        ...tensorFields(tensors, ids, entry.action_names, `${file}: ${where}`),
        ...['language', 'language_alternatives'].map((own) => ({ name: own, kind: 'texts', use: 'language' }) as const),
        ...[...cameras].map(
          (camera) => ({ name: `images/${camera}`, kind: 'pictures', use: 'camera', camera }) as const,
        ),
        ...[...unread].map(
          (own) => ({ name: `episodes/${own}`, kind: 'other', use: null, reason: 'not read from the index' }) as const,
        ),
      ],
      async *episodes(first) {
        const file = await readSafetensors(await folder.open(path));
        try {
          for (const listing of listed.slice(first))
            yield episodeOf(listing, file, pack.get(listing.id), `${images}.pack`);
        } finally {
          await file.close();
        }
      },
    } satisfies Source;
  },
};

/** Finds the entry of a data set in the index. @throws InputError that lists the sets, if it is not there */
async function findEntry(folder: Folder, chosen: string | undefined) {
  const source = await folder.open('index.json');
  const index = await readJsonObject(source);
  const file = source.name;
  const datasets = asObject(index.datasets, file, '"datasets"');
  if (index.format !== 1) throw new InputError(`${file}: format ${quote(index.format)}, format 1 was expected`);
  const names = Object.keys(datasets);
  if (chosen === undefined && names.length !== 1)
    throw new InputError(`${file}: which data set? Name one with --dataset: ${names.join(', ')}`);
  const name = chosen ?? names[0];
  if (!Object.hasOwn(datasets, name))
    throw new InputError(`${file}: no data set ${quote(name)}; ${nearest(name, names)}`);
  return { file, name, entry: asObject(datasets[name], file, `data set ${quote(name)}`) };
}

function readListing(item: unknown, file: string, where: string) {
  const { id, steps, language, language_alternatives: others, ...unread } = asObject(item, file, where);
  return {
    id: asText(id, file, `${where}: "id"`),
    steps: asCount(steps, file, `${where}: "steps"`, 1),
    language: [asOptionalText(language, file, `${where}: "language"`)],
    // The alternatives are the sentences of one text.
    language_alternatives: asOptionalText(others, file, `${where}: "language_alternatives"`).split(/\.(?:\s+|$)/),
    unread: Object.keys(unread),
  };
}

type Listing = ReturnType<typeof readListing>;

/** The fields of the tensors `EPISODE/FIELD`, and the tensors of no episode. */
function tensorFields({ tensors }: SafetensorsFile, ids: ReadonlySet<string>, names: unknown, where: string) {
  const fields = new Map<string, { field: SourceField; count: number }>();
  for (const { name, shape } of tensors.values()) {
    const slash = name.lastIndexOf('/');
    const [id, own] = [name.slice(0, slash), name.slice(slash + 1)];
    const use = own === 'action' || own === 'state' ? own : null;
    const field: SourceField = ids.has(id)
      ? { name: own, kind: 'numbers', shape: [shape.slice(1).reduce((product, size) => product * size, 1)], use }
      : { name, kind: 'other', use: null, reason: 'a tensor of no episode of the index' };
    fields.set(field.name, { field, ...fields.get(field.name), count: (fields.get(field.name)?.count ?? 0) + 1 });
  }
  return [...fields.values()].map(({ field, count }): SourceField => {
    const missing = count < ids.size ? `${count} of ${counted(ids.size, 'episode')} have it` : undefined;
    const reason = field.reason ?? missing ?? (field.use ? undefined : 'its name says no use: --map gives it one');
    if (field.use !== 'action' || names === undefined) return { ...field, reason };
    const width = field.shape?.[0];
    if (!Array.isArray(names) || names.length !== width || !names.every((name) => typeof name === 'string'))
      throw new InputError(`${where}: "action_names": expected a list of ${width} texts, got ${quote(names)}`);
    return { ...field, names, reason };
  });
}

function episodeOf(
  { id, steps, ...texts }: Listing,
  file: SafetensorsFile,
  images: ReadonlyMap<string, readonly PackedImage[]> | undefined,
  pack: string,
): SourceEpisode {
  const fail = (complaint: string) => new InputError(`${file.name}: episode ${quote(id)}: ${complaint}`);
  const rowsOf = (field: string) => {
    const { shape } = file.entry(`${id}/${field}`);
    if (shape.length === 0 || shape.includes(0))
      throw fail(`tensor ${quote(field)} has shape ${quote(shape)}, [steps, dimension] was expected`);
    return shape[0];
  };
  const length = rowsOf('action');
  // Actions that were derived from the next state are one less than the states.
  const most = file.has(`${id}/state`) ? rowsOf('state') : length;
  if (length !== steps && most !== steps) throw fail(`it has ${length} actions, the index says ${steps} steps`);
  return {
    id,
    length,
    where: `${file.name}, tensors ${quote(`${id}/...`)}`,
    async numbers(field) {
      if (!file.has(`${id}/${field}`)) return new Float32Array(0);
      const rows = rowsOf(field);
      if (rows < length) throw fail(`it has ${length} actions but only ${rows} rows of ${quote(field)}`);
      if (rows > length + 1) throw fail(`it has ${length} actions and ${rows} rows of ${quote(field)}`);
      const name = `${id}/${field}`;
      const { dtype } = file.entry(name);
      const part = { rows: [0, length] as const };
      if (['F32', 'F16', 'BF16'].includes(dtype)) return file.readFloat32(name, part);
      return Float64Array.from((await file.read(name, dtype, part)) as Float64Array, Number);
    },
    texts: async (field) => [texts[field as 'language']],
    async pictures(field) {
      const own = images?.get(field.slice('images/'.length));
      if (!own) return null;
      const [starts, ends] = [own.map(({ offset }) => offset), own.map(({ offset, length }) => offset + length)];
      const steps = Uint32Array.from(own, ({ step }) => step);
      return { kind: 'ranges', file: pack, starts: Float64Array.from(starts), ends: Float64Array.from(ends), steps };
    },
  };
}

/** Reads the list of an image pack. @throws InputError if an item is not of an episode of the index, or the pack is cut off */
async function readPack(folder: Folder, path: string, ids: ReadonlySet<string>): Promise<Pack> {
  const columns = ['episode', 'step', 'camera', 'offset', 'length'];
  const { list, pack, items } = await openImagePack(folder, path, columns);
  const episodes = new Map<string, Map<string, PackedImage[]>>();
  for (const [number, { item, values }] of items.entries()) {
    const [episode, step, camera, offset, length] = values;
    const sizes = [step, offset, length].every((size) => Number.isSafeInteger(size) && size >= 0);
    if (typeof camera !== 'string' || !ids.has(episode) || !sizes)
      throw new InputError(`${list}: item ${number} is not an image of an episode of the index: ${quote(item)}`);
    if (offset + length > pack.size)
      throw new InputError(
        `${pack.name}: cut off: the image of episode ${quote(episode)}, step ${step}, camera ${quote(camera)} ends at byte ${offset + length}, the file at ${pack.size}`,
      );
    const own = episodes.get(episode) ?? new Map<string, PackedImage[]>();
    const images = own.get(camera) ?? [];
    images.push({ step, offset, length });
    episodes.set(episode, own.set(camera, images));
  }
  for (const own of episodes.values()) for (const images of own.values()) images.sort((a, b) => a.step - b.step);
  return episodes;
}
