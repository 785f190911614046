/**
 * RLDS in TFRecord files, as tensorflow-datasets writes them and Open X-Embodiment has them: a record is an episode, a feature holds the
 * values of all steps. `dataset_info.json` lists splits and shards, `features.json` types and shapes.
 */
import type { ByteSource } from '../../../engine/files/bytes.ts';
import { counted, InputError, quote } from '../../../engine/files/errors.ts';
import { asCount, asObject, asText, type Json, readJsonObject, unexpected } from '../json.ts';
import type { FieldUse, Importer, ListedFolder, Source, SourceEpisode, SourceField, SourcePictures } from './source.ts';
import { checkRecord, ExampleReader, type FeaturePlace, type Place, readRecords } from './tfrecord.ts';

/** The control rates of well-known sets in Hz, which their files do not state. */
const rates: Readonly<Record<string, number>> = {
  bridge: 5,
  bridge_dataset: 5,
  bridge_orig: 5,
  droid: 15,
  fractal20220817_data: 3,
};

/** A use, the kind of its features, and patterns of names: the first pattern that any name fits counts, and all names that fit it. */
const uses: readonly (readonly [FieldUse, SourceField['kind'], ...RegExp[]])[] = [
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
const ragged = /\/ragged_(flat_values|row_lengths_\d+)$/;

/** A split: its records, each with its number in a file, and what features.json says. */
interface Split {
  readonly split: string;
  readonly records: readonly { readonly path: string; readonly place: Place; readonly number: number }[];
  readonly described: ReadonlyMap<string, Description>;
}

/** What features.json says of a feature: `image`, `text`, `tensor` and so on. */
interface Description {
  readonly type?: string;
  readonly dtype?: string;
  readonly encoding?: string;
  readonly shape?: readonly number[];
}

/** A feature in all records: the kind and width of its values, the beginning of the first one, and the records that hold it. */
interface Found {
  readonly kind: FeaturePlace['kind'];
  readonly width?: number;
  readonly head: Uint8Array;
  count: number;
}

export const rldsImporter: Importer = {
  format: 'RLDS',
  version: 1,
  recognises: async (folder) => (await folder.list()).includes('dataset_info.json'),
  async open(folder, options) {
    const file = await folder.open('dataset_info.json');
    const info = await readJsonObject(file);
    const name = asText(info.name, file.name, '"name"');
    const { split, shards, others } = findShards(info, name, file.name, options.name);
    const records: Split['records'][number][] = [];
    for (const { path, count } of shards) {
      const shard = await folder.open(path);
      const places = await readRecords(shard).finally(() => shard.close());
      if (places.length !== count)
        throw new InputError(`${shard.name}: ${counted(places.length, 'record')}, dataset_info.json says ${count}`);
      records.push(...places.map((place, i) => ({ path, place, number: i })));
    }
    const own: Split = { split, records, described: await readDescription(folder) };
    const fields = await findFields(folder, own);
    const used = ['dataset_info.json', 'features.json', ...shards.map(({ path }) => path)];
    const files = (await folder.list()).filter(
      (path) => !used.includes(path) && !others.some((other) => path.startsWith(`${name}-${other}.`)),
    );
    const unread = [
      ...others.map((other) => ({ name: `split ${other}`, reason: 'another split: open it with --dataset' })),
      ...files.map((path) => ({ name: path, reason: 'a file that is not read' })),
    ].map((field) => ({ ...field, kind: 'other', use: null }) as const);
    return {
      kind: `RLDS data set, split ${split}`,
      name: options.name ?? name,
      rate: { usual: Object.hasOwn(rates, name) ? rates[name] : undefined },
      fields: [...fields, ...unread],
      count: records.length,
      async *episodes(first) {
        for await (const { episode, check } of visit(folder, own, first)) {
          await check();
          yield await episode.begin();
        }
      },
    } satisfies Source;
  },
};

/** Lists the shards of a split by the pattern in dataset_info.json, and the other splits. */
function findShards(info: Json, name: string, file: string, chosen = name) {
  const format = info.fileFormat == null ? 'tfrecord' : asText(info.fileFormat, file, '"fileFormat"');
  if (format !== 'tfrecord')
    throw new InputError(
      `${file}: its files are of the format ${quote(format)}, and only "tfrecord" is read: prepare the set again with file_format="tfrecord"`,
    );
  if (!Array.isArray(info.splits)) throw unexpected(info.splits, file, '"splits"', 'a list');
  const splits = info.splits.map((value, i) => asObject(value, file, `split ${i}`));
  const names = splits.map((split, i) => asText(split.name, file, `split ${i}: "name"`));
  const split = chosen !== name ? chosen : names.length === 1 ? names[0] : 'train';
  const own = splits[names.indexOf(split)];
  if (!own) throw new InputError(`${file}: no split ${quote(split)}; there are ${names.map(quote).join(', ')}`);
  const what = `split ${quote(split)}`;
  const lengths = own.shardLengths;
  if (!Array.isArray(lengths) || lengths.length === 0)
    throw unexpected(lengths, file, `${what}: "shardLengths"`, 'a list of at least one number');
  const usual = '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}';
  const pattern = own.filepathTemplate == null ? usual : asText(own.filepathTemplate, file, `${what}: template`);
  const shards = lengths.map((length, i) => {
    const [shard, all] = [i, lengths.length].map((count) => String(count).padStart(5, '0'));
    const values = { DATASET: name, SPLIT: split, FILEFORMAT: format, SHARD_X_OF_Y: `${shard}-of-${all}` };
    const path = pattern.replace(/\{(\w+)\}/g, (whole, key) => values[key as keyof typeof values] ?? whole);
    if (/[\\/{]/.test(path)) throw new InputError(`${file}: ${what}: path ${quote(path)} is not read here`);
    const count = asCount(typeof length === 'string' ? Number(length) : length, file, `${what}: "shardLengths"`);
    return { path, count };
  });
  return { split, shards, others: names.filter((other) => other !== split) };
}

/** Yields the episodes from number `first` on, before anything of them is read, each with a comparison of its checksum. */
async function* visit(folder: ListedFolder, { split, records, described }: Split, first: number) {
  let file: ByteSource | undefined;
  let opened = '';
  try {
    for (let i = first; i < records.length; i++) {
      const { path, place, number } = records[i];
      if (path !== opened) {
        await file?.close();
        file = await folder.open(path);
        opened = path;
      }
      const [own, reader] = [file!, new ExampleReader(file!, place)];
      const where = `${own.name}, record ${number}`;
      yield {
        episode: new RldsEpisode(reader, path, described, `${split}_${i}`, where),
        check: () => checkRecord(own, place),
      };
    }
  } finally {
    await file?.close();
  }
}

/** Finds the fields in all records, of which only what is needed is read. */
async function findFields(folder: ListedFolder, split: Split): Promise<SourceField[]> {
  const found = new Map<string, Found>();
  let episodes = 0;
  for await (const { episode, check } of visit(folder, split, 0)) {
    episodes += 1;
    try {
      for (const name of (await episode.list()).keys()) {
        const before = found.get(name);
        const known = before?.kind && (before.kind !== 'bytes' || before.head.length > 0);
        const own = known ? before : { ...(await episode.find(name)), count: before?.count ?? 0 };
        found.set(name, own);
        own.count += 1;
      }
    } catch (error) {
      await check(); // the checksum tells damage of the file from faults of its writer
      throw error;
    }
  }
  // DROID's state is joints, then gripper.
  const late = 'steps/observation/gripper_position';
  const names = [...new Set([...split.described.keys(), ...found.keys()])].sort(
    (a, b) => +(a === late) - +(b === late),
  );
  const kinds = new Map(names.map((name) => [name, kindOf(name, split.described.get(name), found.get(name))]));
  const chosen = uses.map(([use, kind, ...patterns]) => {
    const every = patterns.map((pattern) =>
      names.filter((name) => kinds.get(name)!.kind === kind && pattern.test(name)),
    );
    return { use, taken: every.find((own) => own.length > 0) ?? [], others: every.flat() };
  });
  return names.map((name) => {
    const { kind, shape, reason } = kinds.get(name)!;
    const count = found.get(name)?.count ?? 0;
    const missing = count < episodes ? { reason: `${count} of ${counted(episodes, 'episode')} have it` } : {};
    const use = chosen.find(({ taken }) => taken.includes(name))?.use ?? null;
    if (use !== null) return { name, kind, shape, use, ...missing };
    const rival = chosen.find(({ others }) => others.includes(name));
    const why =
      reason ??
      (rival && `${rival.taken.join(' and ')} ${rival.taken.length > 1 ? 'are' : 'is'} taken as the ${rival.use}`) ??
      reasons.find(([pattern]) => pattern.test(name))?.[1] ??
      'its name says no use: --map gives it one';
    return { name, kind, shape, use, reason: [why, ...Object.values(missing)].join('; ') };
  });
}

/** Decides what a feature holds, by its values first, by features.json where there are none, or more is to be known of them. */
function kindOf(
  name: string,
  described: Description = {},
  found?: Found,
): Pick<SourceField, 'kind' | 'shape' | 'reason'> {
  const { type, dtype = '', encoding, shape } = described;
  const { kind = null, head = new Uint8Array(0), width } = found ?? {};
  const inSteps = name.startsWith('steps/');
  const start = String.fromCharCode(...head);
  if (ragged.test(name)) return { kind: 'other', reason: 'a list of another length in each step' };
  if (/^(\xff\xd8\xff|\x89PNG|RIFF....WEBP)/s.test(start) || (type === 'image' && kind === 'bytes' && start === '')) {
    const grey16 = start.startsWith('\x89PNG') && head[24] === 16 && head[25] === 0;
    if (grey16 || /depth/i.test(name) || (type === 'image' && dtype !== 'uint8'))
      return { kind: 'depth', shape, reason: 'depth is no colour picture' };
    return inSteps
      ? { kind: 'pictures', shape }
      : { kind: 'other', reason: 'a picture of the episode, not of its steps' };
  }
  if (kind === null)
    return { kind: 'other', reason: found ? 'it is empty' : 'features.json names it, and no episode has it' };
  if (kind !== 'bytes') {
    if (dtype === 'uint8' && shape?.length === 3)
      return { kind: 'other', reason: 'pictures as lists of numbers, not as image files' };
    return { kind: 'numbers', shape: width === undefined ? undefined : [width] };
  }
  if (type === 'tensor' && dtype !== 'string')
    return { kind: 'other', reason: `numbers (${dtype}) packed as bytes (${encoding ?? 'unknown encoding'})` };
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

class RldsEpisode implements SourceEpisode {
  length = 0;
  features: ReadonlyMap<string, FeaturePlace> = new Map();

  constructor(
    private readonly reader: ExampleReader,
    private readonly path: string,
    private readonly described: ReadonlyMap<string, Description>,
    readonly id: string,
    readonly where: string,
  ) {}

  async list(): Promise<ReadonlyMap<string, FeaturePlace>> {
    this.features = await this.reader.features();
    return this.features;
  }

  /** Finds the features, and counts the steps by the values of a mark, or else of any bytes. */
  async begin(): Promise<this> {
    await this.list();
    const names = [...this.features.keys()];
    const bytes = (name: string) => this.features.get(name)!.kind === 'bytes';
    const key =
      counters.find((own) => this.features.has(own)) ??
      names.find((own) => own.startsWith('steps/') && bytes(own) && !ragged.test(own));
    if (key === undefined)
      throw this.#error(
        `no feature says its steps, such as ${counters.join(', ')}; there are ${names.slice(0, 12).join(', ') || 'none'}`,
      );
    const place = this.features.get(key)!;
    this.length = (bytes(key) ? await this.reader.places(place) : await this.reader.numbers(place)).length;
    if (this.length === 0) throw this.#error('it has no steps');
    return this;
  }

  async numbers(field: string): Promise<Float32Array | Float64Array> {
    const place = this.features.get(field);
    if (!place) throw this.#error(`it has no feature ${quote(field)}, which other episodes have`);
    if (place.kind === 'bytes') throw this.#error(`feature ${quote(field)} holds bytes, numbers were expected`);
    const values = await this.reader.numbers(place);
    if (!field.startsWith('steps/')) {
      const every = new Float64Array(values.length * this.length);
      for (let step = 0; step < this.length; step++) every.set(values, step * values.length);
      return every;
    }
    const { shape } = this.described.get(field) ?? {};
    const even = shape ? values.length === this.length * productOf(shape) : values.length % this.length === 0;
    if (!even || values.length === 0) throw this.#uneven(field, values.length, shape);
    return values;
  }

  async texts(field: string): Promise<string[][]> {
    const decoder = new TextDecoder('utf-8', { fatal: true });
    const texts: string[] = [];
    for (const [i, place] of (await this.#values(field)).entries()) {
      const bytes = await this.reader.bytes(place);
      try {
        texts.push(decoder.decode(bytes));
      } catch {
        throw this.#error(`feature ${quote(field)}, value ${i} is not text in UTF-8`);
      }
    }
    return field.startsWith('steps/') && texts.length > 0 ? texts.map((text) => [text]) : [texts];
  }

  /** The image files where they lie. An empty value is none: the step shows the newest. */
  async pictures(field: string): Promise<SourcePictures | null> {
    const values = await this.#values(field);
    const there = values.map((_, step) => step).filter((step) => values[step].end > values[step].start);
    if (there.length === 0) return null;
    const starts = Float64Array.from(there, (step) => values[step].start);
    const ends = Float64Array.from(there, (step) => values[step].end);
    const steps = there.length < this.length ? { steps: Uint32Array.from(there) } : {};
    return { kind: 'ranges', file: this.path, starts, ends, ...steps };
  }

  /** The places of the values of a feature of bytes: as many as steps, one for the episode, or none if the episode lacks it. */
  async #values(field: string): Promise<Place[]> {
    const place = this.features.get(field);
    if (!place || place.kind === null) return [];
    if (place.kind !== 'bytes') throw this.#error(`feature ${quote(field)} holds ${place.kind}, bytes were expected`);
    const values = await this.reader.places(place);
    if (field.startsWith('steps/') && values.length !== this.length) throw this.#uneven(field, values.length);
    return values;
  }

  /** Finds the kind of a feature's values. */
  async find(field: string): Promise<Omit<Found, 'count'>> {
    if (this.length === 0) await this.begin();
    const place = this.features.get(field)!;
    if (place.kind === 'bytes') {
      const first = (await this.reader.places(place)).find(({ start, end }) => end > start);
      const head =
        first && (await this.reader.bytes({ start: first.start, end: Math.min(first.end, first.start + 256) }));
      return { kind: 'bytes', head: head?.slice() ?? new Uint8Array(0) };
    }
    const { length } = place.kind ? await this.reader.numbers(place) : [];
    const width = field.startsWith('steps/') ? length / this.length : length;
    return { kind: length > 0 ? place.kind : null, width, head: new Uint8Array(0) };
  }

  #uneven(field: string, count: number, shape?: readonly number[]): InputError {
    const each = shape ? ` of shape ${quote(shape)}` : '';
    return this.#error(
      `feature ${quote(field)} has ${counted(count, 'value')}, which do not fit its ${this.length} steps${each}`,
    );
  }

  #error(complaint: string): InputError {
    return new InputError(`${this.where}: episode ${this.id}: ${complaint}`);
  }
}

const productOf = (shape: readonly number[]) => shape.reduce((product, size) => product * size, 1);

/** Reads features.json, if it is there: the descriptions by the names that features have in records. */
async function readDescription(folder: ListedFolder): Promise<Map<string, Description>> {
  const described = new Map<string, Description>();
  if (!(await folder.list()).includes('features.json')) return described;
  const inner = (value: unknown): Json => (typeof value === 'object' && value !== null ? (value as Json) : {});
  const describe = (value: unknown, path: string, depth: number) => {
    const node = inner(value);
    const features = inner(node.featuresDict).features ?? inner(node.sequence).feature;
    if (features === undefined || depth > 64) {
      const type = Object.keys(node).find((key) => typeof node[key] === 'object' && key !== 'description');
      const { dtype, encoding, shape } = inner(type && node[type]);
      const sizes: unknown = shape === undefined ? null : (inner(shape).dimensions ?? []);
      const known = Array.isArray(sizes) && sizes.every((size) => /^[1-9]\d*$/.test(quote(size).replaceAll('"', '')));
      const text = (own: unknown) => (typeof own === 'string' ? own : undefined);
      described.set(path, {
        type,
        shape: known ? sizes.map(Number) : undefined,
        dtype: text(dtype),
        encoding: text(encoding),
      });
    } else if (node.featuresDict !== undefined) {
      for (const [key, own] of Object.entries(inner(features)))
        describe(own, path === '' ? key : `${path}/${key}`, depth + 1);
    } else if (path === 'steps') describe(features, path, depth + 1);
  };
  describe(await readJsonObject(await folder.open('features.json')), '', 0);
  return described;
}
