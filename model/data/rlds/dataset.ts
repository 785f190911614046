import { type ByteSource, type Folder, readRange } from '../../../engine/files/bytes.ts';
import { InputError, quote } from '../../../engine/files/errors.ts';
import { assembleDataset, checkFinite, type FoundEpisode } from '../assemble.ts';
import type { Dataset, DatasetOptions } from '../dataset.ts';
import { ImageCache, type ImagePlace, imagesAt } from '../image-files.ts';
import { imageTypeOf } from '../image-header.ts';
import { asCount, asObject, asText, readJsonObject, unexpected } from '../json.ts';
import { MemoryCache } from '../memory-cache.ts';
import { instructionsAmong, onDisk } from '../parts.ts';
import {
  bytesOf,
  checkRecord,
  countIntegers,
  type FeaturePlace,
  floatsOf,
  type RecordPlace,
  readFeatures,
  readRecords,
} from './tfrecord.ts';

// This file reads RLDS in TFRecord files, as in Open X-Embodiment: a record is an episode, a feature holds the values
// of all steps.

/** Checksums of larger sets are not compared when the set is opened. */
const CHECKED_BYTES = 4 * 2 ** 30;
const LIST_CACHE_BYTES = 256 * 2 ** 20;
/** The bytes of the longest list of numbers or texts that is read. */
const LIST_LIMIT = 2 ** 28;

/** The control rates of well-known sets in Hz, which their files do not state. */
const rates: Readonly<Record<string, number>> = {
  bridge: 5,
  bridge_dataset: 5,
  bridge_orig: 5,
  droid: 15,
  fractal20220817_data: 3,
};

const keys = {
  action: ['steps/action'],
  state: ['steps/observation/state', 'steps/observation/proprio'],
  language: ['steps/language_instruction', 'steps/observation/natural_language_instruction'],
  length: ['steps/is_first', 'steps/is_last', 'steps/is_terminal'],
};

interface RldsOptions extends DatasetOptions {
  /** The split to read, or the set's own name for its split "train", which is the default. */
  readonly name?: string;
  readonly memory: number;
}

/**
 * Opens an RLDS data set: `dataset_info.json` and its TFRecord shards. Numbers and texts are read now, images on
 * request. Numbers that exceed `memory` are left on disk and loaded episode by episode. Checksums of records are
 * compared now, or for sets above 4 GiB when an episode is first loaded or shown.
 */
export async function openRlds(folder: Folder, options: RldsOptions): Promise<Dataset> {
  const source = await folder.open('dataset_info.json');
  const info = await readJsonObject(source);
  const name = asText(info.name, source.name, '"name"');
  const rate = options.rate ?? rates[name];
  if (rate === undefined) {
    throw new InputError(
      `${source.name}: RLDS files do not say at how many Hz "${name}" was recorded: give it with --rate`,
    );
  }
  const { split, files, bytes } = shards(info, name, source.name, options.name);
  const reader = new Reader(folder, options);
  const found: FoundEpisode[] = [];
  for (const { path, episodes } of files) {
    const file = await folder.open(path);
    try {
      const records = await readRecords(file);
      if (records.length !== episodes) {
        throw new InputError(`${file.name}: ${records.length} records, dataset_info.json says ${episodes}`);
      }
      for (const record of records) {
        if (bytes <= CHECKED_BYTES) await reader.check(file, record);
        found.push(await reader.read(file, path, record, `${split}_${found.length}`));
      }
    } finally {
      await file.close();
    }
  }
  reader.checkCameras(source.name);
  return assembleDataset(found, {
    name: options.name ?? name,
    rate,
    kind: `RLDS data set, split ${split}`,
    place: source.name,
  });
}

/** Lists the shards of a split by the pattern in dataset_info.json. */
function shards(info: Record<string, unknown>, name: string, file: string, chosen = name) {
  const wanted = chosen === name ? 'train' : chosen;
  if (!Array.isArray(info.splits)) throw unexpected(info.splits, file, '"splits"', 'a list');
  const splits = info.splits.map((value, i) => asObject(value, file, `split ${i}`));
  const split = splits.find((own) => own.name === wanted);
  if (!split) {
    throw new InputError(
      `${file}: no split ${quote(wanted)}; there are ${splits.map((own) => quote(own.name)).join(', ')}`,
    );
  }
  const what = `split ${quote(wanted)}`;
  const lengths = split.shardLengths;
  if (!Array.isArray(lengths) || lengths.length === 0)
    throw unexpected(lengths, file, `${what}: "shardLengths"`, 'a list of at least one number');
  const usual = '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}';
  const pattern = split.filepathTemplate == null ? usual : asText(split.filepathTemplate, file, `${what}: template`);
  const format = info.fileFormat == null ? 'tfrecord' : asText(info.fileFormat, file, '"fileFormat"');
  const digits = (count: number) => String(count).padStart(5, '0');
  return {
    split: wanted,
    bytes: Number(split.numBytes ?? 0),
    files: lengths.map((length, i) => {
      const values: Record<string, string> = {
        '{DATASET}': name,
        '{SPLIT}': wanted,
        '{FILEFORMAT}': format,
        '{SHARD_X_OF_Y}': `${digits(i)}-of-${digits(lengths.length)}`,
      };
      const path = pattern.replace(/\{\w+\}/g, (whole) => values[whole] ?? whole);
      if (/[\\/{]/.test(path)) throw new InputError(`${file}: ${what}: path ${quote(path)} is not read here`);
      return {
        path,
        episodes: asCount(typeof length === 'string' ? Number(length) : length, file, `${what}: "shardLengths"`),
      };
    }),
  };
}

class Reader {
  readonly #images = new ImageCache();
  /** The image files of one camera in one episode. */
  readonly #lists = new MemoryCache<Uint8Array[]>(LIST_CACHE_BYTES, (list) => list[0]?.buffer.byteLength ?? 0);
  readonly #seen = new Set<string>();
  readonly #bytesFeatures = new Set<string>();
  /** The records with a checksum that was compared and is right. */
  readonly #checked = new Set<string>();
  #bytes = 0;

  constructor(
    private readonly folder: Folder,
    private readonly options: RldsOptions,
  ) {}

  /** Opens the file of a record to use it, with the checksum of the record compared, and closes the file. */
  async #reading<T>(path: string, record: RecordPlace, use: (file: ByteSource) => Promise<T>): Promise<T> {
    const file = await this.folder.open(path);
    try {
      await this.check(file, record);
      return await use(file);
    } finally {
      await file.close();
    }
  }

  /** Compares the checksum of a record once. */
  async check(file: ByteSource, record: RecordPlace): Promise<void> {
    const key = `${file.name}:${record.start}`;
    if (this.#checked.has(key)) return;
    await checkRecord(file, record);
    this.#checked.add(key);
  }

  async read(file: ByteSource, path: string, record: RecordPlace, id: string): Promise<FoundEpisode> {
    const fail = (complaint: string) => new InputError(`${file.name}: episode ${id}: ${complaint}`);
    const features = await readFeatures(file, record);
    const find = (names: readonly string[]) => names.find((key) => features.has(key));
    const list = async (key: string, kind: FeaturePlace['kind']) => {
      const place = features.get(key)!;
      if (place.kind !== kind) throw fail(`feature ${quote(key)} holds ${place.kind}, ${kind} was expected`);
      if (place.end - place.start > LIST_LIMIT) throw fail(`feature ${quote(key)} is too long`);
      return readRange(file, place.start, place.end, `feature ${quote(key)} of episode ${id}`);
    };
    const [actionKey, lengthKey] = [find(keys.action), find(keys.length)];
    if (!actionKey) throw fail(`no feature "steps/action"; there are ${[...features.keys()].slice(0, 12).join(', ')}`);
    if (!lengthKey) throw fail(`none of the features ${keys.length.join(', ')}, which say its steps`);
    const length = countIntegers(await list(lengthKey, 'int64'), file.name, lengthKey);
    if (length === 0) throw fail('it has no steps');
    const table = async (key: string) => {
      const values = floatsOf(await list(key, 'float'), file.name, key);
      if (values.length === 0 || values.length % length !== 0)
        throw fail(`feature ${quote(key)} has ${values.length} values, which its ${length} steps do not divide evenly`);
      checkFinite(values, values.length / length, file.name, `episode ${id}: feature ${quote(key)}`);
      return values;
    };
    const stateKey = find(keys.state);
    const [actions, states] = [await table(actionKey), stateKey === undefined ? null : await table(stateKey)];
    const languageKey = find(keys.language);
    const texts = languageKey ? bytesOf(await list(languageKey, 'bytes'), file.name, languageKey) : [];
    const common = {
      id,
      length,
      instructions: instructionsAmong(texts.map((bytes) => new TextDecoder().decode(bytes))),
      ...(await this.#cameras(file, path, record, features, id, length)),
    };
    const dimensions = { actionDimension: actions.length / length, stateDimension: (states?.length ?? 0) / length };
    const found = { file: file.name, ...dimensions };
    this.#bytes += actions.byteLength + (states?.byteLength ?? 0);
    if (this.#bytes <= this.options.memory) return { ...found, episode: { ...common, actions, states } };
    const reader = new Reader(this.folder, { ...this.options, memory: Number.POSITIVE_INFINITY });
    const load = () =>
      this.#reading(path, record, async (again) => {
        const { episode } = await reader.read(again, path, record, id);
        return { ...common, actions: episode.actions, states: episode.states };
      });
    return { ...found, episode: onDisk(common, load) };
  }

  async #cameras(
    file: ByteSource,
    path: string,
    record: RecordPlace,
    features: Map<string, FeaturePlace>,
    id: string,
    length: number,
  ) {
    const places = new Map<string, FeaturePlace>();
    for (const [key, place] of features) {
      const name = /^steps\/observation\/(\w+)$/.exec(key)?.[1];
      if (place.kind !== 'bytes' || !name) continue;
      this.#bytesFeatures.add(name);
      if (this.options.cameras && !this.options.cameras.includes(name)) continue;
      // The first bytes after the tag and length of the first value show whether it is an image.
      const head = await readRange(file, place.start, Math.min(place.end, place.start + 16), key);
      const isImage = [2, 3, 4, 5, 6].some((at) => imageTypeOf(head.subarray(at)) !== 'unknown');
      if (isImage) places.set(name, place);
    }
    for (const name of places.keys()) this.#seen.add(name);
    const find = (camera: string, step: number): ImagePlace | null => {
      const place = places.get(camera);
      if (!place) return null;
      const what = `the image of episode ${id}, step ${step}, camera "${camera}"`;
      const read = async () => {
        const list = await this.#lists.get(`${path}:${place.start}`, () =>
          this.#reading(path, record, async (source) => {
            const found = bytesOf(await readRange(source, place.start, place.end, what), source.name, what);
            if (found.length === length) return found;
            throw new InputError(`${source.name}: ${what}: ${found.length} images, ${length} steps`);
          }),
        );
        return { bytes: new Uint8Array(list[step]), file: file.name };
      };
      return { key: `${path}:${place.start}:${step}`, what, read };
    };
    return { cameras: [...places.keys()], ...imagesAt(this.#images, length, find) };
  }

  checkCameras(file: string): void {
    const unknown = this.options.cameras?.find((name) => !this.#seen.has(name));
    if (unknown === undefined) return;
    const there = [...this.#bytesFeatures].join(', ') || 'none';
    throw new InputError(`${file}: no camera ${quote(unknown)}; observations with bytes are ${there}`);
  }
}
