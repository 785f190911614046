import { expect, test } from 'vitest';
import { causal, full, insulated } from '../../kernels/index.ts';
import { expectRunnable, warningsOf } from '../../model/architecture/check.ts';
import type { BlockSettings, ModelConfiguration } from '../../model/architecture/configuration.ts';
import { Architecture } from '../../model/architecture/model.ts';
import type { ObjectiveSettings } from '../../model/architecture/objectives/index.ts';
import { configurationOf, systemNamed, systems } from '../../model/systems/index.ts';
import { tinySizes } from '../support/tiny-sizes.ts';

const insulation = systemNamed('knowledge-insulation');

/** Knowledge insulation with a state token beside its actions. */
const good = configurationOf(
  {
    ...insulation,
    blocks: [...insulation.blocks, { name: 'state', input: 'state', weights: 'expert' }],
    attention: {
      ...insulation.attention,
      state: { image: insulated, language: insulated, state: full },
      action: { ...insulation.attention.action, state: full },
    },
  },
  tinySizes,
);
const { experts, vision, blocks, edges, objectives } = good;
const flow = objectives[1];

type Change = Partial<ModelConfiguration>;

const block = (name: string, change: Partial<BlockSettings>): Change => ({
  blocks: blocks.map((own) => (own.name === name ? { ...own, ...change } : own)),
});
const another = (change: Partial<BlockSettings>): Change => ({ blocks: [...blocks, { ...blocks[1], ...change }] });
const seen = (change: Partial<NonNullable<typeof vision>>): Change => ({ vision: { ...vision!, ...change } });
const expert = (change: Partial<(typeof experts)[string]>): Change => ({
  experts: { ...experts, expert: { ...experts.expert, ...change } },
});
const edge = (query: string, key: string, own = full): Change => ({
  edges: [...edges.filter((other) => other.query !== query || other.key !== key), { query, key, edge: own }],
});
const withObjective = (...more: ObjectiveSettings[]): Change => ({ objectives: [...objectives, ...more] });
const numbers = { kind: 'regression', name: 'numbers', weight: 1, error: 'l1' } as const;

test('what can run is not refused, and there is nothing to warn of', () => {
  for (const configuration of [good, ...systems.map((system) => configurationOf(system, tinySizes))]) {
    expect(() => expectRunnable(configuration)).not.toThrow();
    expect(warningsOf(configuration)).toEqual([]);
  }
});

test.each<[string, Change]>([
  ['2 heads cannot share 3 kvHeads evenly', { kvHeads: 3 }],
  ['headDimension is 18; expected a multiple of 4 up to 256', { headDimension: 18 }],
  ["the first expert is not 'backbone'", { experts: { expert: experts.expert, backbone: experts.backbone } }],
  [
    "the norms of 'backbone' cannot be adaptive",
    { experts: { ...experts, backbone: { ...experts.backbone, adaptive: true } } },
  ],
  ['two blocks are named "language"', another({})],
  ['two objectives are named "flow"', withObjective(flow)],

  ['it has two blocks of images', another({ name: 'second', input: 'images' })],
  ['block "image" holds images, and there is no vision tower', { vision: null }],
  ['vision has no tower', seen({ towers: {} })],
  [
    'the width of vision tower "vision" is 32, not a multiple of its 3 heads',
    seen({ towers: { vision: { ...vision!.towers.vision, heads: 3 } } }),
  ],
  [
    'the head dimension of vision tower "vision" is 6; expected a multiple of 4 up to 256',
    seen({ towers: { vision: { ...vision!.towers.vision, width: 12 } } }),
  ],
  [
    'a vision tower and an expert are both named "expert"; it is their group of parameters',
    seen({ towers: { expert: vision!.towers.vision } }),
  ],
  ['images of 16 x 20 pixels cannot be cut into patches of 8', seen({ imageHeight: 20 })],
  ['block "image" has 4 rows, and its images give 8', seen({ cameras: 2 })],

  ['block "action" runs through "third"; the experts are backbone, expert', block('action', { weights: 'third' })],
  ['block "action" runs through "toString"; the experts are', block('action', { weights: 'toString' })],
  ['block "language" holds prompt, which only the backbone embeds', block('language', { weights: 'expert' })],
  ['the norms of "expert" are adaptive, and no noisy actions', block('action', { weights: 'backbone' })],
  [
    'blocks "language" and "second" are made from "language", and have 6 and 2 rows',
    another({ name: 'second', source: 'language', length: 2 }),
  ],
  ['block "action" comes after "nothing", which is no other block', block('action', { after: ['nothing'] })],
  ['block "action" has 3 rows of noisy actions, and a chunk has 4', block('action', { length: 3 })],
  ['the width of "expert" is 25; a flow time needs an even number from 4', expert({ width: 25 })],
  ['block "state" holds the state, and stateDimension is 0', { stateDimension: 0 }],
  ['block "state" holds numbers, and has no dimension', block('state', { input: 'numbers' })],
  ['block "action" has 0 repeats; expected a positive integer', block('action', { repeats: 0 })],
  ['block "language" is repeated with the noisy actions, but "image" of the same', block('language', { repeats: 2 })],
  ['block "state" is repeated with the noisy actions, but "action" of the same', block('state', { repeats: 2 })],
  [
    'block "action" is repeated through adaptive norms, which condition each copy by its own time, but "state" of the',
    block('action', { repeats: 2 }),
  ],

  ['an edge names block "nothing"; there are image, language, target, action, state', edge('action', 'nothing')],
  ['"action" reads "language" by a causal edge', edge('action', 'language', causal)],
  ['"image" reads "language", which has queries only (keys: false)', block('language', { keys: false })],
  ['"action" reads "action", which has queries only (keys: false)', block('action', { keys: false })],
  ['two edges lead from "image" to "language"', { edges: [...edges, edges[1]] }],

  ['it has no objective', { objectives: [] }],
  ['it has two blocks of noisy actions', another({ name: 'second', input: 'noisyActions', length: 4 })],
  ['block "action" holds noisy actions, and no flow makes them', { objectives: objectives.slice(0, 1) }],
  ['objective "token" predicts tokens, and no block holds a target', block('target', { input: 'prompt' })],
  [
    'objective "velocity" reads block "state", which holds no noisy actions',
    withObjective({ kind: 'flow', name: 'velocity', weight: 1, block: 'state' }),
  ],
  [
    'objective "numbers" reads vision tower "second", and there is none',
    withObjective({ ...numbers, rows: { tower: 'second' }, dimension: 1 }),
  ],
  [
    'objective "numbers" reads vision tower "vision", and no block holds images',
    {
      blocks: blocks.slice(1).map((own) => ({ ...own, after: own.after.filter((name) => name !== 'image') })),
      edges: edges.filter(({ query, key }) => query !== 'image' && key !== 'image'),
      ...withObjective({ ...numbers, rows: { tower: 'vision' }, dimension: 1 }),
    },
  ],
  [
    'objective "numbers" reads block "action", which is repeated; only a flow reads copies',
    {
      ...expert({ adaptive: false }),
      ...block('action', { repeats: 2 }),
      ...withObjective({ ...numbers, rows: { block: 'action' }, dimension: 1 }),
    },
  ],
  [
    'objective "numbers" predicts actions, and reads a vision tower',
    withObjective({ ...numbers, rows: { tower: 'vision' } }),
  ],
  [
    'objective "numbers" reads the rows before those of block "image", which comes after no block of its expert',
    withObjective({ ...numbers, rows: { block: 'image' }, before: true }),
  ],
  ['objective "numbers" reads block "nothing"', withObjective({ ...numbers, rows: { block: 'nothing' } })],
  [
    'objective "numbers" reads the rows that enter layer 3; there are 2 layers',
    withObjective({ ...numbers, rows: { block: 'state', layer: 3 } }),
  ],
  [
    'objective "numbers" predicts 4 actions from 8 rows, and block "action" has 4',
    withObjective({ ...numbers, rows: { block: 'action' }, rowsPerStep: 2 }),
  ],
  [
    'objective "numbers" reads 3 rows side by side, and block "action" has 4',
    withObjective({ ...numbers, rows: { block: 'action' }, rowsPerStep: 3, dimension: 1 }),
  ],
  ['block "target" sees all of itself', edge('target', 'target')],
  [
    'block "target" comes after no block of the backbone, so nothing predicts its first token',
    block('target', { after: ['state'] }),
  ],
  ['block "target" is to predict tokens of "target", and sees them by way of other blocks', edge('language', 'target')],
])('%s', (complaint, change) => {
  expect(() => expectRunnable({ ...good, ...change })).toThrow(`this model cannot run: ${complaint}`);
});

test.each<[string, Change, string[]]>([
  [
    'insulation without a token loss',
    { objectives: [flow], blocks: blocks.filter(({ input }) => input !== 'target') },
    ['the action expert is insulated and no token loss trains the backbone: it stays as it is'],
  ],
  [
    'rows that nobody reads',
    another({ name: 'spare', input: 'zeros' }),
    ['no block reads block "spare" (zeros), and no objective uses it'],
  ],
  [
    'an expert without rows',
    { experts: { ...experts, third: experts.expert } },
    ['no block runs through expert "third"'],
  ],
])('a warning of %s', (_, change, warnings) => {
  expect(warningsOf({ ...good, ...change })).toEqual(warnings);
});

test('two heads of one name are refused', () => {
  const configuration = { ...good, ...withObjective({ ...numbers, rows: { block: 'action' } }) };
  expect(() => new Architecture(configuration)).toThrow('two parameters are named "action_out_proj.weight"');
});

test('a model in which everything that is to be trained is frozen is refused', () => {
  const frozen = (match: string): Change => ({ rules: [{ match, frozen: true }] });
  expect(() => new Architecture({ ...good, ...frozen('*') })).toThrow('so nothing would be trained');
  const architecture = new Architecture({ ...good, ...frozen('expert') });
  expect(architecture.objectives.map((objective) => architecture.trainsNothing(objective))).toEqual([false, true]);
});
