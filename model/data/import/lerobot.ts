import { InputError, quote } from '../../../engine/files/errors.ts';
import { type Feature, instructionsOf, type LeRobotInfo, readInfo } from '../lerobot/info.ts';
import {
  checkRows,
  type EpisodePlace,
  persistentTexts,
  presence,
  readEpisodes,
  readTexts,
  textsIn,
} from './lerobot-episodes.ts';
import { ImageColumn } from './lerobot-images.ts';
import { isText, ParquetFile } from './parquet.ts';
import { productOf } from './pixels.ts';
import type { FieldUse, Importer, ImportOptions, ListedFolder, Source, SourceEpisode, SourceField } from './source.ts';
import { type FoundField, type UsePatterns, withUses } from './uses.ts';
import { chosenFrames, type Decoder } from './video.ts';

const uses: UsePatterns = [
  ['action', 'numbers', /^action$/, /^actions$/],
  ['state', 'numbers', /^observation\.state$/, /^state$/],
  ['time', 'numbers', /^timestamp$/],
  ['camera', 'pictures', /./],
];
const counters: Readonly<Record<string, string>> = {
  index: 'numbers the rows of the set',
  frame_index: 'numbers the rows of an episode; the first gap is noted',
  episode_index: 'numbers the episodes; every row is checked by it',
};
const reasons = Object.entries(counters).map(([name, reason]) => [new RegExp(`^${name}$`), reason] as const);
/** The columns of texts that are taken for the instruction where no step has a task_index. */
const instructionNames = /^(task|language_instruction|instruction|prompt)$/;
/** LeRobot's styles of `language_persistent`, each text of which holds until another of its style replaces it (language.py). */
const styles: Readonly<Record<string, { use: FieldUse | null; reason?: string }>> = {
  subtask: { use: 'subtask' },
  task_aug: { use: 'language' },
  plan: { use: null, reason: 'plans are not trained on here' },
  memory: { use: null, reason: 'texts of memory are not trained on here' },
  motion: { use: null, reason: 'texts of motion are not trained on here' },
};
const numberTypes = /^(float|bfloat|int|uint|bool)/;
const noTable = 'meta/ holds no table of its texts';

/** LeRobot data sets of version 2.0, 2.1 and 3. */
export const leRobot: Importer = {
  format: 'LeRobot',
  version: 3,
  recognises: async (folder) => (await folder.list('meta')).includes('info.json'),
  async open(folder, options) {
    const set = new LeRobotSet(folder, options, await readInfo(folder));
    await set.prepare();
    return set;
  },
};

class LeRobotSet implements Source {
  readonly kind: string;
  readonly rate: { readonly stated: number };
  readonly count: number;
  fields: readonly SourceField[] = [];
  #places: readonly EpisodePlace[] = [];
  /** The rows of each data file by the list of episodes. */
  readonly #rows = new Map<string, number>();
  #texts: Partial<Record<string, Awaited<ReturnType<typeof readTexts>>>> = {};
  #file: { path: string; file: ParquetFile } | null = null;
  #images: ReadonlyMap<string, ImageColumn> = new Map();
  #jumps = false;
  /** The videos that are not there. */
  readonly #missing = new Set<string>();
  /** Columns that are no fields, because the first file lacks them. */
  readonly #further = new Set<string>();

  constructor(
    private readonly folder: ListedFolder,
    private readonly options: ImportOptions,
    private readonly info: LeRobotInfo,
  ) {
    this.kind = `LeRobot data set, version ${info.version}${info.robot ? ` (${info.robot})` : ''}`;
    this.rate = { stated: info.rate };
    this.count = info.episodes;
  }

  async prepare(): Promise<void> {
    const { folder, info } = this;
    const { places, files } = await readEpisodes(folder, info);
    this.#places = places;
    const isThere = presence(folder);
    for (const { path } of places.flatMap(({ videos }) => [...videos.values()]))
      if (!(await isThere(path))) this.#missing.add(path);
    for (const { file, length } of places) this.#rows.set(file, (this.#rows.get(file) ?? 0) + length);
    for (const kind of ['task', 'subtask'] as const) this.#texts[`${kind}_index`] = await readTexts(folder, info, kind);
    const first = await this.#open(places[0]);
    const columns = [...info.features.values()].filter(({ dtype }) => dtype === 'image');
    this.#images = new Map(columns.map(({ key }) => [key, new ImageColumn(folder, key, isThere, this.options.note)]));
    const further = [...first.columns.keys()].filter((name) => !info.features.has(name));
    const numbered = first.columns.has('task_index');
    if (numbered && !this.#texts.task_index)
      this.options.note?.(
        `${folder.name}: the tasks have numbers, and meta/ holds no table of their texts: the tasks of the list of episodes are the instructions`,
      );
    const replaced = {
      use: null,
      bookkeeping: true,
      reason:
        'the list of episodes: the task_index of each step decides; of tasks that no step names, those of an episode with a single task are its paraphrases',
    };
    const found: FoundField[] = [];
    for (const feature of info.features.values()) found.push(...(await this.#feature(feature, first)));
    for (const name of further) found.push(...this.#column(name, first));
    found.push({ name: 'tasks', kind: 'texts', use: 'language', ...(numbered && this.#texts.task_index && replaced) });
    if (info.splits) found.push({ name: 'splits', kind: 'other', reason: info.splits });
    this.fields = withUses([...found, ...(await this.#unread(files))], uses, reasons);
  }

  async #feature({ key, dtype, shape, names, depth }: Feature, file: ParquetFile): Promise<FoundField[]> {
    const flat: FoundField = { name: key, shape, kind: 'depth', reason: 'a depth map, which is no colour picture' };
    if (dtype !== 'video' && !file.columns.has(key))
      return [{ name: key, shape, kind: 'other', reason: `info.json lists it, ${file.name} has no such column` }];
    if (dtype === 'image' || dtype === 'video') {
      if (depth || (await this.#images.get(key)?.isDepth(file, this.#places[0]))) return [flat];
      const missing = dtype === 'video' ? this.#missingVideos(key) : undefined;
      return [{ name: key, shape, kind: 'pictures', ...(missing && { use: null, reason: missing }) }];
    }
    if (depth && shape.length > 1) return [flat];
    if (key in this.#texts || !numberTypes.test(dtype)) return this.#column(key, file, dtype);
    const width = productOf(shape);
    const empty = width === 0 && { use: null, reason: 'it holds nothing' };
    const field = { name: key, kind: 'numbers', shape: [width], bookkeeping: key in counters } as const;
    return [{ ...field, ...(names && { names }), ...empty }];
  }

  /** The fields of a column as its file describes it. */
  #column(name: string, file: ParquetFile, dtype?: string): FoundField[] {
    const leaves = file.columns.get(name)!;
    const [leaf] = leaves;
    const undeclared = dtype ? `dtype ${quote(dtype)} is none of LeRobot's numbers` : 'info.json does not list it';
    const styled = ['content', 'style', 'timestamp'].every((field) => leaves.some(({ path }) => path.at(-1) === field));
    if (name === 'language_persistent' && styled)
      return Object.entries(styles).map(([style, own]) => ({ name: `${name}/${style}`, kind: 'texts', ...own }));
    if (this.#texts[name]) return [{ name, kind: 'texts', use: name === 'task_index' ? 'language' : 'subtask' }];
    if (name in this.#texts) return [{ name, kind: 'numbers', shape: [1], use: null, reason: noTable }];
    if (leaves.length === 1 && isText(leaf.element)) {
      const language = instructionNames.test(name) && !file.columns.has('task_index');
      return [{ name, kind: 'texts', ...(language ? { use: 'language' } : { reason: undeclared }) }];
    }
    const width = leaves.length === 1 && leaf.element.type !== 'BYTE_ARRAY' ? file.width(leaf) : null;
    if (width !== null) return [{ name, kind: 'numbers', shape: [width], use: null, reason: undeclared }];
    const groups = `groups of ${leaves.map(({ path }) => path.at(-1)).join(', ')}, which are not trained on here`;
    const reason = `it holds ${leaves.length > 1 ? groups : 'bytes, or lists of unequal lengths'}`;
    return [{ name, kind: 'other', reason }];
  }

  /** The files of the set that are not read, those of a folder together. */
  async #unread(read: readonly string[]): Promise<FoundField[]> {
    const texts = Object.values(this.#texts).flatMap((table) => table?.file ?? []);
    const ofEpisodes = this.#places.flatMap(({ file, videos }) => [
      file,
      ...[...videos.values()].map(({ path }) => path),
    ]);
    const files = new Set(['meta/info.json', ...read, ...texts, ...ofEpisodes]);
    const folders = new Set(
      [...files].flatMap((path) => path.split('/').map((_, i, all) => all.slice(0, i).join('/'))),
    );
    if (this.#images.size > 0) files.add('images'); // columns of images look for their files there
    const fields: FoundField[] = [];
    for (const folder of [...folders].sort()) {
      const all = (await this.folder.list(folder || undefined)).map((name) => (folder ? `${folder}/${name}` : name));
      const left = all.filter((path) => !files.has(path) && !folders.has(path));
      const reason =
        folder === 'meta'
          ? 'statistics, and what else no step needs'
          : 'nothing in info.json or the list of episodes names it';
      const together = left.length > 4 ? [`${folder || '.'}: ${left.length} files, such as ${left[0]}`] : left;
      for (const name of together) fields.push({ name, kind: 'other', reason });
    }
    return fields;
  }

  /** Why a camera has no video at all; that single episodes lack theirs is noted. */
  #missingVideos(key: string): string | undefined {
    const all = this.#places.map(({ index, videos }) => ({ index, path: videos.get(key)!.path }));
    const lacking = all.filter(({ path }) => this.#missing.has(path));
    if (lacking.length === 0) return undefined;
    const [{ index, path }] = lacking;
    if (lacking.length === all.length) return `its video ${path} is not there`;
    const which = `${lacking.length} of ${all.length} episodes, the first of them episode ${index} (${path})`;
    this.options.note?.(`${this.folder.name}: the videos of ${quote(key)} are not there for ${which}`);
    return undefined;
  }

  /** Opens the file of an episode, and checks that it holds what the list of episodes says. */
  async #open({ file: path, index }: EpisodePlace): Promise<ParquetFile> {
    if (this.#file?.path === path) return this.#file.file;
    const file = await ParquetFile.open(this.folder, path);
    const listed = this.#rows.get(path)!;
    if (file.rows !== listed) {
      const whose = this.info.version.startsWith('2')
        ? `meta/episodes.jsonl says ${listed} steps of episode ${index}`
        : `the list of episodes says ${listed}`;
      throw new InputError(`${file.name}: has ${file.rows} rows, ${whose}`);
    }
    const known = new Set(this.fields.map(({ name }) => name.split('/')[0]));
    for (const name of this.fields.length > 0 ? file.columns.keys() : []) {
      if (known.has(name) || this.#further.has(name)) continue;
      this.#further.add(name);
      this.options.note?.(`${file.name}: column ${quote(name)} is not read: the first file of the set lacks it`);
    }
    this.#file = { path, file };
    return file;
  }

  async *episodes(first: number): AsyncGenerator<SourceEpisode> {
    for (const place of this.#places.slice(first)) {
      const { file: path, from, length, index } = place;
      const file = await this.#open(place);
      this.#jumps = (await checkRows(file, place, this.#jumps ? undefined : this.options.note)) || this.#jumps;
      yield {
        id: `episode_${String(index).padStart(6, '0')}`,
        length,
        where: `${path}, rows ${from} to ${from + length - 1}`,
        numbers: async (name) => {
          const shape = this.fields.find((field) => field.name === name)?.shape;
          return (await this.#open(place)).numbers(name, from, from + length, shape?.[0] ?? 1);
        },
        texts: async (name) => this.#textsOf(name, place, await this.#open(place)),
        pictures: async (name) => {
          const image = this.#images.get(name);
          if (image) return image.pictures(await this.#open(place), place);
          const clip = place.videos.get(name);
          return clip && !this.#missing.has(clip.path)
            ? { kind: 'unpack', place: { episode: index, field: name }, count: length }
            : null;
        },
      };
    }
  }

  async *unpack({ episode, field }: Readonly<Record<string, unknown>>) {
    const place = this.#places.find(({ index }) => index === episode);
    const name = String(field);
    if (!place)
      throw new InputError(`${this.info.file}: no episode ${episode}, which was there before: the set has changed`);
    const file = await this.#open(place);
    const image = this.#images.get(name);
    if (image) return yield* image.unpack(file, place);
    const { from, length, index } = place;
    const clip = place.videos.get(name)!;
    const times = file.columns.has('timestamp')
      ? await file.numbers('timestamp', from, from + length, 1)
      : Float64Array.from({ length }, (_, step) => step / this.info.rate);
    const what = `episode ${index}, camera ${quote(name)}`;
    const decoder = await decoderFor(this.folder, what, this.options.frameSize);
    yield* chosenFrames(decoder, clip, times, { rate: this.info.rate, what, note: this.options.note });
  }

  async #textsOf(name: string, { from, length, index, tasks }: EpisodePlace, file: ParquetFile): Promise<string[][]> {
    const to = from + length;
    const [column, style] = name.split('/');
    const unlisted = !file.columns.has(name);
    if (unlisted && (name === 'tasks' || name === 'task_index')) {
      const numbers = file.columns.has('task_index') ? await file.numbers('task_index', from, to, 1) : [];
      const change = numbers.findIndex((number) => number !== numbers[0]);
      if (change < 0) return [instructionsOf(tasks)];
      const found = `"task_index" changes at step ${change}`;
      throw new InputError(`${file.name}: episode ${index}: ${found}, and ${noTable}: restore meta/tasks`);
    }
    if (column === 'language_persistent' && style) return persistentTexts(file, style, from, to);
    const table = this.#texts[name];
    if (!table) return (await file.lists(file.leaf(name), from, to)).map((row) => instructionsOf(textsIn(row)));
    const numbers = await file.numbers(name, from, to, 1);
    const unknown = numbers.find((number) => !table.texts.has(number));
    if (unknown !== undefined)
      throw new InputError(
        `${file.name}: episode ${index}: "${name}" is ${unknown}, which ${table.file} does not list`,
      );
    if (numbers.some((number) => number !== numbers[0]))
      return Array.from(numbers, (number) => [...table.texts.get(number)!]);
    const own = table.texts.get(numbers[0])!;
    if (name !== 'task_index' || own.length === 0 || !tasks.includes(own[0])) return [[...own]];
    // The other tasks of an episode whose steps all name one of them are its paraphrases, as the writer here makes them.
    const named = new Set([...table.texts.values()].flat());
    return [[...new Set([...own, ...instructionsOf(tasks).filter((text) => named.has(text))])]];
  }
}

/** ffmpeg for a folder on disk, WebCodecs in a browser. @throws InputError if there is neither; `what` is the camera */
async function decoderFor(folder: ListedFolder, what: string, frameSize: number): Promise<Decoder> {
  if (folder.path !== undefined) return (await import('./video-node.ts')).ffmpegDecoder(folder.path, what, frameSize);
  return (await import('./video-browser.ts')).webDecoder(folder, what, frameSize);
}
