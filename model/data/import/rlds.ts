/**
 * RLDS in TFRecord files, as tensorflow-datasets writes them and Open X-Embodiment has them: a record is an episode, a feature holds the
 * values of all steps. `dataset_info.json` lists splits and shards, `features.json` types and shapes.
 */
import * as v from 'valibot';
import { counted, InputError, quote } from '../../../engine/files/errors.ts';
import { checked, count } from '../../../engine/files/json-schema.ts';
import { imageTypeOf, isDepthImage } from '../image-header.ts';
import { readJsonObject } from '../json.ts';
import { productOf } from './pixels.ts';
import { type Description, readDescription } from './rlds-features.ts';
import type { Importer, ListedFolder, Source, SourceEpisode } from './source.ts';
import { type Feature, readExample, readRecords } from './tfrecord.ts';
import { type FoundField, type UsePatterns, withUses } from './uses.ts';

/** The control rates of well-known sets in Hz, which their files do not state. */
const rates: Readonly<Record<string, number>> = {
  bridge: 5,
  bridge_dataset: 5,
  bridge_orig: 5,
  droid: 15,
  fractal20220817_data: 3,
};

const uses: UsePatterns = [
  ['action', 'numbers', /^steps\/action$/],
  [
    'state',
    'numbers',
    /^steps\/observation\/state$/,
    /^steps\/observation\/(.+[/_])?(state|proprio)s?([/_].+)?$/,
    // DROID has no state in one piece.
    /^steps\/observation\/(joint|gripper)_position$/,
  ],
  ['language', 'texts', /^steps\/language_instruction(_\d+)?$/, /(^|\/)(natural_)?language_instruction(_\d+)?$/],
  ['subtask', 'texts', /^steps\/(observation\/)?subtask$/],
  ['time', 'numbers', /^steps\/(observation\/)?timestamp$/],
  ['camera', 'pictures', /^steps\//],
];

/** Why features of some names have no use. */
const reasons: readonly (readonly [RegExp, string])[] = [
  [/^steps\/action\//, 'a part of an action that is a dictionary: choose the parts and their order with --map'],
  [/^steps\/is_(first|last|terminal)$/, 'a mark of the beginning or end'],
  [/^steps\/(reward|discount)$/, 'no part of imitation'],
  [/embedding/, 'an embedding, not the words themselves'],
];

/** The features that hold one value for each step, by which steps are counted. */
const counters = ['steps/is_first', 'steps/is_last', 'steps/is_terminal'];
const byNumber = new Intl.Collator('en', { numeric: true }).compare;
const ragged = /\/ragged_(flat_values|row_lengths_\d+)$/;

const infoSchema = v.object({
  name: v.pipe(v.string(), v.nonEmpty('a name')),
  fileFormat: v.nullish(v.string(), 'tfrecord'),
  splits: v.array(
    v.object({
      name: v.string(),
      shardLengths: v.array(v.pipe(v.union([v.string(), v.number()]), v.transform(Number), count())),
    }),
  ),
});

/** A file, and the places of its records. */
interface Shard {
  readonly path: string;
  readonly records: Awaited<ReturnType<typeof readRecords>>;
}

/** An episode as it was read; its record begins at byte `start` of its file. */
interface Read extends Record<'path' | 'where' | 'id', string>, Record<'start' | 'length', number> {
  readonly features: ReadonlyMap<string, Feature>;
}

export const rldsImporter: Importer = {
  format: 'RLDS',
  version: 4,
  recognises: async (folder) => (await folder.list()).includes('dataset_info.json'),
  async open(folder, options) {
    const source = await folder.open('dataset_info.json');
    const info = checked(infoSchema, await readJsonObject(source), source.name);
    const { split, paths, others } = findShards(info, source.name, options.name);
    const shards: Shard[] = [];
    for (const { path, count } of paths) {
      const shard = await folder.open(path);
      const records = await readRecords(shard).finally(() => shard.close());
      if (records.length !== count)
        throw new InputError(`${shard.name}: ${counted(records.length, 'record')}, dataset_info.json says ${count}`);
      shards.push({ path, records });
    }
    const described = await readDescription(folder);
    const found = await findFields(episodesOf(folder, split, shards, 0), described);
    const known = new Set(found.map(({ name }) => name));
    const other = (name: string, reason: string) => found.push({ name, kind: 'other', reason });
    for (const name of others) other(`split ${name}`, 'another split: open it with --dataset');
    const used = ['dataset_info.json', 'features.json', ...paths.map(({ path }) => path)];
    for (const path of await folder.list())
      if (!used.includes(path) && !others.some((own) => path.startsWith(`${info.name}-${own}.`)))
        other(path, 'a file that is not read');
    const fields = withUses(found, uses, reasons);
    return {
      kind: `RLDS data set, split ${split}`,
      name: options.name ?? info.name,
      rate: { usual: Object.hasOwn(rates, info.name) ? rates[info.name] : undefined },
      fields,
      count: shards.reduce((sum, { records }) => sum + records.length, 0),
      async *episodes(first) {
        const seen = fields.filter(({ use }) => use === 'camera' || use === 'language');
        const empty = new Map(seen.map(({ name }) => [name, 0]));
        let steps = 0;
        for await (const read of episodesOf(folder, split, shards, first)) {
          const { features, length } = read;
          const fresh = [...features.keys()].find((name) => !known.has(name));
          if (fresh !== undefined)
            throw fault(read, `it has a feature ${quote(fresh)}, which the first episode has not`);
          for (const [name, before] of empty) {
            const feature = features.get(name);
            const values = feature && 'bytes' in feature ? feature.bytes : [];
            const lacking = values.filter((own) => own.length === 0).length;
            empty.set(name, before + (lacking === values.length ? length : lacking));
          }
          steps += length;
          yield episodeOf(read, described);
        }
        const part = first > 0 ? ` (from episode ${first} on)` : '';
        for (const [name, count] of empty)
          if (count > 0) options.note?.(`${name}: ${count} of ${steps} steps have none of their own${part}`);
      },
    } satisfies Source;
  },
};

/** Lists the shards of a split, and the other splits. */
function findShards({ name, fileFormat, splits }: v.InferOutput<typeof infoSchema>, file: string, chosen = name) {
  if (fileFormat !== 'tfrecord')
    throw new InputError(
      `${file}: its files are of the format ${quote(fileFormat)}, and only "tfrecord" is read: prepare the set again with file_format="tfrecord"`,
    );
  const split = chosen !== name ? chosen : splits.length === 1 ? splits[0].name : 'train';
  const own = splits.find((other) => other.name === split);
  const names = splits.map((other) => other.name);
  if (!own) throw new InputError(`${file}: no split ${quote(split)}; there are ${names.map(quote).join(', ')}`);
  if (own.shardLengths.length === 0) throw new InputError(`${file}: split ${quote(split)} has no shards`);
  const paths = own.shardLengths.map((count, i) => {
    const [shard, all] = [i, own.shardLengths.length].map((number) => String(number).padStart(5, '0'));
    const path = `${name}-${split}.tfrecord-${shard}-of-${all}`;
    if (/[\\/]/.test(path)) throw new InputError(`${file}: the path ${quote(path)} of a shard is not read here`);
    return { path, count };
  });
  return { split, paths, others: names.filter((other) => other !== split) };
}

const fault = ({ where, id }: Pick<Read, 'where' | 'id'>, complaint: string) =>
  new InputError(`${where}: episode ${id}: ${complaint}`);

/** Reads the episodes from number `first` on. */
async function* episodesOf(folder: ListedFolder, split: string, shards: readonly Shard[], first: number) {
  let number = 0;
  for (const { path, records } of shards) {
    const skipped = Math.min(records.length, Math.max(0, first - number));
    number += skipped;
    if (skipped === records.length) continue;
    const file = await folder.open(path);
    try {
      for (const [i, place] of [...records.entries()].slice(skipped)) {
        const features = await readExample(file, place);
        const names = { path, where: `${file.name}, record ${i}`, id: `${split}_${number}` };
        const length = stepsOf(features);
        if (length === 0) throw fault(names, `no feature of it says its steps, such as ${counters.join(', ')}`);
        yield { ...names, start: place.start, features, length } satisfies Read;
        number += 1;
      }
    } finally {
      await file.close();
    }
  }
}

/** Counts the steps by the values of a mark, or else of any bytes. */
function stepsOf(features: ReadonlyMap<string, Feature>): number {
  const found =
    counters.map((own) => features.get(own)).find((own) => own !== undefined) ??
    [...features].find(([name, own]) => name.startsWith('steps/') && 'bytes' in own && !ragged.test(name))?.[1];
  return found ? ('bytes' in found ? found.bytes : found.numbers).length : 0;
}

/** Finds the fields: records are read until every feature is known, which is in the first one unless values of it are empty. */
async function findFields(
  episodes: AsyncIterable<Read>,
  described: ReadonlyMap<string, Description>,
): Promise<FoundField[]> {
  const found = new Map<string, Found | null>([...described.keys()].map((name) => [name, null]));
  for await (const read of episodes) {
    for (const [name, feature] of read.features)
      if (!found.get(name)) found.set(name, kindOf(name, feature, read.length, described.get(name)));
    if (![...found.values()].includes(null)) break;
  }
  // The order of a record is that of a map of protobuf, and so no order. DROID's state is joints, then gripper.
  const late = 'steps/observation/gripper_position';
  const fresh = [...found.keys()].filter((name) => !described.has(name)).sort(byNumber);
  const names = [...described.keys(), ...fresh].sort((a, b) => +(a === late) - +(b === late));
  const empty = { kind: 'other', reason: 'it is empty, or missing, in every episode' } as const;
  return names.map((name) => ({ name, ...(found.get(name) ?? empty) }));
}

type Found = Omit<FoundField, 'name'>;

/** Decides what a feature holds by its first value, and by features.json; null if that is empty, and others may say more. */
function kindOf(
  name: string,
  feature: Feature,
  length: number,
  { type, dtype = '', shape }: Description = {},
): Found | null {
  const inSteps = name.startsWith('steps/');
  if (ragged.test(name)) return { kind: 'other', reason: 'a list of another length in each step' };
  if ('numbers' in feature) {
    if (feature.numbers.length === 0) return null;
    if (dtype === 'uint8' && shape?.length === 3)
      return { kind: 'other', reason: 'pictures as lists of numbers, not as image files' };
    if (!inSteps) return { kind: 'other', reason: 'numbers of the episode, not of its steps' };
    return {
      kind: 'numbers',
      shape: [feature.numbers.length / length],
      whole: feature.numbers instanceof Float64Array,
    };
  }
  if (type === 'tensor' && dtype !== 'string') return { kind: 'other', reason: `numbers (${dtype}) packed as bytes` };
  if (type === 'text') return { kind: 'texts' };
  const first = feature.bytes.find((value) => value.length > 0);
  if (!first && type !== 'image') return null;
  const head = first?.subarray(0, 256) ?? new Uint8Array(0);
  if (type === 'image' || imageTypeOf(head) !== 'unknown') {
    if (isDepthImage(head) || /depth/i.test(name) || (type === 'image' && dtype !== 'uint8'))
      return { kind: 'depth', shape, reason: 'depth is no colour' };
    if (!inSteps) return { kind: 'other', reason: 'a picture of the episode, not of its steps' };
    return { kind: 'pictures', shape };
  }
  return isText(head) ? { kind: 'texts' } : { kind: 'other', reason: 'bytes that are neither a picture nor text' };
}

/** Whether the beginning of a value is text in UTF-8, without control characters but tabs and ends of lines. */
function isText(head: Uint8Array): boolean {
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(head, { stream: true });
    return !/[^\P{Cc}\t\r\n]/u.test(text);
  } catch {
    return false;
  }
}

function episodeOf(read: Read, described: ReadonlyMap<string, Description>): SourceEpisode {
  const { features, start, length } = read;
  const uneven = (field: string, count: number, shape?: readonly number[]) =>
    fault(
      read,
      `feature ${quote(field)} has ${counted(count, 'value')}, which do not fit its ${length} steps${shape ? ` of shape ${quote(shape)}` : ''}`,
    );
  /** The values of bytes: as many as steps, one for the episode, or none if the episode lacks them. */
  const bytesOf = (field: string): readonly Uint8Array[] => {
    const feature = features.get(field) ?? { bytes: [] };
    if ('numbers' in feature) throw fault(read, `feature ${quote(field)} holds numbers, bytes were expected`);
    const { bytes } = feature;
    if (field.startsWith('steps/') && ![0, length].includes(bytes.length)) throw uneven(field, bytes.length);
    return bytes;
  };
  return {
    ...{ id: read.id, where: read.where, length },
    async numbers(field) {
      const feature = features.get(field);
      if (!feature) throw fault(read, `it has no feature ${quote(field)}, which other episodes have`);
      if ('bytes' in feature) throw fault(read, `feature ${quote(field)} holds bytes, numbers were expected`);
      const { numbers } = feature;
      const shape = described.get(field)?.shape;
      const even = shape ? numbers.length === length * productOf(shape) : numbers.length % length === 0;
      if (!even || numbers.length === 0) throw uneven(field, numbers.length, shape);
      return numbers;
    },
    async texts(field) {
      const texts = bytesOf(field).map((bytes, i) => {
        try {
          return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
        } catch {
          throw fault(read, `feature ${quote(field)}, value ${i} is not text in UTF-8`);
        }
      });
      return field.startsWith('steps/') && texts.length > 0 ? texts.map((text) => [text]) : [texts];
    },
    /** The image files where they lie. An empty value is none: the step shows the newest. */
    async pictures(field) {
      const values = bytesOf(field);
      const steps = Uint32Array.from(values.keys()).filter((step) => values[step].length > 0);
      if (steps.length === 0) return null;
      const starts = Float64Array.from(steps, (step) => start + values[step].byteOffset);
      const ends = starts.map((from, i) => from + values[steps[i]].length);
      return { kind: 'ranges', file: read.path, starts, ends, ...(steps.length < length && { steps }) };
    },
  };
}
