import { joinBytes } from '../../../engine/files/bytes.ts';
import { InputError, quote } from '../../../engine/files/errors.ts';
import type { MappedField } from '../dataset.ts';
import type { Source, SourceEpisode, SourceField } from '../import/source.ts';
import { instructionsAmong } from '../parts.ts';
import { checkTimes, type Irregular, irregularNote, joinedNumbers } from './checks.ts';
import type { Dependencies } from './folders.ts';
import type { Log, Logs, PartPlace } from './log.ts';
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

/** An episode with its record, whose parts are numbers (actions, then states) and tables of pictures. */
export interface StoredEpisode {
  readonly known: KnownEpisode;
  readonly parts: readonly PartPlace[];
}

/** The directory of an index. */
export interface Directory {
  /** Tells this index from others of the data set. */
  readonly key: string;
  readonly set: KnownDataset;
  readonly episodes: readonly StoredEpisode[];
  readonly dependencies: Dependencies;
}

/** The record of an episode, with what holds for all episodes up to it. */
interface EpisodeRecord {
  readonly known: KnownEpisode;
  readonly widths: Readonly<Record<string, number>>;
  readonly irregular: Irregular;
  /** What is new since the record before. */
  readonly dependencies: Dependencies;
  readonly notes: readonly string[];
}

interface Importing {
  readonly source: Source;
  readonly mapping: Mapping;
  readonly rate: number;
  /** The set's place, for errors. */
  readonly place: string;
  readonly logs: Logs;
  /** The dependencies, and what the importer has noticed, since the last call. */
  taken(): Promise<Pick<EpisodeRecord, 'dependencies' | 'notes'>>;
  /** Whether files are as they were. */
  unchanged(dependencies: Dependencies): Promise<boolean>;
  onProgress?(done: number, total: number | undefined): void;
}

const bytesOf = (values: Float32Array) => new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

export const INDEX = 'index';

/** Reads every episode of a source once, checks it, and writes it to the index. An interrupted import is resumed by the same. */
export async function importSource(own: Importing): Promise<Log> {
  const { source, mapping, rate, place, taken, onProgress } = own;
  // A mapping as JSON has no cameras, which are a map.
  const beginning = JSON.stringify([source.fields, mapping, [...mapping.cameras], rate]);
  const { earlier, writer } = await own.logs.begin(INDEX, async ([first, ...records]) => {
    if (first?.json !== beginning) return 0;
    const before = Object.assign({}, ...records.map(({ json }) => (json as EpisodeRecord).dependencies));
    return (await own.unchanged(before)) ? 1 + records.length : 0;
  });
  try {
    if (earlier.length === 0) await writer.append(beginning, []);
    const kept = earlier.slice(1).map(({ json, parts }) => ({ ...(json as EpisodeRecord), parts }));
    const episodes: StoredEpisode[] = kept.map(({ known, parts }) => ({ known, parts }));
    const dependencies: Dependencies = Object.assign({}, ...kept.map((record) => record.dependencies));
    const notes = new Set(kept.flatMap((record) => record.notes));
    const fresh = async () => {
      const own = await taken();
      Object.assign(dependencies, own.dependencies);
      for (const note of own.notes) notes.add(note);
      return own;
    };
    const widths = new Map(Object.entries(kept.at(-1)?.widths ?? {}));
    const irregular: Irregular = kept.at(-1)?.irregular ?? { count: 0, named: [] };
    const ids = new Set(episodes.map(({ known }) => known.id));
    let pictures = episodes.reduce((sum, { known }) => sum + countOf(known), 0);
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
      const parts: Uint8Array[] = [states ? joinBytes([bytesOf(actions), bytesOf(states)]) : bytesOf(actions)];
      const texts = await textsOf(episode, mapping);
      const known = { id, length, where, ...texts, pictures: await picturesOf(episode, mapping, pictures, parts) };
      pictures += countOf(known);
      const record: EpisodeRecord = { known, widths: Object.fromEntries(widths), irregular, ...(await fresh()) };
      episodes.push({ known, parts: await writer.append(record, parts) });
      onProgress?.(episodes.length, source.count);
    }
    if (episodes.length === 0) throw new InputError(`${place}: no episode in it`);
    await fresh();
    const sum = (fields: readonly SourceField[]) => fields.reduce((all, { name }) => all + (widths.get(name) ?? 0), 0);
    const actionNames = mapping.action.flatMap((field) => field.names ?? []);
    const cameras = [...mapping.cameras].map(([camera, { name }]) => [camera, name] as const);
    const isSeen = ([, field]: readonly [string, string]) => episodes.some(({ known }) => known.pictures[field]);
    const unseen = cameras.filter((camera) => !isSeen(camera)).map(([camera]) => camera);
    const fields = mappedFields(source.fields, mapping, widths);
    const set: KnownDataset = {
      ...{ kind: source.kind, name: source.name, rate, fields },
      notes: [
        ...leftOut(fields),
        ...notes,
        ...irregularNote(irregular, rate),
        ...(unseen.length > 0 ? [`cameras without a picture in any episode: ${unseen.join(', ')}`] : []),
      ],
      ...(actionNames.length === sum(mapping.action) && { actionNames }),
      ...{ actionDimension: sum(mapping.action), stateDimension: sum(mapping.state), cameras: cameras.filter(isSeen) },
    };
    return await writer.finish({ key: crypto.randomUUID(), set, episodes, dependencies } satisfies Directory);
  } catch (error) {
    await writer.stop();
    throw error;
  }
}

const countOf = ({ pictures }: KnownEpisode) => Object.values(pictures).reduce((sum, { count }) => sum + count, 0);

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

async function picturesOf(episode: SourceEpisode, { cameras }: Mapping, before: number, parts: Uint8Array[]) {
  const found: Record<string, KnownPictures> = {};
  let first = before;
  for (const [camera, { name }] of cameras) {
    const pictures = await episode.pictures(name);
    if (!pictures) continue;
    const what = `${episode.where}: episode ${quote(episode.id)}: camera ${quote(camera)}`;
    const own = packPictures(pictures, { first, length: episode.length, what }, parts);
    if (own.count > 0) found[name] = own;
    first += own.count;
  }
  return found;
}
