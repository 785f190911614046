import { joinBytes } from '../../../engine/files/bytes.ts';
import { InputError, quote } from '../../../engine/files/errors.ts';
import type { Dataset } from '../dataset.ts';
import type { Source, SourceEpisode, SourceField } from '../import/source.ts';
import { instructionsAmong } from '../parts.ts';
import { checkTimes, type Irregular, irregularNote, joinedNumbers, type Rate } from './checks.ts';
import type { Dependencies, WatchedFolder } from './folders.ts';
import type { Log, LogRecord, Logs, PartPlace } from './log.ts';
import { leftOut, type Mapping, mappedFields } from './mapping.ts';
import { type KnownPictures, knownPictures } from './pictures.ts';

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
  /** The parts of its record: numbers (actions, then states) and tables of pictures. */
  readonly parts: readonly PartPlace[];
}

/** The directory of an index. */
export interface Directory
  extends Required<Pick<Dataset, 'rate' | 'fields' | 'notes' | 'actionDimension' | 'stateDimension'>> {
  /** Tells this index from others of the data set. */
  readonly key: string;
  readonly kind: string;
  readonly name?: string;
  readonly actionNames?: readonly string[];
  readonly irregularSteps: number;
  /** The cameras, and the field of each. */
  readonly cameras: readonly (readonly [name: string, field: string])[];
  readonly episodes: readonly KnownEpisode[];
  readonly dependencies: Dependencies;
}

/** The record of an episode, with what holds for all episodes up to it. */
interface EpisodeRecord {
  readonly known: Omit<KnownEpisode, 'parts'>;
  readonly widths: Readonly<Record<string, number>>;
  readonly irregular: Irregular;
  readonly notes: readonly string[];
  /** What is new since the record before. */
  readonly dependencies: Dependencies;
}

interface Importing {
  readonly source: Source;
  readonly mapping: Mapping;
  readonly rate: Rate;
  readonly folder: WatchedFolder;
  readonly logs: Logs;
  /** What the importer has noticed so far. */
  readonly notes: Set<string>;
  onProgress?(done: number, total: number | undefined): void;
}

export const INDEX = 'index';

const bytesOf = (values: Float32Array) => new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

/** Reads every episode of a source once, checks it, and writes it to the index. An interrupted import is resumed by the same. */
export function importSource({ source, mapping, rate, folder, logs, notes, onProgress }: Importing): Promise<Log> {
  const beginning = JSON.stringify([source.fields, mapping, rate]);
  const accepts = async ([first, ...records]: readonly LogRecord[]) => {
    const before = Object.assign({}, ...records.map(({ json }) => (json as EpisodeRecord).dependencies));
    return first?.json === beginning && (await folder.unchanged(before)) ? 1 + records.length : 0;
  };
  return logs.write(
    INDEX,
    async (append, [first, ...records]): Promise<Directory> => {
      if (!first) await append(beginning, []);
      const kept = records.map(({ json }) => json as EpisodeRecord);
      const episodes = kept.map(({ known }, i) => ({ ...known, parts: records[i].parts }));
      const ids = new Set(episodes.map(({ id }) => id));
      const widths = new Map(Object.entries(kept.at(-1)?.widths ?? {}));
      const irregular = kept.at(-1)?.irregular ?? { count: 0, named: [] };
      for (const note of kept.at(-1)?.notes ?? []) notes.add(note);
      const dependencies: Dependencies = Object.assign({}, ...kept.map((record) => record.dependencies));
      let pictures = episodes.reduce((sum, episode) => sum + countOf(episode), 0);
      onProgress?.(episodes.length, source.count);
      for await (const read of source.episodes(episodes.length)) {
        const { id, length } = read;
        const where = read.where.startsWith(folder.name) ? read.where : `${folder.name}/${read.where}`;
        const what = `${where}: episode ${quote(id)}`;
        if (!Number.isSafeInteger(length) || length < 1) throw new InputError(`${what} has no steps`);
        if (ids.has(id)) throw new InputError(`${what} is there twice`);
        ids.add(id);
        const actions = (await joinedNumbers(read, what, mapping.action, widths))!;
        const states = await joinedNumbers(read, what, mapping.state, widths, true);
        for (const time of mapping.time) await checkTimes(read, what, time, rate, irregular);
        const parts = [states ? joinBytes([bytesOf(actions), bytesOf(states)]) : bytesOf(actions)];
        const known = {
          ...{ id, length, where },
          instructions: await changesOf(read, what, mapping.language, (texts) => texts),
          subtasks: await changesOf(read, what, mapping.subtask, ([text]) => text ?? null),
          pictures: await picturesOf(read, what, mapping, pictures, parts),
        };
        pictures += countOf(known);
        const fresh = await folder.fresh();
        Object.assign(dependencies, fresh);
        const own = { known, widths: Object.fromEntries(widths), irregular, notes: [...notes], dependencies: fresh };
        episodes.push({ ...known, parts: await append(own satisfies EpisodeRecord, parts) });
        onProgress?.(episodes.length, source.count);
      }
      if (episodes.length === 0) throw new InputError(`${folder.name}: no episode in it`);
      Object.assign(dependencies, await folder.fresh());
      const widthOf = (fields: readonly SourceField[]) =>
        fields.reduce((sum, { name }) => sum + (widths.get(name) ?? 0), 0);
      const [actionDimension, stateDimension] = [widthOf(mapping.action), widthOf(mapping.state)];
      const actionNames = mapping.action.flatMap((field) => field.names ?? []);
      const cameras = mapping.cameras.map(([camera, { name }]) => [camera, name] as const);
      const unseen = cameras.filter(([, field]) => !episodes.some((episode) => episode.pictures[field]));
      const fields = mappedFields(source.fields, mapping, widths);
      return {
        ...{
          key: crypto.randomUUID(),
          kind: source.kind,
          name: source.name,
          rate: rate.value,
          irregularSteps: irregular.count,
          fields,
          actionDimension,
          stateDimension,
        },
        notes: [
          ...leftOut(source.fields, fields),
          ...notes,
          ...irregularNote(irregular, rate.value),
          ...(unseen.length > 0
            ? [`cameras without a picture in any episode: ${unseen.map(([camera]) => camera).join(', ')}`]
            : []),
        ],
        ...(actionNames.length === actionDimension && { actionNames }),
        ...{ cameras: cameras.filter((camera) => !unseen.includes(camera)), episodes, dependencies },
      };
    },
    accepts,
  );
}

const countOf = ({ pictures }: Pick<KnownEpisode, 'pictures'>) =>
  Object.values(pictures).reduce((sum, { count }) => sum + count, 0);

/** Reads fields of texts together, of which only changes are kept. */
async function changesOf<T>(
  episode: SourceEpisode,
  what: string,
  fields: readonly SourceField[],
  make: (texts: string[]) => T,
): Promise<Changes<T>> {
  const columns: (readonly (readonly string[])[])[] = [];
  for (const { name } of fields) {
    const texts = await episode.texts(name);
    if (texts.length > 1 && texts.length !== episode.length)
      throw new InputError(`${what}: ${quote(name)} has texts for ${texts.length} of ${episode.length} steps`);
    columns.push(texts);
  }
  const changes: [number, T][] = [];
  let last = '';
  for (let step = 0; step < Math.max(0, ...columns.map(({ length }) => length)); step++) {
    const value = make(instructionsAmong(columns.flatMap((own) => own[own.length === 1 ? 0 : step] ?? [])));
    const text = JSON.stringify(value);
    if (text !== last) changes.push([step, value]);
    last = text;
  }
  return changes;
}

async function picturesOf(
  episode: SourceEpisode,
  what: string,
  { cameras }: Mapping,
  before: number,
  parts: Uint8Array[],
) {
  const found: Record<string, KnownPictures> = {};
  for (const [camera, { name }] of cameras) {
    const pictures = await episode.pictures(name);
    const place = {
      first: before + countOf({ pictures: found }),
      length: episode.length,
      what: `${what}: camera ${quote(camera)}`,
    };
    const own = pictures && knownPictures(pictures, place, parts);
    if (own && own.count > 0) found[name] = own;
  }
  return found;
}
