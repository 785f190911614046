import { joinBytes } from '../../../engine/files/bytes.ts';
import { InputError, quote } from '../../../engine/files/errors.ts';
import type { MappedField } from '../dataset.ts';
import type { Source, SourceEpisode, SourceField } from '../import/source.ts';
import { instructionsAmong } from '../parts.ts';
import { checkTimes, type Irregular, irregularNote, joinedNumbers } from './checks.ts';
import type { Dependencies } from './folders.ts';
import type { DataIndex, IndexReader, RecordPlace } from './index-log.ts';
import { leftOut, type Mapping, mappedFields } from './mapping.ts';
import { type KnownPictures, packPictures } from './pictures.ts';

/** Values that change with the steps: each holds from its step to that of the next. */
type Changes<T> = readonly (readonly [step: number, value: T])[];

/** What is known of an episode without its numbers. */
export interface KnownEpisode {
  readonly id: string;
  readonly length: number;
  readonly where: string;
  readonly instructions: Changes<readonly string[]>;
  readonly subtasks: Changes<string | null>;
  /** By the name of the field. */
  readonly pictures: Readonly<Record<string, KnownPictures>>;
}

/** What is known of a data set. */
export interface KnownDataset {
  readonly kind: string;
  readonly name?: string;
  readonly rate: number;
  readonly fields: readonly MappedField[];
  readonly notes: readonly string[];
  readonly actionNames?: readonly string[];
  readonly actionDimension: number;
  readonly stateDimension: number;
  /** The cameras, and the field of each. */
  readonly cameras: readonly (readonly [name: string, field: string])[];
}

/** The end of an index. */
export interface Directory {
  readonly set: KnownDataset;
  readonly episodes: readonly { readonly known: KnownEpisode; readonly place: RecordPlace }[];
  readonly dependencies: Dependencies;
}

/** The JSON of a record of one episode, with what holds for all episodes up to it. */
interface EpisodeRecord {
  readonly known: KnownEpisode;
  readonly widths: Readonly<Record<string, number>>;
  readonly irregular: Irregular;
  /** What is new since the record before. */
  readonly dependencies: Dependencies;
  readonly notes: readonly string[];
}

/** The JSON of the first record: an interrupted import is resumed only by the same. */
interface Beginning {
  readonly fields: readonly SourceField[];
  readonly mapping: string;
}

interface Importing {
  readonly source: Source;
  readonly mapping: Mapping;
  readonly rate: number;
  /** The set's place, for errors. */
  readonly place: string;
  readonly index: DataIndex;
  /** The dependencies, and what the importer has noticed, since the last call. */
  taken(): Promise<Pick<EpisodeRecord, 'dependencies' | 'notes'>>;
  /** Whether files are as they were. */
  unchanged(dependencies: Dependencies): Promise<boolean>;
  onProgress?(done: number, total: number | undefined): void;
}

const none = () => new Uint8Array(0);
const bytesOf = (values: Float32Array | null) =>
  values ? new Uint8Array(values.buffer as ArrayBuffer, values.byteOffset, values.byteLength) : none();

/** Reads every episode of a source once, checks it, and writes it to the index. An interrupted import is resumed. */
export async function importSource(own: Importing): Promise<{ directory: Directory; reader: IndexReader }> {
  const { source, mapping, rate, place, index, taken, onProgress } = own;
  const names = ({ action, state, language, subtask, time, cameras }: Mapping) => [
    ...[action, state, language, [subtask], [time]].map((fields) => fields.map((field) => field?.name)),
    [...cameras].map(([camera, { name }]) => [camera, name]),
  ];
  const beginning: Beginning = { fields: source.fields, mapping: JSON.stringify([names(mapping), rate]) };
  const dependencies: Dependencies = {};
  const { earlier, writer } = await index.begin(async ([first, ...records]) => {
    if (JSON.stringify(first?.json) !== JSON.stringify(beginning)) return 0;
    const whole = records.findIndex(({ json }) => !('known' in (json as object)));
    const episodes = records.slice(0, whole < 0 ? undefined : whole).map(({ json }) => json as EpisodeRecord);
    const before: Dependencies = Object.assign({}, ...episodes.map((record) => record.dependencies));
    return (await own.unchanged(before)) ? 1 + episodes.length : 0;
  });
  try {
    const kept = earlier.slice(1).map(({ json, place }) => ({ ...(json as EpisodeRecord), place }));
    const episodes = kept.map(({ known, place }) => ({ known, place }));
    for (const record of kept) Object.assign(dependencies, record.dependencies);
    const noticed = kept.flatMap(({ notes }) => notes);
    const widths = new Map(Object.entries(kept.at(-1)?.widths ?? {}));
    const irregular: Irregular = kept.at(-1)?.irregular ?? { count: 0, named: [] };
    const ids = new Set(episodes.map(({ known }) => known.id));
    if (earlier.length === 0) await writer.append(beginning, none(), none());
    onProgress?.(episodes.length, source.count);
    for await (const read of source.episodes(episodes.length)) {
      const { id, length } = read;
      const where = read.where.startsWith(place) ? read.where : `${place}/${read.where}`;
      const episode: SourceEpisode = {
        ...{ id, length, where },
        numbers: (field) => read.numbers(field),
        texts: (field) => read.texts(field),
        pictures: (field) => read.pictures(field),
      };
      if (!Number.isSafeInteger(length) || length < 1)
        throw new InputError(`${where}: episode ${quote(id)} has no steps`);
      if (ids.has(id)) throw new InputError(`${where}: episode ${quote(id)} is there twice`);
      ids.add(id);
      const actions = (await joinedNumbers(episode, mapping.action, widths, false))!;
      const states = await joinedNumbers(episode, mapping.state, widths, true);
      if (mapping.time) await checkTimes(episode, mapping.time, rate, irregular);
      const tables: Uint8Array[] = [];
      const known = {
        id,
        length,
        where,
        ...(await textsOf(episode, mapping)),
        pictures: await picturesOf(episode, mapping, tables),
      };
      const fresh = await taken();
      Object.assign(dependencies, fresh.dependencies);
      noticed.push(...fresh.notes);
      const record: EpisodeRecord = { known, widths: Object.fromEntries(widths), irregular, ...fresh };
      const numbers = states ? joinBytes([bytesOf(actions), bytesOf(states)]) : bytesOf(actions);
      episodes.push({ known, place: await writer.append(record, numbers, joinBytes(tables)) });
      onProgress?.(episodes.length, source.count);
    }
    if (episodes.length === 0) throw new InputError(`${place}: no episode in it`);
    const last = await taken();
    Object.assign(dependencies, last.dependencies);
    // A resumed import notices again what was noticed when the set was opened.
    const notes = new Set([...noticed, ...last.notes]);
    const sum = (fields: readonly SourceField[]) => fields.reduce((all, { name }) => all + (widths.get(name) ?? 0), 0);
    const [actionDimension, stateDimension] = [sum(mapping.action), sum(mapping.state)];
    const actionNames = mapping.action.flatMap((field) => field.names ?? []);
    const cameras = [...mapping.cameras].map(([camera, { name }]) => [camera, name] as const);
    const seen = cameras.filter(([, field]) => episodes.some(({ known }) => known.pictures[field]));
    const empty = cameras.filter((camera) => !seen.includes(camera)).map(([camera]) => camera);
    const fields = mappedFields(source.fields, mapping, widths);
    const set: KnownDataset = {
      kind: source.kind,
      name: source.name,
      rate,
      fields,
      notes: [
        ...leftOut(fields),
        ...notes,
        ...irregularNote(irregular, rate),
        ...(empty.length > 0 ? [`cameras without a picture in any episode: ${empty.join(', ')}`] : []),
      ],
      ...(actionNames.length === actionDimension && { actionNames }),
      actionDimension,
      stateDimension,
      cameras: seen,
    };
    const directory: Directory = { set, episodes, dependencies };
    return { directory, reader: await writer.finish(directory) };
  } catch (error) {
    await writer.stop();
    throw error;
  }
}

/** The texts of an episode, of which only changes are kept. */
async function textsOf(episode: SourceEpisode, { language, subtask }: Mapping) {
  const { id, length, where } = episode;
  const read = async (field: SourceField) => {
    const texts = await episode.texts(field.name);
    if (texts.length > 1 && texts.length !== length)
      throw new InputError(
        `${where}: episode ${quote(id)}: ${quote(field.name)} has texts for ${texts.length} of ${length} steps`,
      );
    return texts;
  };
  const columns: (readonly (readonly string[])[])[] = [];
  for (const field of language) columns.push(await read(field));
  const subtasks = subtask ? await read(subtask) : [];
  const steps = Math.max(0, ...columns.map((own) => own.length));
  const at = (own: readonly (readonly string[])[], step: number) => own[own.length === 1 ? 0 : step] ?? [];
  return {
    instructions: changesOf(steps, (step) => instructionsAmong(columns.flatMap((own) => at(own, step)))),
    subtasks: changesOf(subtasks.length, (step) => instructionsAmong(subtasks[step])[0] ?? null),
  };
}

function changesOf<T>(steps: number, at: (step: number) => T): Changes<T> {
  const changes: [number, T][] = [];
  let last = '';
  for (let step = 0; step < steps; step++) {
    const value = at(step);
    const text = JSON.stringify(value);
    if (text !== last) changes.push([step, value]);
    last = text;
  }
  return changes;
}

async function picturesOf(episode: SourceEpisode, { cameras }: Mapping, tables: Uint8Array[]) {
  const found: Record<string, KnownPictures> = {};
  for (const [camera, { name }] of cameras) {
    const pictures = await episode.pictures(name);
    const what = `${episode.where}: episode ${quote(episode.id)}: camera ${quote(camera)}`;
    if (pictures) found[name] = packPictures(pictures, episode.length, what, tables);
  }
  return found;
}
