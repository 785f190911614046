/**
 * The project's own data folder, one index of several data sets:
 * - `index.json`: `{ format: 1, datasets: { NAME: { control_hz, actions, action_names?, images?, episodes: [{ id, steps, language?,
 *   language_alternatives? }] } } }`, where `actions` is a safetensors file and `images` a path without its ending;
 * - the actions file: float tensors `EPISODE/action` [steps, actionDimension], `EPISODE/state` [steps, stateDimension], and others. If
 *   actions were derived from the next state, there is one action less than there are states;
 * - an image pack: `IMAGES.pack`, image files one after the other, and their list `IMAGES.json`: `{ columns, items }` with the columns
 *   episode, step, camera, offset and length.
 */
import * as v from 'valibot';
import { type Folder, readJson } from '../../../engine/files/bytes.ts';
import { InputError, quote } from '../../../engine/files/errors.ts';
import { checked, count } from '../../../engine/files/json-schema.ts';
import { nearest } from '../../../engine/files/nearest.ts';
import { readSafetensors, type SafetensorsFile } from '../../../engine/files/safetensors.ts';
import { openImagePack } from '../image-pack.ts';
import { productOf } from './pixels.ts';
import type { Importer, Source, SourceEpisode } from './source.ts';
import { type FoundField, type UsePatterns, withUses } from './uses.ts';

const indexSchema = v.object({ format: v.literal(1), datasets: v.record(v.string(), v.unknown()) });
const text = v.pipe(v.string(), v.nonEmpty('a text'));
const listingSchema = v.looseObject({
  id: text,
  steps: count(1),
  language: v.nullish(v.string(), ''),
  language_alternatives: v.nullish(v.string(), ''),
});
const entrySchema = v.object({
  control_hz: v.pipe(v.number(), v.gtValue(0)),
  actions: text,
  action_names: v.optional(v.array(v.string())),
  images: v.optional(text),
  episodes: v.pipe(v.array(listingSchema), v.nonEmpty('a list of at least one episode')),
});
type Listing = v.InferOutput<typeof listingSchema>;

const uses: UsePatterns = [
  ['action', 'numbers', /^action$/],
  ['state', 'numbers', /^state$/],
  ['language', 'texts', /^language/],
  ['camera', 'pictures', /^images/],
];

/** The pictures of an episode and a camera, in the order of their steps. */
type Packed = Record<'step' | 'offset' | 'length', number>[];
const keyOf = (episode: string, camera: string) => JSON.stringify([episode, camera]);

export const indexedImporter: Importer = {
  format: 'data folder with index.json',
  version: 2,
  recognises: async (folder) => (await folder.list()).includes('index.json'),
  async open(folder, options) {
    const { where, name, entry } = await findEntry(folder, options.name);
    const { control_hz, actions: path, action_names, images, episodes } = entry;
    const ids = new Set(episodes.map(({ id }) => id));
    if (ids.size !== episodes.length) throw new InputError(`${where} lists an episode twice`);
    const pack = images && options.pictures !== false ? await readPack(folder, images, ids) : new Map<string, Packed>();
    const tensors = await readSafetensors(await folder.open(path));
    await tensors.close();
    const found = new Map<string, FoundField>();
    const note = (field: FoundField) => found.set(field.name, field);
    for (const { name, shape } of tensors.tensors.values()) {
      const slash = name.lastIndexOf('/');
      if (ids.has(name.slice(0, slash)))
        note({ name: name.slice(slash + 1), kind: 'numbers', shape: [productOf(shape.slice(1))] });
      else note({ name, kind: 'other', reason: 'a tensor of no episode of the index' });
    }
    const width = found.get('action')?.shape?.[0];
    if (action_names && action_names.length !== width)
      throw new InputError(`${where}: "action_names": expected ${width} texts, got ${quote(action_names)}`);
    const names = action_names && { names: action_names };
    if (width !== undefined) note({ ...found.get('action'), name: 'action', kind: 'numbers', ...names });
    for (const name of ['language', 'language_alternatives']) note({ name, kind: 'texts' });
    for (const key of pack.keys()) {
      const [, camera] = JSON.parse(key);
      note({ name: `images/${camera}`, kind: 'pictures', camera });
    }
    for (const own of episodes.flatMap(Object.keys))
      if (!Object.hasOwn(listingSchema.entries, own))
        note({ name: `episodes/${own}`, kind: 'other', reason: 'not read from the index' });
    return {
      kind: 'data folder with index.json',
      name,
      rate: { stated: control_hz },
      count: episodes.length,
      fields: withUses([...found.values()], uses),
      async *episodes(first) {
        const file = await readSafetensors(await folder.open(path));
        try {
          for (const listing of episodes.slice(first))
            yield episodeOf(listing, file, pack, `${images}.pack`, width !== undefined);
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
  const json = await readJson(source).finally(() => source.close());
  const { datasets } = checked(indexSchema, json, source.name);
  const names = Object.keys(datasets);
  if (chosen === undefined && names.length !== 1)
    throw new InputError(`${source.name}: which data set? Name one with --dataset: ${names.join(', ')}`);
  const name = chosen ?? names[0];
  if (!Object.hasOwn(datasets, name))
    throw new InputError(`${source.name}: no data set ${quote(name)}; ${nearest(name, names)}`);
  const where = `${source.name}: data set ${quote(name)}`;
  return { name, where, entry: checked(entrySchema, datasets[name], where) };
}

function episodeOf(
  { id, steps, language, language_alternatives: others }: Listing,
  file: SafetensorsFile,
  images: ReadonlyMap<string, Packed>,
  pack: string,
  hasActions: boolean,
): SourceEpisode {
  const fail = (complaint: string) => new InputError(`${file.name}: episode ${quote(id)}: ${complaint}`);
  const rowsOf = (field: string) => {
    const { shape } = file.entry(`${id}/${field}`);
    if (shape.length === 0 || shape.includes(0))
      throw fail(`tensor ${quote(field)} has shape ${quote(shape)}, [steps, dimension] was expected`);
    return shape[0];
  };
  const length = hasActions ? rowsOf('action') : steps;
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
      if (rows < length || rows > length + 1)
        throw fail(`it has ${length} actions and ${rows} rows of ${quote(field)}`);
      const name = `${id}/${field}`;
      const { dtype } = file.entry(name);
      const part = { rows: [0, length] as const };
      if (['F32', 'F16', 'BF16'].includes(dtype)) return file.readFloat32(name, part);
      return Float64Array.from((await file.read(name, dtype, part)) as Float64Array, Number);
    },
    // The alternatives are the sentences of one text.
    texts: async (field) => [field === 'language' ? [language.trim()] : others.split(/\.(?:\s+|$)/)],
    async pictures(field) {
      const own = images.get(keyOf(id, field.slice('images/'.length)));
      if (!own) return null;
      const [starts, ends] = [own.map(({ offset }) => offset), own.map(({ offset, length }) => offset + length)];
      const steps = Uint32Array.from(own, ({ step }) => step);
      return { kind: 'ranges', file: pack, starts: Float64Array.from(starts), ends: Float64Array.from(ends), steps };
    },
  };
}

/** Reads the list of an image pack. @throws InputError if an item is not of an episode of the index, or the pack is cut off */
async function readPack(folder: Folder, path: string, ids: ReadonlySet<string>) {
  const columns = ['episode', 'step', 'camera', 'offset', 'length'];
  const { list, pack, items } = await openImagePack(folder, path, columns);
  const found = new Map<string, Packed>();
  for (const [number, { item, values }] of items.entries()) {
    const [episode, step, camera, offset, length] = values;
    const sizes = [step, offset, length].every((size) => Number.isSafeInteger(size) && size >= 0);
    const what = `${list}: item ${number}, ${quote(item)}`;
    if (typeof camera !== 'string' || !ids.has(episode) || !sizes)
      throw new InputError(`${what} is not an image of an episode of the index`);
    if (offset + length > pack.size)
      throw new InputError(`${pack.name}: cut off: it has ${pack.size} bytes, and ${what} ends at ${offset + length}`);
    const key = keyOf(episode, camera);
    if (!found.has(key)) found.set(key, []);
    found.get(key)!.push({ step, offset, length });
  }
  for (const images of found.values()) images.sort((a, b) => a.step - b.step);
  return found;
}
