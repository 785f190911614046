import * as v from 'valibot';
import { InputError, quote } from '../../../engine/files/errors.ts';
import { nearest } from '../../../engine/files/nearest.ts';
import type { FieldMap, MappedField } from '../dataset.ts';
import type { FieldUse, SourceField } from '../import/source.ts';

export const fieldMapSchema: v.GenericSchema<unknown, FieldMap> = v.strictObject({
  action: v.optional(v.array(v.string())),
  state: v.optional(v.array(v.string())),
  cameras: v.optional(v.record(v.pipe(v.string(), v.nonEmpty()), v.string())),
  language: v.optional(v.array(v.string())),
  subtask: v.optional(v.nullable(v.string())),
  time: v.optional(v.nullable(v.string())),
});

/** The fields of each use, and the cameras by name. */
export interface Mapping {
  readonly action: readonly SourceField[];
  readonly state: readonly SourceField[];
  readonly cameras: ReadonlyMap<string, SourceField>;
  readonly language: readonly SourceField[];
  readonly subtask: SourceField | null;
  readonly time: SourceField | null;
}

const kinds: Readonly<Record<FieldUse, SourceField['kind']>> = {
  ...{ action: 'numbers', state: 'numbers', time: 'numbers', language: 'texts', subtask: 'texts', camera: 'pictures' },
};
/** The most names in one line. */
const NAMES = 12;

/** Checks the contents of a map file. @throws InputError that names the file and the wrong entry */
export function parseFieldMap(json: unknown, file: string): FieldMap {
  const { output, issues, success } = v.safeParse(fieldMapSchema, json);
  if (success) return output;
  const path = v.getDotPath(issues[0]);
  throw new InputError(
    `${file}: ${path === null ? '' : `${quote(path)}: `}${issues[0].message}; a map is { "action": [FIELD, ...], "state": [...], "cameras": { NAME: FIELD }, "language": [...], "subtask": FIELD, "time": FIELD }`,
  );
}

/**
 * Chooses the fields of each use: those of the map, and where it says nothing those that the importer takes.
 *
 * @param place what the set is called in errors
 * @throws InputError if the map names an unknown field or one of another kind, or if there is no action
 */
export function mappingOf(fields: readonly SourceField[], map: FieldMap, place: string): Mapping {
  const named = (name: string, use: FieldUse, key = `"${use}"`): SourceField => {
    const field = fields.find((own) => own.name === name);
    const names = fields.map((own) => own.name);
    if (!field)
      throw new InputError(`${place}: --map, ${key}: there is no field ${quote(name)}; ${nearest(name, names)}`);
    if (field.kind !== kinds[use])
      throw new InputError(`${place}: --map, ${key}: ${quote(name)} holds ${field.kind}, ${kinds[use]} are needed`);
    if (field.shape?.includes(0))
      throw new InputError(
        `${place}: --map, ${key}: ${quote(name)} has shape ${quote(field.shape)}, which holds nothing`,
      );
    return field;
  };
  const own = (use: FieldUse) => fields.filter((field) => field.use === use);
  const several = (use: 'action' | 'state' | 'language') => {
    const names = map[use];
    if (!names) return own(use);
    const twice = names.find((name, i) => names.indexOf(name) < i);
    if (twice !== undefined) throw new InputError(`${place}: --map, "${use}": ${quote(twice)} is named twice`);
    return names.map((name) => named(name, use));
  };
  const one = (use: 'subtask' | 'time') => {
    const name = map[use];
    return name === undefined ? (own(use)[0] ?? null) : name === null ? null : named(name, use);
  };
  const action = several('action');
  if (action.length === 0) throw noAction(fields, place);
  const cameras = map.cameras
    ? new Map(
        Object.entries(map.cameras).map(([name, field]) => [name, named(field, 'camera', `camera ${quote(name)}`)]),
      )
    : new Map(cameraNames(own('camera')).map((name, i) => [name, own('camera')[i]]));
  return {
    action,
    state: several('state'),
    cameras,
    language: several('language'),
    subtask: one('subtask'),
    time: one('time'),
  };
}

function noAction(fields: readonly SourceField[], place: string): InputError {
  const numbers = fields.filter(({ kind, shape }) => kind === 'numbers' && !shape?.includes(0));
  const there = numbers.slice(0, NAMES).map(({ name, shape }) => name + (shape ? ` [${shape.join(', ')}]` : ''));
  const more = numbers.length > NAMES ? ` and ${numbers.length - NAMES} more` : '';
  const which =
    numbers.length === 0
      ? 'no field has numbers'
      : `fields with numbers are ${there.join(', ')}${more}: say which with --map FILE, { "action": [${quote(numbers[0].name)}], "state": [...] }`;
  return new InputError(`${place}: no field is known to be the action; ${which}`);
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
  const slots = (own: readonly SourceField[], field: SourceField, what: string) => {
    const at = own.indexOf(field);
    if (at < 0) return [];
    const first = own.slice(0, at).reduce((sum, { name }) => sum + (widths.get(name) ?? 0), 0);
    const last = first + (widths.get(field.name) ?? 0) - 1;
    if (last < first) return [];
    return [first === last ? `${what} ${first}` : `${what} ${first} to ${last}`];
  };
  return fields.map((field) => {
    const { name, kind, shape, reason } = field;
    const uses = [
      ...slots(mapping.action, field, 'actions'),
      ...slots(mapping.state, field, 'state'),
      ...[...mapping.cameras].flatMap(([camera, own]) => (own === field ? [`camera ${camera}`] : [])),
      ...(mapping.language.includes(field) ? ['language'] : []),
      ...(mapping.subtask === field ? ['subtask'] : []),
      ...(mapping.time === field ? ['time'] : []),
    ];
    if (uses.length > 0)
      return { name, kind, shape, use: uses.join(', '), reason: field.use === null ? undefined : reason };
    const why =
      reason ?? (field.use === null ? 'its meaning is not known' : `another field is taken as the ${field.use}`);
    return { name, kind, shape, use: null, reason: why };
  });
}

/** One line that names what is left out, grouped by reason; nothing if all is of use. */
export function leftOut(fields: readonly MappedField[]): string[] {
  const groups = new Map<string, MappedField[]>();
  for (const field of fields)
    if (field.use === null) groups.set(field.reason!, [...(groups.get(field.reason!) ?? []), field]);
  if (groups.size === 0) return [];
  const texts = [...groups].map(([reason, own]) => {
    const more = own.length > 4 ? ` and ${own.length - 4} more` : '';
    const names = own.slice(0, 4).map(({ name }) => name.replace(/\s+/g, ' '));
    return `${names.join(', ')}${more} (${reason})`;
  });
  return [`left out: ${texts.join('; ')}`];
}
