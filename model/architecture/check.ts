/** Refuses configurations that cannot run, with the reason, when the model is made. */
import { InputError, quote } from '../../engine/files/errors.ts';
import {
  type BlockSettings,
  blockNamed,
  blocksBefore,
  hasKeys,
  type ModelConfiguration,
  noisyBlock,
  sourceOf,
  timeBlock,
  tokensPerImage,
} from './configuration.ts';
import { trunkObstacle } from './heads/trunk.ts';
import { memoryComplaint } from './memory-check.ts';
import { headObstacle } from './objectives/regression.ts';
import { rowCount, rowWidth } from './objectives/rows.ts';
import { type DenoisingHeadSettings, maximumDelayOf, type ObjectiveSettings } from './objectives/settings.ts';
import { readBy } from './reach.ts';
import { isCopiedWhole } from './sequence.ts';

const HEAD_DIMENSION_LIMIT = 256;

/** The objectives that take noise and times from the batch. */
const denoising: readonly ObjectiveSettings['kind'][] = ['flow', 'diffusion', 'denoisingHead'];

/** Whether a block holds ids or numbers of the example, which it names by its source. */
const isGiven = ({ input }: BlockSettings): boolean =>
  input === 'prompt' || input === 'target' || input === 'state' || input === 'numbers';

/** @throws InputError that says what cannot run, and why */
export function expectRunnable(configuration: ModelConfiguration): void {
  const { heads, kvHeads, headDimension, experts, objectives } = configuration;
  expect(heads % kvHeads === 0, `${heads} heads cannot share ${kvHeads} kvHeads evenly`);
  expectHeadDimension('headDimension', headDimension);
  expect(Object.keys(experts)[0] === 'backbone', "the first expert is not 'backbone', which embeds tokens");
  expect(
    !experts.backbone.adaptive,
    "the norms of 'backbone' cannot be adaptive: the flow time would condition the prompt",
  );
  expectUnique('blocks', configuration.blocks);
  expectUnique('objectives', objectives);
  expectVision(configuration);
  expect(objectives.length > 0, 'it has no objective, and cannot be trained');
  expectNoisyActions(configuration);
  expectTime(configuration);
  expectHistory(configuration);
  for (const block of configuration.blocks) expectBlock(configuration, block);
  expectEdges(configuration);
  const complaint = memoryComplaint(configuration);
  expect(complaint === null, complaint ?? '');
  for (const objective of objectives) expectObjective(configuration, objective);
  const [first, second] = objectives.filter(({ kind }) => denoising.includes(kind));
  expect(
    second === undefined,
    `objectives ${quote(first?.name ?? '')} and ${quote(second?.name ?? '')} both denoise the actions; a batch has one noise and one time for each chunk`,
  );
}

function expect(fits: boolean, complaint: string): void {
  if (!fits) throw new InputError(`this model cannot run: ${complaint}`);
}

function expectHeadDimension(what: string, dimension: number): void {
  expect(
    dimension > 0 && dimension % 4 === 0 && dimension <= HEAD_DIMENSION_LIMIT,
    `${what} is ${dimension}; expected a multiple of 4 up to ${HEAD_DIMENSION_LIMIT}`,
  );
}

export function expectUnique(what: string, named: readonly { readonly name: string }[]): void {
  const names = named.map(({ name }) => name);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  expect(twice === undefined, `two ${what} are named ${quote(twice ?? '')}`);
}

function expectVision({ vision, blocks, experts }: ModelConfiguration): void {
  const images = blocks.filter(({ input }) => input === 'images');
  expect(images.length <= 1, 'it has two blocks of images; all cameras share one');
  expect(
    images.length === 0 || vision !== null,
    `block ${quote(images[0]?.name ?? '')} holds images, and there is no vision tower`,
  );
  if (!vision) return;
  expect(Object.keys(vision.towers).length > 0, 'vision has no tower');
  for (const [name, { width, heads }] of Object.entries(vision.towers)) {
    expect(
      width % heads === 0,
      `the width of vision tower ${quote(name)} is ${width}, not a multiple of its ${heads} heads`,
    );
    expectHeadDimension(`the head dimension of vision tower ${quote(name)}`, width / heads);
    expect(
      !Object.hasOwn(experts, name),
      `a vision tower and an expert are both named ${quote(name)}; it is their group of parameters`,
    );
  }
  const groups = [...Object.keys(vision.towers), ...Object.keys(experts)];
  expect(
    (Object.keys(vision.towers).length === 1 && !vision.resampler) || !groups.includes('projector'),
    'a vision tower or an expert is named "projector", which is the group of a resampler and of the projection of several towers',
  );
  const { imageHeight, imageWidth, patch, cameras } = vision;
  expect(
    imageHeight % patch === 0 && imageWidth % patch === 0,
    `images of ${imageWidth} x ${imageHeight} pixels cannot be cut into patches of ${patch}`,
  );
  expect(images.length > 0 || !vision.resampler, 'vision has a resampler, and no block holds images');
  if (vision.resampler) {
    expectHeadDimension('the head dimension of the resampler', vision.resampler.headDimension);
    for (const [name, size] of Object.entries(vision.resampler))
      expect(Number.isInteger(size) && size > 0, `the resampler has ${size} ${name}; expected a positive integer`);
  }
  const tokens = cameras * tokensPerImage(vision);
  for (const { name, length } of images)
    expect(length === tokens, `block ${quote(name)} has ${length} rows, and its images give ${tokens}`);
}

function expectNoisyActions({ blocks, objectives }: ModelConfiguration): void {
  const [noisy, second] = blocks.filter(({ input }) => input === 'noisyActions');
  expect(second === undefined, 'it has two blocks of noisy actions; a model has one flow time');
  expect(
    noisy === undefined || objectives.some(({ kind }) => kind === 'flow' || kind === 'diffusion'),
    `block ${quote(noisy?.name ?? '')} holds noisy actions, and no flow makes them`,
  );
}

function expectHistory({ history, blocks }: ModelConfiguration): void {
  if (!history) return;
  const { window, interleaved } = history;
  expect(Number.isInteger(window) && window > 0, `history has a window of ${window}; expected a positive integer`);
  const named = (input: BlockSettings['input']) => blocks.find((block) => block.input === input)?.name;
  const [target, noisy] = [named('target'), named('noisyActions')];
  expect(
    target === undefined,
    `block ${quote(target ?? '')} holds a target, which acting would have to decode at every control step of the history: leave out one of them`,
  );
  expect(
    noisy === undefined || !interleaved,
    `history is interleaved, so that later control steps would see block ${quote(noisy ?? '')}, whose noisy actions acting has for the last step alone`,
  );
}

function expectTime(configuration: ModelConfiguration): void {
  const [time, second] = configuration.blocks.filter(({ input }) => input === 'time');
  if (!time) return;
  const what = `block ${quote(time.name)}`;
  expect(second === undefined, 'it has two blocks of the flow time, which is one token');
  expect(time.length === 1, `${what} has ${time.length} rows; the flow time is one token`);
  const noisy = noisyBlock(configuration);
  expect(noisy !== null, `${what} holds a flow time, and no block holds noisy actions`);
  const { name, weights, repeats = 1 } = noisy!;
  expect(
    time.weights === weights,
    `${what} runs through ${quote(time.weights)}, and the noisy actions of its time through ${quote(weights)}`,
  );
  expect(
    !configuration.experts[weights]?.adaptive,
    `${what} holds the flow time, which also conditions the adaptive norms of ${quote(weights)}: choose one of both`,
  );
  expect(
    (time.repeats ?? 1) === repeats,
    `${what} has ${time.repeats ?? 1} repeats, and ${quote(name)} has ${repeats}: each copy has a time of its own`,
  );
  expect(
    configuration.edges.some(({ query, key, edge }) => query === name && key === time.name && edge.mask !== 'none'),
    `block ${quote(name)} does not see its flow time in block ${quote(time.name)}`,
  );
}

function expectBlock(configuration: ModelConfiguration, block: BlockSettings): void {
  const { experts, horizon, stateDimension } = configuration;
  const { name, weights, input, length, after, repeats = 1, dimension } = block;
  const what = `block ${quote(name)}`;
  const names = configuration.blocks.map((other) => other.name);
  expect(
    Object.hasOwn(experts, weights),
    `${what} runs through ${quote(weights)}; the experts are ${Object.keys(experts).join(', ')}`,
  );
  const ofTokens = input === 'images' || input === 'prompt' || input === 'target';
  expect(!ofTokens || weights === 'backbone', `${what} holds ${input}, which only the backbone embeds`);
  const { adaptive } = experts[weights];
  expect(
    !adaptive || configuration.blocks.some((other) => other.input === 'noisyActions' && other.weights === weights),
    `the norms of ${quote(weights)} are adaptive, and no noisy actions run through it that tell the flow time`,
  );
  const twin = configuration.blocks.find((other) => isGiven(other) && sourceOf(other) === sourceOf(block));
  expect(
    !isGiven(block) || twin!.length === length,
    `blocks ${quote(twin?.name ?? '')} and ${quote(name)} are made from ${quote(sourceOf(block))}, and have ${twin?.length} and ${length} rows`,
  );
  for (const before of after)
    expect(names.includes(before) && before !== name, `${what} comes after ${quote(before)}, which is no other block`);
  if (input === 'noisyActions') {
    const { width } = experts[weights];
    expect(length === horizon, `${what} has ${length} rows of noisy actions, and a chunk has ${horizon}`);
    expect(
      width >= 4 && width % 2 === 0,
      `the width of ${quote(weights)} is ${width}; a flow time needs an even number from 4`,
    );
  }
  expect(input !== 'state' || stateDimension > 0, `${what} holds the state, and stateDimension is 0`);
  expect(input !== 'numbers' || (dimension ?? 0) > 0, `${what} holds numbers, and has no dimension`);
  expect(Number.isInteger(repeats) && repeats > 0, `${what} has ${repeats} repeats; expected a positive integer`);
  if (repeats === 1) return;
  expect(
    input !== 'learned' && input !== 'zeros',
    `${what} is repeated; only noisy actions, the state and numbers have copies`,
  );
  const own = configuration.blocks.filter((other) => other.weights === weights);
  const first = configuration.blocks.indexOf(own[0]);
  const alone = own.find((other, i) => other.repeats !== repeats || configuration.blocks[first + i] !== other);
  const isWhole = isCopiedWhole(configuration, block);
  expect(
    alone === undefined || ((input === 'noisyActions' || input === 'time') && !adaptive && !isWhole),
    `${what} is repeated ${input === 'noisyActions' ? 'through adaptive norms, which condition each copy by its own time' : 'with the noisy actions'}, but ${quote(alone?.name ?? '')} of the same expert is not repeated with it, as its neighbour`,
  );
  expect(
    own.some((other) => other.input === 'noisyActions'),
    `${what} is repeated; only noisy actions differ between copies`,
  );
  const copied = configuration.blocks.filter((other) => other.repeats === repeats).map((other) => other.name);
  const between = [...readBy(configuration, name)].find(
    (other) => !copied.includes(other) && readBy(configuration, other).has(name),
  );
  expect(
    between === undefined,
    `${what} is repeated, and reads block ${quote(between ?? '')}, which sees its first copy alone`,
  );
}

function expectEdges(configuration: ModelConfiguration): void {
  const names = configuration.blocks.map(({ name }) => name);
  const known = new Set<string>();
  for (const { query, key, edge } of configuration.edges) {
    for (const name of [query, key])
      expect(names.includes(name), `an edge names block ${quote(name)}; there are ${names.join(', ')}`);
    expect(
      edge.mask !== 'causal' || query === key,
      `${quote(query)} reads ${quote(key)} by a causal edge; causal is for a block and itself`,
    );
    expect(
      edge.mask === 'none' || hasKeys(blockNamed(configuration, key)),
      `${quote(query)} reads ${quote(key)}, which has queries only (keys: false)`,
    );
    const pair = JSON.stringify([query, key]);
    expect(!known.has(pair), `two edges lead from ${quote(query)} to ${quote(key)}`);
    known.add(pair);
  }
}

function expectObjective(configuration: ModelConfiguration, objective: ObjectiveSettings): void {
  const { blocks, horizon, vision, depth } = configuration;
  const what = `objective ${quote(objective.name)}`;
  switch (objective.kind) {
    case 'nextToken':
      expectTargets(configuration, what);
      return;
    case 'flow':
    case 'diffusion': {
      const block = blocks.find(({ name }) => name === objective.block);
      expect(
        block?.input === 'noisyActions',
        `${what} reads block ${quote(objective.block)}, which holds no noisy actions`,
      );
      const delay = maximumDelayOf(objective);
      expect(
        Number.isInteger(delay) && delay >= 0 && delay < horizon,
        `${what} has a maximum delay of ${delay} actions; expected a whole number below the ${horizon} of a chunk`,
      );
      const time = timeBlock(configuration);
      expect(
        delay === 0 || time === null,
        `${what} has a maximum delay, for which actions have times of their own, and block ${quote(time?.name ?? '')} is one time for all`,
      );
      return;
    }
    default: {
      const { rows } = objective;
      const ofActions =
        objective.kind === 'denoisingHead' || (objective.kind === 'regression' && objective.dimension === undefined);
      const obstacle = objective.kind === 'regression' ? headObstacle(objective, configuration) : null;
      expect(obstacle === null, `${what} ${obstacle}`);
      if ('tower' in rows) {
        expect(
          !ofActions,
          `${what} predicts actions, and reads a vision tower; only rows of a block are one for each action`,
        );
        expect(
          Object.hasOwn(vision?.towers ?? {}, rows.tower),
          `${what} reads vision tower ${quote(rows.tower)}, and there is none`,
        );
        expect(
          blocks.some(({ input }) => input === 'images'),
          `${what} reads vision tower ${quote(rows.tower)}, and no block holds images`,
        );
        return;
      }
      const block = blocks.find(({ name }) => name === rows.block);
      expect(
        block !== undefined,
        `${what} reads block ${quote(rows.block)}; there are ${blocks.map(({ name }) => name).join(', ')}`,
      );
      expect(
        (block!.repeats ?? 1) === 1,
        `${what} reads block ${quote(rows.block)}, which is repeated; only a flow reads copies`,
      );
      expect(
        (rows.layer ?? 0) <= depth,
        `${what} reads the rows that enter layer ${rows.layer}; there are ${depth} layers`,
      );
      if (objective.kind === 'denoisingHead') expectHead(configuration, objective, what);
      if (objective.kind !== 'regression') return;
      expect(
        !objective.before || blocksBefore(configuration, block!).length > 0,
        `${what} reads the rows before those of block ${quote(rows.block)}, which comes after no block of its expert`,
      );
      const { rowsPerStep = 1 } = objective;
      expect(
        block!.length % rowsPerStep === 0,
        `${what} reads ${rowsPerStep} rows side by side, and block ${quote(rows.block)} has ${block!.length}`,
      );
      if (!ofActions || (objective.head && 'trunk' in objective.head)) return;
      const needed = horizon * rowsPerStep;
      expect(
        block!.length === needed,
        `${what} predicts ${horizon} actions from ${needed} rows, and block ${quote(rows.block)} has ${block!.length}`,
      );
    }
  }
}

function expectHead(configuration: ModelConfiguration, head: DenoisingHeadSettings, what: string): void {
  const { rows, trunk, width } = head;
  const features = rowCount(configuration, rows) * rowWidth(configuration, rows).width;
  const obstacle = trunk ? trunkObstacle(trunk, features) : null;
  expect(obstacle === null, `${what} cannot read features of width ${features}: ${obstacle}`);
  expect((width ?? 4) % 2 === 0, `the width of ${what} is ${width}; a time embedding needs an even number from 4`);
}

/** A row that is to predict a token must not see it. */
function expectTargets(configuration: ModelConfiguration, what: string): void {
  const targets = configuration.blocks.filter(({ input }) => input === 'target');
  expect(targets.length > 0, `${what} predicts tokens, and no block holds a target`);
  for (const target of targets) {
    const { name } = target;
    const own = configuration.edges.find(({ query, key }) => query === name && key === name)?.edge.mask ?? 'none';
    expect(
      own !== 'full',
      `block ${quote(name)} sees all of itself, the tokens that it is to predict included; its own edge must be causal`,
    );
    const before = blocksBefore(configuration, target).map((block) => block.name);
    expect(
      before.length > 0,
      `block ${quote(name)} comes after no block of the backbone, so nothing predicts its first token`,
    );
    const edges = configuration.edges.filter(({ query, key }) => query !== name || key !== name);
    const reader = [name, ...before].find((block) => readBy({ ...configuration, edges }, block).has(name));
    expect(
      reader === undefined,
      `block ${quote(reader ?? '')} is to predict tokens of ${quote(name)}, and sees them by way of other blocks`,
    );
  }
}

/** Warnings about a configuration that can run, but is hardly the one that was meant: a line each. */
export function warningsOf(configuration: ModelConfiguration): string[] {
  const { blocks, edges, objectives } = configuration;
  const warnings: string[] = [];
  const insulated = edges.find(({ query, key, edge }) => {
    const weights = (name: string) => blocks.find((block) => block.name === name)?.weights;
    return (
      edge.keyGradient === 0 && edge.valueGradient === 0 && weights(key) === 'backbone' && weights(query) !== 'backbone'
    );
  });
  if (insulated && !objectives.some(({ kind }) => kind === 'nextToken'))
    warnings.push('the action expert is insulated and no token loss trains the backbone: it stays as it is');
  const used = new Set(
    objectives.flatMap((objective) => {
      if (objective.kind === 'nextToken')
        return blocks.filter(({ input }) => input === 'target').map(({ name }) => name);
      if ('block' in objective) return [objective.block];
      return 'block' in objective.rows ? [objective.rows.block] : [];
    }),
  );
  for (const name of Object.keys(configuration.experts))
    if (!blocks.some(({ weights }) => weights === name)) warnings.push(`no block runs through expert ${quote(name)}`);
  for (const { name, input } of blocks) {
    const isRead = edges.some(({ query, key, edge }) => key === name && query !== name && edge.mask !== 'none');
    if (!isRead && !used.has(name))
      warnings.push(`no block reads block ${quote(name)} (${input}), and no objective uses it`);
  }
  return warnings;
}
