import { expect, test } from 'vitest';
import { systemsCommand } from '../../cli/systems.ts';
import { InputError } from '../../engine/index.ts';
import { edge, full } from '../../kernels/index.ts';
import {
  type BlockSettings,
  hasKeys,
  type ModelConfiguration,
  windowOf,
} from '../../model/architecture/configuration.ts';
import { Architecture, Model } from '../../model/architecture/model.ts';
import { mapped } from '../../model/architecture/records.ts';
import { trainingInputs } from '../../model/architecture/training-pass.ts';
import { gradientFlow } from '../../model/inspect/gradient-flow.ts';
import { measuredSystem } from '../../model/inspect/measured-step.ts';
import { differencesFromParent, systemTables } from '../../model/inspect/system-tables.ts';
import { fillZeros, wholeBatch } from '../../model/inspect/without-zeros.ts';
import {
  configurationOf,
  differencesOf,
  fieldsOf,
  type System,
  systemNamed,
  systems,
} from '../../model/systems/index.ts';
import { presetNamed } from '../../model/training/presets.ts';
import { type DerivedAttention, type DerivedEdge, derivedAttention } from '../support/derived-attention.ts';
import { testDevice } from '../support/devices.ts';
import { randomConfiguration } from '../support/random-configuration.ts';
import { runCommand } from '../support/run-command.ts';

const { image, ...vision } = presetNamed('nano').vision;
const sizes = {
  ...presetNamed('nano'),
  ...{ vocabulary: 48, promptTokens: 4, targetTokens: 3, horizon: 3, actionDimension: 2, stateDimension: 3 },
  vision: { ...vision, imageHeight: image, imageWidth: image, cameras: 1 },
};

/** With the subtasks of their recipes. */
const measured = systems.map(({ name }) => measuredSystem(name, sizes.depth));

/** A history of two control steps is as good as a longer one. */
function configurationFor(system: System): ModelConfiguration {
  const { history, ...configuration } = configurationOf(system, sizes);
  return { ...configuration, ...(history && { history: { ...history, window: 2 } }) };
}

/** Compares the edges of a model as it runs with those of its table. */
async function expectAttention(configuration: ModelConfiguration): Promise<DerivedAttention> {
  const derived = await derivedAttention(await testDevice('normal'), configuration);
  const edgeOf = (query: BlockSettings, key: BlockSettings): DerivedEdge | undefined => {
    const found = configuration.edges.find((own) => own.query === query.name && own.key === key.name);
    if (!found || found.edge.mask === 'none') return undefined;
    const { mask, keyGradient, valueGradient } = found.edge;
    const isKnown = (derived[query.name][key.name]?.passes ?? null) !== null;
    return {
      mask: query === key && key.length === 1 ? 'full' : mask,
      passes: isKnown ? keyGradient > 0 || valueGradient > 0 : null,
    };
  };
  for (const query of configuration.blocks)
    for (const key of configuration.blocks)
      expect(derived[query.name][key.name], `${query.name} to ${key.name}`).toEqual(edgeOf(query, key));
  return derived;
}

test.each(measured)('the attention of $name as it runs is that of its table', async (system) => {
  const derived = await expectAttention(configurationFor(system));
  // The gradient is known of the blocks that a loss reads.
  expect(Object.values(derived).some((row) => Object.values(row).some(({ passes }) => passes !== null))).toBe(true);
});

const random = Array.from({ length: 30 }, (_, seed) => randomConfiguration(seed)).filter((configuration) => {
  try {
    return new Architecture(configuration);
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    return false;
  }
});

test('the attention of random models as they run is that of their tables', async () => {
  expect(random.length).toBeGreaterThan(8);
  for (const configuration of random) await expectAttention(configuration);
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

const withHistory = measured.map(configurationFor).filter((own) => windowOf(own) > 1);

test.each(withHistory)(
  'in interleaved history a control step sees all of those before it, and otherwise none',
  async (configuration) => {
    const earlier = await derivedAttention(await testDevice('normal'), configuration, { earlier: true });
    const { blocks, history } = configuration;
    const seen = history!.interleaved ? blocks.filter(hasKeys).map(({ name }) => name) : [];
    for (const { name } of blocks) {
      expect(Object.keys(earlier[name])).toEqual(seen);
      for (const { mask, passes } of Object.values(earlier[name]))
        expect([mask, passes !== false]).toEqual(['full', true]);
    }
  },
);

test.each([true, false])('there are systems with a history, interleaved %s', (interleaved) => {
  expect(withHistory.filter(({ history }) => history!.interleaved === interleaved).length).toBeGreaterThan(0);
});

test.each(measured)('the losses of $name reach the parameters that its table says', async (system) => {
  const configuration = configurationFor(system);
  using model = new Model(await testDevice('normal'), configuration);
  model.initialise(1);
  await fillZeros(model);
  const inputs = trainingInputs(model.architecture, wholeBatch(configuration, 1, 1));
  const { parts, losses } = await gradientFlow(model, inputs, { reasons: false });
  const derived = mapped(losses, (cells) => {
    const reached: Record<string, boolean> = {};
    parts.forEach(({ group, parameters }, i) => {
      if (parameters.length > 0) reached[group] ||= !cells[i].isZero;
    });
    return reached;
  });
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
  // A loss's meaning is the heading of its chart in a report, 380 pixels wide.
  for (const { meaning } of all.json.systems.flatMap((own) => own.objectives))
    expect(meaning.length, meaning).toBeLessThan(64);
  const overview = all.lines.join('\n');
  for (const { name } of systems) expect(overview.match(new RegExp(`^ {2}${name} +[^ ]`, 'gm'))).toHaveLength(1);
  expect(overview).toMatch(/^RoboVLMs \(arXiv 2412.14058, 2024\)$/m);
  const long = (await runCommand(systemsCommand, { long: true })).lines.join('\n');
  expect(long).toContain('attention: image -> nothing; language -> image: cross full');
  expect(long).toContain('attention: image -> image, language: full; language -> image, language: full');
  const options = { preset: 'nano', batch: 2, prompt: 4 };
  const { json, lines } = await runCommand(systemsCommand, options, { names: ['knowledge-insulation'] });
  const text = lines.join('\n');
  for (const row of [
    /^ {2}action +insulated +- +full$/m,
    /^ {2}flow +cut by the table +yes$/m,
    /^ {2}target +target +backbone +24 +language$/m,
    /^a training step of 2 examples: [\d.e-]+ GFLOP in [1-9]\d+ dispatches, [\d.]+ MB of activations$/m,
  ])
    expect(text).toMatch(row);
  const [{ attention }] = (await runCommand(systemsCommand, { preset: 'nano' }, { names: ['pi0-small'] })).json.systems;
  expect(attention).toMatchObject({ language: { image: 'full' }, action: { image: 'cross full', state: 'full' } });
  expect(json.systems[0].parameters.expert).toBeGreaterThan(1000);
  for (const [name, near] of [
    ['pi0-fst', 'did you mean pi0-fast?'],
    ['oft', 'did you mean openvla-oft?'],
    ['genvla', 'did you mean openvla, rt-2, openvla-d,'],
    ['somethingelse', 'see insula systems'],
  ])
    await expect(runCommand(systemsCommand, {}, { names: [name] })).rejects.toThrow(
      `no system is named "${name}"; ${near}`,
    );
  await expect(runCommand(systemsCommand, { long: true }, { names: ['pi0'] })).rejects.toThrow(
    '--long changes nothing',
  );
  await expect(runCommand(systemsCommand, { batch: 2 })).rejects.toThrow('systems: --batch changes nothing without');
});
