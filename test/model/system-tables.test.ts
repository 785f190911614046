import { expect, test } from 'vitest';
import { systemsCommand } from '../../cli/systems.ts';
import { edge, full } from '../../kernels/index.ts';
import { type DerivedEdge, derivedAttention, derivedGradients } from '../../model/inspect/derived-tables.ts';
import { measuredSystem } from '../../model/inspect/measured-step.ts';
import { differencesFromParent, systemTables } from '../../model/inspect/system-tables.ts';
import {
  configurationOf,
  differencesOf,
  fieldsOf,
  type System,
  systemNamed,
  systems,
} from '../../model/systems/index.ts';
import { presetNamed } from '../../model/training/presets.ts';
import { testDevice } from '../support/devices.ts';
import { runCommand } from '../support/run-command.ts';

const { image, ...vision } = presetNamed('nano').vision;
const sizes = {
  ...presetNamed('nano'),
  ...{ vocabulary: 48, promptTokens: 4, targetTokens: 3, horizon: 3, actionDimension: 2, stateDimension: 3 },
  vision: { ...vision, imageHeight: image, imageWidth: image, cameras: 1 },
};

/** With the subtasks of their recipes. */
const measured = systems.map(({ name }) => measuredSystem(name, sizes.depth));

test.each(measured)('the attention of $name as it runs is that of its table', async (system) => {
  const configuration = configurationOf(system, sizes);
  const derived = await derivedAttention(await testDevice('normal'), configuration);
  const edgeOf = (query: string, key: string): DerivedEdge | undefined => {
    const found = configuration.edges.find((own) => own.query === query && own.key === key);
    if (!found || found.edge.mask === 'none') return undefined;
    const { mask, keyGradient, valueGradient } = found.edge;
    const ofLength = (name: string) => configuration.blocks.find((own) => own.name === name)!.length;
    const isSingle = query === key && ofLength(key) === 1;
    const known = derived[query][key]?.passes ?? null;
    return {
      mask: isSingle ? 'full' : mask,
      passes: known === null ? null : keyGradient > 0 || valueGradient > 0,
    };
  };
  const names = configuration.blocks.map(({ name }) => name);
  for (const query of names)
    for (const key of names) expect(derived[query][key], `${query} to ${key}`).toEqual(edgeOf(query, key));
  // A loss reads the last block at the latest: what is known of gradient is not nothing.
  const known = Object.values(derived).flatMap((row) => Object.values(row).filter(({ passes }) => passes !== null));
  expect(known.length).toBeGreaterThan(names.length / 2);
});

test('a table that no system has: a window, a row that does not see itself, keys alone behind a stop-gradient', async () => {
  const { pi0 } = Object.fromEntries(systems.map((system) => [system.name, system]));
  const attention = {
    ...pi0.attention,
    state: { image: edge({ mask: 'full', stopKey: true }) },
    action: { state: full, action: edge({ mask: 'causal', window: 2 }) },
  };
  const configuration = configurationOf({ ...pi0, attention }, sizes);
  const { state, action } = await derivedAttention(await testDevice('normal'), configuration);
  expect(state).toEqual({ image: { mask: 'full', passes: null } });
  expect(action).toEqual({ state: { mask: 'full', passes: true }, action: { mask: 'other', passes: true } });
});

test('in interleaved history a control step sees all of those before it, and otherwise none', async () => {
  const device = await testDevice('normal');
  const { image, language, ...attention } = systemNamed('openvla-oft').attention;
  const { action: _, ...seen } = image;
  const system = { ...systemNamed('openvla-oft'), attention: { image: seen, language: seen, ...attention } };
  const configuration = configurationOf(system, sizes);
  const derive = (interleaved: boolean, earlier = true) =>
    derivedAttention(device, { ...configuration, history: { window: 2, interleaved } }, { earlier });
  const row = (passes: boolean | null) =>
    Object.fromEntries(['image', 'language', 'action'].map((key) => [key, { mask: 'full', passes }]));
  expect(await derive(true)).toEqual({ image: row(null), language: row(null), action: row(true) });
  expect(await derive(false)).toEqual({ image: {}, language: {}, action: {} });
  expect(await derive(true, false)).toEqual(await derivedAttention(device, configuration));
});

test.each(measured)('the losses of $name reach the parameters that its table says', async (system) => {
  const configuration = configurationOf(system, sizes);
  const derived = await derivedGradients(await testDevice('normal'), configuration);
  const declared = Object.entries(systemTables(configuration).gradients).map(([loss, row]) => [
    loss,
    Object.fromEntries(
      Object.entries(row).flatMap(([group, own]) => (own === 'frozen' ? [] : [[group, own === 'yes']])),
    ),
  ]);
  expect(derived).toEqual(Object.fromEntries(declared));
});

/** The system that these fields spell, without its name and its sources. */
function spelled(fields: ReadonlyMap<string, unknown>): Partial<System> {
  const made: Record<string, unknown> = {};
  const tables: Record<string, Record<string, Record<string, unknown>>> = { attention: {}, blocks: {}, objectives: {} };
  for (const [key, value] of fields) {
    const [field, name, own] = key.split('\n');
    if (own !== undefined) tables[field][name] = { ...tables[field][name], [own]: value };
    else if (name !== undefined) made[field] = { ...(made[field] as object), [name]: value };
    else made[field] = value;
  }
  for (const list of ['block', 'objective']) {
    const order = made[`${list} order`] as string[];
    delete made[`${list} order`];
    made[`${list}s`] = order.map((name) => ({ name, ...tables[`${list}s`][name] }));
  }
  return { ...made, attention: tables.attention } as Partial<System>;
}

const children = systems.filter(({ parent }) => parent !== null);

test.each(children)('the differences of $name turn its parent into it, and none is too many', (system) => {
  const differences = differencesFromParent(system);
  const { name, parent, description, source, ...settings } = system;
  const fields = new Map(fieldsOf(systemNamed(parent!)));
  const changes = differences.flatMap((own) => own.changes);
  for (const { path, before, after } of changes) {
    expect(fields.get(path.join('\n'))).toEqual(before);
    expect(after).not.toEqual(before);
    if (after === undefined) fields.delete(path.join('\n'));
    else fields.set(path.join('\n'), after);
  }
  // An empty recipe says nothing.
  const { recipe = {}, ...others } = settings;
  expect(spelled(fields)).toEqual(Object.keys(recipe).length > 0 ? settings : others);
  expect(differences.length).toBeGreaterThan(0);
});

test('differences in words', () => {
  const words = (name: string, parent: string) =>
    differencesOf(systemNamed(name), systemNamed(parent)).map((own) => own.words);
  expect(words('joint-training', 'knowledge-insulation')).toEqual([
    'action attends to image, language: full (was insulated)',
  ]);
  expect(words('pi05', 'pi0')).toEqual([
    'no block state',
    'state as text: yes (was no)',
    'time: adaptive (was concatenate)',
  ]);
  expect(words('ki-continuous-state', 'knowledge-insulation')).toEqual([
    'new block state: input state, weights backbone',
    'order of blocks: image, language, state, target, action',
    'image, language, target attend to state: full',
    'state attends to image, language, state: full',
    'action attends to state: insulated',
    'state as text: no (was yes)',
  ]);
  expect(words('pi0', 'pi0')).toEqual([]);
});

test('insula systems lists all of them, and shows one with its tables and its cost', async () => {
  const all = await runCommand(systemsCommand, {});
  expect(all.json.systems.map(({ name }) => name)).toEqual(systems.map(({ name }) => name));
  expect(all.lines.join('\n')).toContain(
    'attention: image -> image, language: full; language -> image, language: full',
  );
  const options = { preset: 'nano', batch: 2, prompt: 4 };
  const { json, lines } = await runCommand(systemsCommand, options, { names: ['knowledge-insulation'] });
  const text = lines.join('\n');
  for (const row of [
    /^ {2}action +insulated +- +full$/m,
    /^ {2}flow +cut by the stop-gradient +yes$/m,
    /^ {2}target +target +backbone +24 +language$/m,
    /^a training step of 2 examples: [\d.e-]+ GFLOP in [1-9]\d+ dispatches, [\d.]+ MB of activations$/m,
  ])
    expect(text).toMatch(row);
  expect(json.systems[0].parameters.expert).toBeGreaterThan(1000);
  await expect(runCommand(systemsCommand, {}, { names: ['pi9'] })).rejects.toThrow(
    'no system is named "pi9"; there are',
  );
  await expect(runCommand(systemsCommand, { batch: 2 })).rejects.toThrow('systems: --batch changes nothing without');
});
