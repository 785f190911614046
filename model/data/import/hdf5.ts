import type { Group, Dataset as Table } from 'h5wasm';
import { InputError, quote } from '../../../engine/files/errors.ts';
import {
  describe,
  type Entry,
  type Found,
  isTable,
  missingFilter,
  notText,
  numbersOf,
  openLibrary,
  parsed,
  pictureOf,
  textsOf,
  wordsIn,
} from './hdf5-tables.ts';
import type { Importer, ImportOptions, ListedFolder, Source, SourceEpisode, SourceField } from './source.ts';
import { type UsePatterns, withUses } from './uses.ts';

// This file runs under node only; the library is loaded when a set is opened.

/** Groups are followed to this depth: one may hold itself. */
const DEPTH_LIMIT = 12;

/**
 * What programs call their tables and attributes, relative to an episode; a name that begins with `/` is of the file. ACT (ALOHA) has
 * action and observations/qpos; LIBERO actions and obs/ee_states; robomimic and robocasa actions and obs/robot0_eef_pos, with robot1
 * for a second arm.
 */
const uses: UsePatterns = [
  ['action', 'numbers', /^(base_)?action$/, /^actions$/],
  [
    'state',
    'numbers',
    /^obs\/(ee|gripper)_states$/,
    /^obs\/robot\d+_(eef_pos|eef_quat|gripper_qpos)$/,
    /^observations?\/(.*\/)?qpos$/,
    /^((obs|observations?)\/(.*\/)?)?state$/,
  ],
  [
    'language',
    'texts',
    /^([^/].*[/@]|@)?(language_instructions?|instructions?|language(_raw)?|lang|prompt|ep_meta)$/,
    /[/@](language_instructions?|instructions?|language(_raw)?|lang|prompt|problem_info|env_args)$/,
    /(^|[/@])task(_description)?$/,
  ],
  ['subtask', 'texts', /^subtasks?$/],
  ['time', 'numbers', /^((obs|observations?)\/)?(timestamps?|time)$/],
  ['camera', 'pictures', /^(?!\/)/],
];
/** Why tables of some names have no use. */
const reasons: readonly (readonly [RegExp, string])[] = [
  [/^actions?\//, 'a part of an action that is a group: choose the parts and their order with --map'],
];
const byNumber = new Intl.Collator('en', { numeric: true }).compare;

/** Reads HDF5 files by their paths: one for each episode (ACT), or many episodes in one (/data/demo_0 of robomimic). */
export const hdf5: Importer = {
  format: 'HDF5',
  version: 4,
  recognises: async (folder) => (await folder.list()).some(isHdf5),
  open,
};

const isHdf5 = (name: string) => /\.(hdf5|h5)$/i.test(name);

type Reading = <T>(file: string, use: (root: Group) => T) => T;

async function open(folder: ListedFolder, { note = () => {} }: ImportOptions): Promise<Source> {
  if (folder.path === undefined)
    throw new InputError(`${folder.name}: HDF5 files are read from a disk only, by the command line`);
  const within = await openLibrary();
  const reading: Reading = (file, use) => {
    try {
      return within(`${folder.path}/${file}`, use);
    } catch (error) {
      if (error instanceof InputError) throw error;
      throw new InputError(`${file}: cannot be opened, is damaged, or no HDF5 file (${lastReason(error)})`);
    }
  };
  const names = [...(await folder.list())].sort(byNumber);
  for (const file of names.filter(isHdf5)) await (await folder.open(file)).close();
  let known: ReturnType<typeof surveyOf> | undefined;
  const survey = () => (known ??= surveyOf(folder.name, names, reading, note)); // pictures need none
  return {
    get kind() {
      return survey().kind;
    },
    get rate() {
      return survey().rate;
    },
    get fields() {
      return survey().fields;
    },
    get count() {
      return survey().places.length;
    },
    async *episodes(first) {
      for (const { id, file, place } of survey().places.slice(first))
        yield episodeOf({ id, file, place, fields: survey().fields, inFile: (use) => reading(file, use), note });
    },
    picture: async ({ file, table, scale }, index) =>
      reading(`${file}`, (root) => pictureOf(root.get(`${table}`) as Table, index, Number(scale), `${file}: ${table}`)),
  };
}

/** Goes through every group of every file. */
function surveyOf(folder: string, names: readonly string[], reading: Reading, say: (line: string) => void) {
  const found = new Map<string, Found>();
  const places: { readonly id: string; readonly file: string; readonly place: string }[] = [];
  const rates = new Set<number>();
  /** How many episodes have each field. */
  const counts = new Map<string, number>();
  const note = ([name, entry]: [string, Entry]) => {
    const rate = rateOf(name, entry);
    if (rate !== null) rates.add(rate);
    const known = found.get(name);
    if (!known || known.kind === 'other') found.set(name, describe(name, entry));
    if (!known && isTable(entry)) for (const key of Object.keys(entry.attrs)) note([`${name}@${key}`, 'of a table']);
  };
  const files = names.filter(isHdf5);
  for (const file of files)
    reading(file, (root) => {
      const inside = placesIn(root);
      for (const place of inside) {
        const stem = place === '' || files.length > 1 ? file.replace(/\.\w+$/, '') : '';
        places.push({ id: [stem, place.replace(/^data\//, '')].filter(Boolean).join('/'), file, place });
        for (const named of entriesOf(root.get(`/${place}`) as Group, '')) {
          counts.set(named[0], (counts.get(named[0]) ?? 0) + 1);
          note(named);
        }
      }
      if (inside[0] !== '') for (const named of entriesOf(root, '/', new Set(inside))) note(named);
    });
  for (const name of names) if (!isHdf5(name)) note([`/${name}`, 'no HDF5 file']);
  if (rates.size > 1) throw new InputError(`${folder}: its files state several rates: ${[...rates].join(', ')}`);
  const fields = withUses(
    [...found.values()].sort((a, b) => byNumber(a.name, b.name)),
    uses,
    reasons,
  );
  for (const { name, use } of fields)
    if ((use === 'camera' || use === 'language') && (counts.get(name) ?? places.length) < places.length)
      say(`${name}: ${counts.get(name)} of ${places.length} episodes have it`);
  const acts = fields.some(({ use }) => use === 'action');
  const [kind, usual] = !acts
    ? ['HDF5 files']
    : places[0].place === ''
      ? ['HDF5 files of ACT (ALOHA)', 50]
      : ['HDF5 file of robomimic or LIBERO', 20];
  return { kind, rate: { stated: [...rates][0], usual }, fields, places };
}

/** The groups that are episodes: those with actions or, where none has them, those named so; or the whole file. */
function placesIn(root: Group): string[] {
  const acts = (group: Group) => group.keys().some((key) => /^(base_)?actions?$/.test(key));
  const groupsOf = (holder: Group) => {
    const keys = holder.keys().sort(byNumber);
    return keys.map((key) => holder.get(key)).filter(isGroup);
  };
  for (const holder of acts(root) ? [] : [root.get('data'), root].filter(isGroup)) {
    const groups = groupsOf(holder);
    const places = groups.some(acts)
      ? groups.filter(acts)
      : groups.filter(({ path }) => /(demo|episode|ep|traj)\D?\d+$/.test(path));
    if (places.length > 0) return places.map(({ path }) => path.slice(1));
  }
  return [''];
}

const isGroup = (entry: unknown): entry is Group => entry !== null && typeof entry === 'object' && 'keys' in entry;

/** Every table of a group and of the groups in it, and every attribute of these, but for those `apart`. */
function* entriesOf(group: Group, name: string, apart?: Set<string>, depth = 0): Generator<[string, Entry]> {
  for (const [key, attribute] of Object.entries(group.attrs)) yield [`${name}@${key}`, attribute];
  for (const key of group.keys()) {
    const path = name === '' || name === '/' ? `${name}${key}` : `${name}/${key}`;
    if (apart?.has(path.slice(1))) continue;
    const own = group.get(key);
    if (isTable(own)) yield [path, own];
    else if (!isGroup(own)) yield [path, 'nothing in this file; links to others are not followed'];
    else if (depth === DEPTH_LIMIT || group.get_link(own.path) !== null)
      yield [path, 'a link to a group, or nested too deeply'];
    else if (own.keys().length === 0) yield [path, 'a group with nothing in it'];
    else yield* entriesOf(own, path, apart, depth + 1);
  }
}

interface Place {
  readonly id: string;
  readonly file: string;
  /** The path of the group, without a slash at its start; empty for the whole file. */
  readonly place: string;
  readonly fields: readonly SourceField[];
  inFile<T>(use: (root: Group) => T): T;
  note(line: string): void;
}

function episodeOf({ id, file, place, fields, inFile, note }: Place): SourceEpisode {
  const where = place === '' ? file : `${file}: ${place}`;
  const entryOf = (root: Group, field: string): Exclude<Entry, string> | null => {
    const path = (field[0] === '/' ? field : `/${place}/${field}`).replace(/\/+/g, '/');
    const table = root.get(path);
    if (isTable(table)) return table;
    const at = path.lastIndexOf('@');
    const holder = at < 0 ? null : root.get(path.slice(0, at).replace(/(.)\/$/, '$1'));
    return (holder as Group | null)?.attrs[path.slice(at + 1)] ?? null;
  };
  const rowsOf = (chosen: readonly SourceField[]) =>
    inFile((root) => chosen.map(({ name }) => entryOf(root, name)).map((own) => (isTable(own) && own.shape?.[0]) || 0));
  const length =
    rowsOf(fields.filter(({ use }) => use === 'action')).find((rows) => rows > 0) ??
    mostFrequent(rowsOf(fields.filter(({ kind }) => kind === 'numbers')).filter((rows) => rows > 0));
  if (length === undefined)
    throw new InputError(`${where}: no actions; there are ${quote(inFile((root) => root.paths()))}`);
  /** Reads the table of a field, with one row for each step. */
  const reading = <T>(field: string, use: (table: Table, what: string) => T): T =>
    inFile((root) => {
      const table = entryOf(root, field);
      const what = `${where}: ${quote(field)}`;
      if (!isTable(table)) throw new InputError(`${what} is missing, which other episodes have`);
      checkFilter(table, what);
      if (table.shape?.[0] !== length)
        throw new InputError(`${what} has shape ${quote(table.shape)}, where the episode has ${length} steps`);
      return use(table, what);
    });
  return {
    id,
    length,
    where,
    numbers: async (field) => reading(field, (table) => numbersOf(table, null)),
    texts: async (field) =>
      inFile((root) => {
        const entry = entryOf(root, field);
        if (entry === null) return [[]];
        if (isTable(entry)) checkFilter(entry, `${where}: ${quote(field)}`);
        const value = textsOf(entry);
        if (value === null) throw new InputError(`${where}: ${quote(field)}: ${notText}`);
        const list: readonly string[] = Array.isArray(value) ? value : [];
        const words = new Set(list).size === list.length && list.every((text) => /^\S+$/.test(text));
        if (isTable(entry) && !words && length > 1 && list.length === length) return list.map((text) => wordsIn(text));
        const own = wordsIn(value);
        if (list.length > 1 && own.length === 1) note(`${field}: a list of words, which are joined to one instruction`);
        return [own];
      }),
    pictures: async (field) =>
      inFile((root) => entryOf(root, field)) === null
        ? null
        : reading(field, (table, what) => {
            const { kind, scale = -1, reason } = describe(field, table);
            // The range of floats is guessed, and one guess holds for all episodes.
            if (scale !== (fields.find(({ name }) => name === field) as Found).scale)
              throw new InputError(
                `${what} holds ${kind}${reason ? ` (${reason})` : ''}, other than in the first episode that has it: save uint8`,
              );
            return { kind: 'pick', place: { file, table: table.path, scale }, count: length };
          }),
  };
}

/** @throws InputError if a table is compressed in a way that the library lacks */
function checkFilter(table: Table, what: string): void {
  const filter = missingFilter(table);
  if (filter)
    throw new InputError(
      `${what} is compressed by the filter ${filter}, which cannot be read here; rewrite the file: h5repack -f GZIP=4 IN OUT`,
    );
}

/** Control steps per second, where an attribute states it: `fps`, or robomimic's env_args. */
function rateOf(name: string, entry: Entry): number | null {
  if (typeof entry === 'string' || isTable(entry) || !/@(fps|env_args)$/.test(name)) return null;
  const kept = typeof entry.value === 'string' ? (parsed(entry.value)?.env_kwargs as { control_freq?: number }) : null;
  const rate = Number(name.endsWith('@fps') ? entry.value : kept?.control_freq);
  return rate > 0 && Number.isFinite(rate) ? rate : null;
}

/** The most frequent of some counts, the first of equals. */
function mostFrequent(counts: readonly number[]): number | undefined {
  const times = (count: number) => counts.filter((other) => other === count).length;
  return counts.toSorted((a, b) => times(b) - times(a))[0];
}

/** Extracts the innermost of the reasons that the library lists on many lines. */
function lastReason(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  const reasons = [...text.matchAll(/in \w+\(\): ([^\n]+)/g)];
  return reasons.at(-1)?.[1] ?? text.split('\n')[0];
}
