/** The differences between two systems, field by field, and in words. */
import type { Edge } from '../../kernels/index.ts';
import type { ModelConfiguration } from '../architecture/configuration.ts';
import type { System } from './system.ts';

/** A field with its value in both systems; undefined where a system has no such field. */
export interface Change {
  /** ['time'], ['recipe', 'horizon'], ['blocks', 'action', 'weights'], ['attention', 'action', 'image'], ['objectives', 'flow', 'weight'], ['block order'], ... */
  readonly path: readonly string[];
  readonly before: unknown;
  readonly after: unknown;
}

/** Changes that one phrase says. */
export interface Difference {
  readonly words: string;
  readonly changes: readonly Change[];
}

const lists = ['blocks', 'objectives'] as const;
const orderOf = { blocks: 'block order', objectives: 'objective order' };
const separator = '\n';

/** All fields of a system but name, parent, description and source, by their paths joined by line ends: blocks, edges and objectives by name. */
export function fieldsOf({ name: _, parent, description, source, ...system }: System): ReadonlyMap<string, unknown> {
  const { blocks, attention, objectives, ...others } = system;
  const named = (list: 'blocks' | 'objectives') =>
    system[list].flatMap(({ name, ...fields }) =>
      Object.entries(fields).map(([field, value]): [string[], unknown] => [[list, name, field], value]),
    );
  const edges = Object.entries(attention).flatMap(([query, row]) =>
    Object.entries(row).map(([key, edge]): [string[], unknown] => [['attention', query, key], edge]),
  );
  const orders = lists.map((list): [string[], unknown] => [[orderOf[list]], system[list].map(({ name }) => name)]);
  const isRecord = (value: unknown) => typeof value === 'object' && value !== null && !Array.isArray(value);
  const single = Object.entries(others).flatMap(([field, value]): [string[], unknown][] =>
    isRecord(value) ? Object.entries(value!).map(([own, inner]) => [[field, own], inner]) : [[[field], value]],
  );
  const all = [...named('blocks'), ...orders, ...edges, ...named('objectives'), ...single];
  return new Map(all.map(([path, value]) => [path.join(separator), value]));
}

/** The fields of a system beside its blocks, attention and objectives, in words: 'state as text: yes', ... */
export const settingsOf = (system: System): string[] =>
  [...fieldsOf(system)].flatMap(([path, value]) =>
    /^(blocks|attention|objectives)\n|order$/.test(path)
      ? []
      : [`${pathText(path.split(separator))}: ${valueText(value)}`],
  );

/** All changes that turn `parent` into `system`, each in one of the differences. */
export function differencesOf(system: System, parent: System): Difference[] {
  const [before, after] = [parent, system].map(fieldsOf);
  const changes = [...new Set([...before.keys(), ...after.keys()])]
    .map((key): Change => ({ path: key.split(separator), before: before.get(key), after: after.get(key) }))
    .filter((own) => JSON.stringify(own.before) !== JSON.stringify(own.after));
  const left = new Set(changes);
  const take = (belongs: (change: Change) => boolean) => {
    const own = [...left].filter(belongs);
    for (const change of own) left.delete(change);
    return own;
  };
  return [
    ...lists.flatMap((list) => changedList(list, parent, system, take)),
    ...changedEdges(take(({ path }) => path[0] === 'attention')),
    ...take(() => true).map((change) => ({
      words: `${pathText(change.path)}: ${changeText(change)}`,
      changes: [change],
    })),
  ];
}

/** Named blocks or objectives that are gone, new or changed. The edges of a block that is gone go with it. */
function changedList(
  list: 'blocks' | 'objectives',
  parent: System,
  system: System,
  take: (belongs: (change: Change) => boolean) => Change[],
): Difference[] {
  const [before, after] = [parent, system].map((own) => own[list].map(({ name }) => name));
  const noun = list.slice(0, -1);
  const one = (name: string): Difference[] => {
    const changes = take(({ path }) => path[0] === list && path[1] === name);
    if (!after.includes(name)) {
      const edges = list === 'blocks' ? take(({ path }) => path[0] === 'attention' && path.includes(name, 1)) : [];
      return [{ words: `no ${noun} ${name}`, changes: [...changes, ...edges] }];
    }
    const isNew = !before.includes(name);
    const fields = changes.map((change) => {
      const text = isNew ? valueText(change.after) : changeText(change);
      return `${fieldText(change.path[2])} ${text}`;
    });
    return changes.length > 0
      ? [{ words: `${isNew ? 'new ' : ''}${noun} ${name}: ${fields.join(', ')}`, changes }]
      : [];
  };
  const differences = [...new Set([...before, ...after])].flatMap(one);
  const order = take(({ path }) => path[0] === orderOf[list]);
  // The order is not mentioned if it is the parent's without the ones that are gone and with the new ones at the end.
  const kept = before.filter((name) => after.includes(name));
  const expected = [...kept, ...after.filter((name) => !before.includes(name))];
  const isSaid = expected.join() !== after.join();
  if (isSaid) return [...differences, { words: `order of ${list}: ${after.join(', ')}`, changes: order }];
  return differences.map((own, i) => (i === 0 ? { ...own, changes: [...own.changes, ...order] } : own));
}

/** Changed edges in words: query blocks with the same changes for the same key blocks share a phrase. */
function changedEdges(changes: readonly Change[]): Difference[] {
  const byRow = grouped(changes, ({ path, before, after }) => JSON.stringify([path[1], before, after]));
  const keysOf = (own: readonly Change[]) => own.map(({ path }) => path[2]);
  const together = grouped(byRow, (own) => JSON.stringify([keysOf(own), own[0].before, own[0].after]));
  return together.map((rows) => {
    const [{ before, after }] = rows[0];
    const queries = rows.map(([{ path }]) => path[1]);
    const verb = queries.length > 1 ? 'attend' : 'attends';
    const keys = keysOf(rows[0]).join(', ');
    const words =
      after === undefined
        ? `${queries.join(', ')} no longer ${verb} to ${keys}`
        : `${queries.join(', ')} ${verb} to ${keys}: ${edgeText(after as Edge)}${before === undefined ? '' : ` (was ${edgeText(before as Edge)})`}`;
    return { words, changes: rows.flat() };
  });
}

/** The differences of two attention tables in words. */
export function edgeDifferences(before: ModelConfiguration['edges'], after: ModelConfiguration['edges']): string[] {
  const byPlace = (edges: ModelConfiguration['edges']) =>
    new Map(
      edges.flatMap(({ query, key, edge }) => (edge.mask === 'none' ? [] : [[`${query}/${key}`, edge] as const])),
    );
  const [was, is] = [byPlace(before), byPlace(after)];
  const places = [...new Set([...was.keys(), ...is.keys()])].filter(
    (place) => JSON.stringify(was.get(place)) !== JSON.stringify(is.get(place)),
  );
  const changes = places.map((place) => ({
    path: ['edges', ...place.split('/')],
    before: was.get(place),
    after: is.get(place),
  }));
  return changedEdges(changes).map(({ words }) => words);
}

function grouped<T>(all: readonly T[], keyOf: (own: T) => string): T[][] {
  const groups = new Map<string, T[]>();
  for (const own of all) groups.set(keyOf(own), [...(groups.get(keyOf(own)) ?? []), own]);
  return [...groups.values()];
}

/** An edge in a word or two: 'full', 'causal', 'insulated', 'full x 0.1' where a tenth of the gradient passes, '-' for none. */
export function edgeText({ mask, window, keyGradient, valueGradient }: Edge): string {
  if (mask === 'none') return '-';
  const seen = window === undefined ? mask : `${mask} ${window}`;
  if (keyGradient !== valueGradient) return `${seen}, keys x ${keyGradient}, values x ${valueGradient}`;
  if (keyGradient === 0) return seen === 'full' ? 'insulated' : `${seen}, insulated`;
  return keyGradient === 1 ? seen : `${seen} x ${keyGradient}`;
}

const changeText = ({ before, after }: Change): string => `${valueText(after)} (was ${valueText(before)})`;

const pathText = (path: readonly string[]): string => path.map(fieldText).join(', ');

/** 'stateAsText' -> 'state as text' */
const fieldText = (name: string): string => name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);

function valueText(value: unknown): string {
  if (value === undefined) return 'not set';
  if (value === null) return 'none';
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  if (Array.isArray(value)) return value.map(valueText).join(', ') || 'none';
  if (typeof value !== 'object') return String(value);
  // A rule is named by what it matches, and a flag by its name alone.
  return Object.entries(value)
    .map(([field, own]) =>
      own === true ? fieldText(field) : `${field === 'match' ? '' : `${fieldText(field)} `}${valueText(own)}`,
    )
    .join(' ');
}
