import * as v from 'valibot';
import { counted, InputError, quote } from '../../../engine/files/errors.ts';
import { dictionary } from '../../../engine/files/json-schema.ts';
import { nearest } from '../../../engine/files/nearest.ts';
import type { FieldMap, MappedField } from '../dataset.ts';
import type { FieldUse, SourceField } from '../import/source.ts';

const field = v.string('a field');
const list = v.optional(v.array(field, 'a list of fields, ["FIELD", ...]'));
const one = v.optional(v.nullable(v.string('a field, "FIELD", or null')));
const CAMERAS = 'the field of each camera, { "NAME": "FIELD" }';
const cameras = v.pipe(
  dictionary(field, CAMERAS),
  v.check((own) => !('' in own), CAMERAS),
);
const entries = {
  ...{ action: list, state: list, cameras: v.optional(cameras), language: list },
  ...{ subtask: one, time: one },
};
const KEYS = `the keys of a map are ${Object.keys(entries).join(', ')}`;

export const fieldMapSchema: v.GenericSchema<unknown, FieldMap> = v.pipe(
  dictionary(v.unknown(), `a map, such as { "action": ["FIELD"] }; ${KEYS}`),
  v.strictObject(entries, KEYS),
);

/** The fields of each use, at most one of subtasks and of times, and the cameras by name. */
export interface Mapping extends Readonly<Record<Exclude<FieldUse, 'camera'>, readonly SourceField[]>> {
  readonly cameras: readonly (readonly [name: string, field: SourceField])[];
}

/** No field is known to be the action: `fields` are all that there are. */
export class NoAction extends InputError {
  constructor(
    message: string,
    readonly fields: readonly MappedField[],
  ) {
    super(message);
  }
}

const kinds: Readonly<Record<FieldUse, SourceField['kind']>> = {
  ...{ action: 'numbers', state: 'numbers', time: 'numbers', language: 'texts', subtask: 'texts', camera: 'pictures' },
};
/** The most names in one line. */
const NAMES = 12;

/**
 * Chooses the fields of each use: those of the map, and where it says nothing those that the importer takes.
 *
 * @param place what the set is called in errors
 * @throws InputError if the map names an unknown field or one of another kind; NoAction
 */
export function mappingOf(fields: readonly SourceField[], map: FieldMap, place: string): Mapping {
  const named = (name: string, use: FieldUse, key = quote(use)): SourceField => {
    const wrong = (text: string) => new InputError(`${place}: --map, ${key}: ${text}`);
    const field = fields.find((own) => own.name === name);
    const names = fields.map((own) => own.name);
    if (!field) throw wrong(`there is no field ${quote(name)}; ${nearest(name, names)}`);
    if (field.kind !== kinds[use]) throw wrong(`${quote(name)} holds ${field.kind}, ${kinds[use]} are needed`);
    if (field.shape?.includes(0)) throw wrong(`${quote(name)} has shape ${quote(field.shape)}, which holds nothing`);
    return field;
  };
  const chosen = (use: Exclude<FieldUse, 'camera'>): SourceField[] => {
    const given = map[use];
    if (given === undefined) return fields.filter((field) => field.use === use);
    const names = typeof given === 'string' ? [given] : (given ?? []);
    const twice = names.find((name, i) => names.indexOf(name) < i);
    if (twice !== undefined) throw new InputError(`${place}: --map, "${use}": ${quote(twice)} is named twice`);
    return names.map((name) => named(name, use));
  };
  const taken = fields.filter((field) => field.use === 'camera');
  const cameras = map.cameras
    ? Object.entries(map.cameras).map(
        ([name, field]) => [name, named(field, 'camera', `camera ${quote(name)}`)] as const,
      )
    : cameraNames(taken).map((name, i) => [name, taken[i]] as const);
  const mapping: Mapping = {
    ...{ action: chosen('action'), state: chosen('state'), language: chosen('language'), cameras },
    ...{ subtask: chosen('subtask').slice(0, 1), time: chosen('time').slice(0, 1) },
  };
  if (mapping.action.length > 0) return mapping;
  const numbers = fields.filter(({ kind, shape }) => kind === 'numbers' && !shape?.includes(0));
  const there = numbers.slice(0, NAMES).map(({ name, shape }) => name + (shape ? ` [${shape.join(', ')}]` : ''));
  const more = numbers.length > NAMES ? ` and ${numbers.length - NAMES} more` : '';
  const likely =
    numbers.find(({ name }) => /action/i.test(name)) ??
    numbers.find(({ name, use, bookkeeping }) => use !== 'time' && !bookkeeping && !/time|index/i.test(name));
  const which =
    numbers.length === 0
      ? 'no field has numbers'
      : `fields with numbers are ${there.join(', ')}${more}: say which with --map FILE, { "action": [${quote(likely?.name ?? 'FIELD')}], "state": [...] }`;
  const widths = fields.map(({ name, shape = [] }) => [name, shape.reduce((all, size) => all * size, 1)] as const);
  throw new NoAction(
    `${place}: no field is known to be the action; ${which}`,
    mappedFields(fields, mapping, new Map(widths)),
  );
}

/** Names of cameras: without the prefix that all share, and never so short that two are the same. */
function cameraNames(cameras: readonly SourceField[]): string[] {
  const different = (names: string[]) => new Set(names).size === names.length && !names.includes('');
  const usual = cameras.map(
    ({ name, camera }) => camera ?? name.replace(/^(steps\/)?(observations?|obs)[./](images?[./])?/, ''),
  );
  if (different(usual)) return usual;
  const parts = cameras.map(({ name }) => name.split(/(?<=[./])/));
  let shared = 0;
  while (parts.every((own) => shared < own.length - 1 && own[shared] === parts[0][shared])) shared += 1;
  return parts.map((own) => own.slice(shared).join(''));
}

/** Lists every field with its use; `widths` are the numbers of a step in each of the fields of numbers. */
export function mappedFields(
  fields: readonly SourceField[],
  mapping: Mapping,
  widths: ReadonlyMap<string, number>,
): MappedField[] {
  const slots = (what: string, own: readonly SourceField[], field: SourceField) => {
    const widthOf = ({ name }: SourceField) => widths.get(name) ?? 0;
    const first = own.slice(0, own.indexOf(field)).reduce((sum, one) => sum + widthOf(one), 0);
    const last = first + widthOf(field) - 1;
    if (!own.includes(field) || last < first) return [];
    return [first === last ? `${what} ${first}` : `${what} ${first} to ${last}`];
  };
  return fields.map((field) => {
    const { name, kind, shape, reason, use } = field;
    const uses = [
      ...slots('actions', mapping.action, field),
      ...slots('state', mapping.state, field),
      ...mapping.cameras.flatMap(([camera, own]) => (own === field ? [`camera ${camera}`] : [])),
      ...(['language', 'subtask', 'time'] as const).filter((one) => mapping[one].includes(field)),
    ];
    // A field that the map has chosen has no reason against it.
    if (uses.length > 0) return { name, kind, shape, use: uses.join(', '), reason: use === null ? undefined : reason };
    const why = use === null ? 'its meaning is not known' : `another field is taken as the ${use}`;
    return { name, kind, shape, use: null, reason: reason ?? why };
  });
}

/** One line that names what is left out, grouped by reason, and counts what only says how the set is laid out; nothing if all is of use. */
export function leftOut(fields: readonly SourceField[], mapped: readonly MappedField[]): string[] {
  const groups = new Map<string, string[]>();
  const unused = mapped.filter(({ use }) => use === null);
  const known = new Set(fields.filter(({ bookkeeping }) => bookkeeping).map(({ name }) => name));
  const losses = unused.filter(({ name }) => !known.has(name));
  const bookkeeping = unused.length - losses.length;
  for (const { name, reason } of losses)
    groups.set(reason!, [...(groups.get(reason!) ?? []), name.replace(/\s+/g, ' ')]);
  if (unused.length === 0) return [];
  const texts = [...groups].map(([reason, names]) => {
    const more = names.length > 4 ? ` and ${names.length - 4} more` : '';
    return `${names.slice(0, 4).join(', ')}${more} (${reason})`;
  });
  if (bookkeeping > 0) texts.push(`${counted(bookkeeping, 'column')} of bookkeeping`);
  return [`left out: ${texts.join('; ')}`];
}
