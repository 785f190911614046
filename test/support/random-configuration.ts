/** Random models, most of them sensible, some contradictory; the same seed gives the same one. */
import { randomStream } from '../../engine/random.ts';
import { causal, type Edge, edge, full, insulated } from '../../kernels/index.ts';
import {
  type BlockInput,
  type BlockSettings,
  blocksBefore,
  type ModelConfiguration,
  sourceOf,
} from '../../model/architecture/configuration.ts';
import type { TrainingBatch } from '../../model/architecture/inputs.ts';
import type { ObjectiveSettings, RowsOf } from '../../model/architecture/objectives/index.ts';
import { rowsBefore, trainingBlocks } from '../../model/architecture/sequence.ts';
import { randomBatch } from '../../model/training/random-batch.ts';

const [HORIZON, ACTIONS, STATE, CLASSES] = [2, 3, 3, 4];
const inputs: readonly BlockInput[] = [
  'images',
  'prompt',
  'target',
  'state',
  'noisyActions',
  'learned',
  'zeros',
  'numbers',
];

class Chooser {
  private index = 0;
  private readonly stream;

  constructor(seed: number) {
    this.stream = randomStream(seed, 0, 0);
  }

  chance(probability: number): boolean {
    return this.stream.uniform(this.index++) < probability;
  }

  of<T>(values: readonly T[]): T {
    return values[this.stream.integer(this.index++, values.length)];
  }
}

function towersOf(choose: Chooser) {
  const tower = { width: 8, depth: 1, heads: 2, hidden: 8 };
  return { seeing: tower, ...(choose.chance(0.3) && { second: { ...tower, width: 16 } }) };
}

function blocksOf(choose: Chooser, experts: readonly string[], vision: ModelConfiguration['vision']): BlockSettings[] {
  const possible = inputs.filter((input) => input !== 'images' || vision);
  const wanted = possible.filter((input) => choose.chance(input === 'prompt' ? 0.9 : 0.45));
  const twice = [...wanted, ...(choose.chance(0.2) ? [choose.of(possible)] : [])];
  const shuffled = choose.chance(0.5) ? twice : [...twice].sort(() => (choose.chance(0.5) ? 1 : -1));
  return shuffled.map((input, i): BlockSettings => {
    const tokens = input === 'images' || input === 'prompt' || input === 'target';
    const name = shuffled.indexOf(input) === i ? input : `${input}2`;
    const before = shuffled.slice(0, i).map((own, j) => (shuffled.indexOf(own) === j ? own : `${own}2`));
    return {
      ...{ name, input, weights: tokens || choose.chance(0.4) ? 'backbone' : choose.of(experts) },
      length:
        input === 'images' ? 4 * (vision?.cameras ?? 1) : input === 'noisyActions' ? HORIZON : choose.of([1, 2, 3, 4]),
      after: before.filter(() => choose.chance(0.7)),
      ...(input === 'noisyActions' && choose.chance(0.3) && { repeats: 2 }),
      ...(input === 'numbers' && { dimension: 2 }),
    };
  });
}

function edgesOf(choose: Chooser, blocks: readonly BlockSettings[]) {
  return blocks.flatMap(({ name: query, input }) =>
    blocks.flatMap((key) => {
      const own = key.name === query;
      if (own && input === 'target') return [{ query, key: key.name, edge: causal }];
      if (!choose.chance(own ? 0.9 : key.input === 'target' ? 0.15 : key.input === 'noisyActions' ? 0.2 : 0.6))
        return [];
      const kinds: Edge[] = [full, full, insulated, edge({ mask: 'full', stopKey: true })];
      return [{ query, key: key.name, edge: choose.of(own ? [...kinds, causal] : kinds) }];
    }),
  );
}

function objectivesOf(
  choose: Chooser,
  blocks: readonly BlockSettings[],
  towers: readonly string[],
): ObjectiveSettings[] {
  const objectives: ObjectiveSettings[] = [];
  const add = (own: ObjectiveSettings) => objectives.push(own);
  const flow = blocks.find(({ input }) => input === 'noisyActions');
  const rows = (): RowsOf => {
    if (towers.length > 0 && choose.chance(0.2)) return { tower: choose.of(towers) };
    const { name } = choose.of(blocks);
    return choose.chance(0.3) ? { block: name, layer: choose.of([0, 1, 2]) } : { block: name };
  };
  if (blocks.some(({ input }) => input === 'target') && choose.chance(0.95))
    add({ kind: 'nextToken', name: 'token', weight: 1 });
  if (flow && choose.chance(0.95)) add({ kind: 'flow', name: 'flow', weight: choose.of([1, 10]), block: flow.name });
  if (choose.chance(0.3))
    add({
      kind: 'classification',
      name: 'class',
      weight: 1,
      rows: rows(),
      classes: CLASSES,
      ...(choose.chance(0.4) && { balanced: true }),
    });
  const error = choose.of(['l1', 'squared', 'huber'] as const);
  if (choose.chance(0.3)) add({ kind: 'regression', name: 'row', weight: 1, rows: rows(), error, dimension: 2 });
  if (choose.chance(0.3)) {
    const of = blocks.filter(({ length }) => length % HORIZON === 0);
    const block = of.length > 0 ? choose.of(of) : blocks[0];
    if (!block) return objectives;
    const trunk = { kind: choose.of(['mlp', 'lstm', 'transformer'] as const), width: 8, layers: 1, heads: 2 };
    if (choose.chance(0.3))
      add({ kind: 'regression', name: 'policy', weight: 1, rows: rows(), error, head: { kind: 'policy', trunk } });
    add({
      ...{ kind: 'regression', name: 'chunk', weight: 1, rows: { block: block.name }, error },
      rowsPerStep: Math.max(1, block.length / HORIZON),
      before: choose.chance(0.3),
      head: { width: 6, blocks: 1 },
    });
  }
  return objectives;
}

export function randomConfiguration(seed: number): ModelConfiguration {
  const choose = new Chooser(seed);
  const configuration = drawn(choose);
  const { blocks } = configuration;
  const queriesOnly =
    blocks.length === 0 || choose.chance(0.7) ? configuration : withQueriesOnly(choose, configuration);
  const denoising = withDelay(choose, withDenoising(choose, queriesOnly));
  // A block of tokens to predict is refused beside a history.
  const isTarget = ({ input }: BlockSettings) => input === 'target';
  const history = choose.chance(blocks.some(isTarget) ? 0.95 : 0.5)
    ? null
    : { window: 2, interleaved: choose.chance(0.6) };
  return withMemory(choose, history ? { ...denoising, history } : denoising);
}

/** Diffusion in place of a flow, its time as a token, or a head that denoises where no block does. */
function withDenoising(choose: Chooser, configuration: ModelConfiguration): ModelConfiguration {
  const { blocks, edges, objectives, experts } = configuration;
  const process = choose.of(['flow', 'diffusion'] as const);
  const noisy = blocks.find(({ input }) => input === 'noisyActions');
  if (!noisy) {
    if (blocks.length === 0 || choose.chance(0.5)) return configuration;
    const { name: block } = choose.of(blocks);
    const trunk = choose.of([undefined, { kind: 'lstm', layers: 1, width: 8 }] as const);
    const sizes = { width: 12, layers: 1 };
    const head = { kind: 'denoisingHead', name: 'head', weight: 1, rows: { block }, trunk, process, ...sizes } as const;
    return { ...configuration, objectives: [...objectives, head] };
  }
  const made = objectives.map((own) => (own.kind === 'flow' ? { ...own, kind: process } : own));
  if (experts[noisy.weights]?.adaptive || choose.chance(0.5)) return { ...configuration, objectives: made };
  const time: BlockSettings = { ...noisy, name: 'time', input: 'time', length: 1 };
  const seen = edges.filter(({ query, key }) => query === noisy.name && key !== noisy.name);
  const ofTime = [...seen, { query: 'time', key: 'time', edge: full }].map((own) => ({ ...own, query: 'time' }));
  return {
    ...configuration,
    blocks: blocks.flatMap((block) => (block === noisy ? [time, block] : [block])),
    edges: [...edges, ...ofTime, { query: noisy.name, key: 'time', edge: full }],
    objectives: made,
  };
}

function withQueriesOnly(choose: Chooser, configuration: ModelConfiguration): ModelConfiguration {
  const { blocks, edges } = configuration;
  // A block that nobody reads, or now and then one that is read, which is refused.
  const { name: queriesOnly } = choose.of(blocks);
  const unread = choose.chance(0.9) ? edges.filter(({ key }) => key !== queriesOnly) : edges;
  const without = blocks.map((block) => (block.name === queriesOnly ? { ...block, keys: false } : block));
  return { ...configuration, blocks: without, edges: unread };
}

/** The backbone as an encoder, or images as memory: blocks of other experts, or other blocks, read them by cross-attention. */
function withMemory(choose: Chooser, configuration: ModelConfiguration): ModelConfiguration {
  if (choose.chance(0.6)) return configuration;
  const { experts, vision } = configuration;
  const seen = configuration.blocks.some(({ input }) => input === 'images');
  const behind = configuration.blocks.some(({ weights }) => weights !== 'backbone');
  const encoder = behind && (!seen || choose.chance(0.6));
  if (!encoder && !seen) return configuration;
  const blocks = encoder
    ? configuration.blocks
    : configuration.blocks.map((block) => (block.input === 'images' ? { ...block, memory: true } : block));
  const weightsOf = (name: string) => blocks.find((block) => block.name === name)!.weights;
  const isMemory = (name: string) =>
    encoder ? weightsOf(name) === 'backbone' : blocks.some((block) => block.name === name && block.memory);
  const first = new Map<string, Edge>();
  const edges = configuration.edges.flatMap((own) => {
    if (isMemory(own.query)) return encoder && isMemory(own.key) ? [own] : [];
    if (!isMemory(own.key)) return [own];
    // The blocks of an expert read a block of memory alike.
    const pair = `${weightsOf(own.query)}/${own.key}`;
    first.set(pair, first.get(pair) ?? own.edge);
    return [{ ...own, edge: first.get(pair)! }];
  });
  const crossAttention = { every: choose.of([1, 2]), gated: choose.chance(0.5) };
  const reads = (name: string) => [...first.keys()].some((pair) => pair.startsWith(`${name}/`));
  const resampler = { latents: 4, depth: 1, heads: 2, headDimension: 4, hidden: 8 };
  return {
    ...{ ...configuration, blocks, edges },
    experts: Object.fromEntries(
      Object.entries(experts).map(([name, own]) => [
        name,
        { ...own, ...(reads(name) && { crossAttention }), ...(encoder && name === 'backbone' && { encoder }) },
      ]),
    ),
    vision: vision && {
      ...vision,
      ...(seen && choose.chance(0.5) && { resampler }),
      ...(choose.chance(0.5) && { towerPerCamera: true }),
    },
  };
}

/** Now and then with training-time real-time chunking; the longest delay is refused. */
function withDelay(choose: Chooser, configuration: ModelConfiguration): ModelConfiguration {
  const maximumDelay = choose.of([0, 1, 1, 1, HORIZON]);
  const objectives = configuration.objectives.map((own) =>
    own.kind === 'flow' && maximumDelay > 0 ? { ...own, maximumDelay } : own,
  );
  return { ...configuration, objectives };
}

function drawn(choose: Chooser): ModelConfiguration {
  const others = choose.of([[], ['expert'], ['expert', 'third']]);
  const adaptive = choose.chance(0.5);
  const vision = choose.chance(0.6)
    ? { towers: towersOf(choose), patch: 4, imageHeight: 8, imageWidth: 8, cameras: choose.of([1, 2]) }
    : null;
  const alone = blocksOf(choose, ['backbone', ...others], vision);
  const noisy = alone.find(({ input }) => input === 'noisyActions');
  // Numbers that are copied with the noisy actions.
  const beside: BlockSettings = { ...noisy!, name: 'beside', input: 'numbers', dimension: 2, length: 1 };
  const blocks =
    (noisy?.repeats ?? 1) > 1 ? alone.flatMap((block) => (block === noisy ? [beside, block] : [block])) : alone;
  const expert = (name: string) => ({ width: 12, hidden: 8, adaptive: adaptive && name === noisy?.weights });
  const configuration: ModelConfiguration = {
    backbone: choose.of(['gemma', 'gemma', 'llama'] as const),
    vocabulary: 20,
    experts: {
      backbone: { width: 16, hidden: 12 },
      ...Object.fromEntries(others.map((name) => [name, expert(name)])),
    },
    ...{ depth: 2, heads: 2, kvHeads: choose.of([1, 2]), headDimension: 8, vision },
    ...{ horizon: HORIZON, actionDimension: ACTIONS, stateDimension: STATE },
    ...{
      blocks,
      edges: edgesOf(choose, blocks),
      objectives: objectivesOf(choose, blocks, Object.keys(vision?.towers ?? {})),
    },
    ...(choose.chance(0.2) && { rules: [{ match: choose.of(['backbone', 'seeing', '*q_proj*']), frozen: true }] }),
  };
  if (!choose.chance(0.3)) return configuration;
  const adapted = ['backbone', ...others].filter(() => choose.chance(0.6));
  return { ...configuration, lora: { rank: 2, alpha: 3, experts: adapted.length > 0 ? adapted : ['backbone'] } };
}

/** Random examples; the first has neither actions nor rows with targets. */
export function batchFor(configuration: ModelConfiguration, examples: number, seed: number): TrainingBatch {
  const { blocks, horizon } = configuration;
  const random = randomBatch(configuration, examples, seed);
  const { batch } = random;
  const other = blocks.filter(({ input }) => !['images', 'prompt', 'target'].includes(input));
  const rowValid = other
    .filter((_, i) => (seed + i) % 3 === 0)
    .map(({ name, length }) => [name, Uint8Array.from({ length: batch * length }, (_, i) => (i % length > 1 ? 0 : 1))]);
  const targets = Object.entries(random.rowTargets!).map(([name, { data, valid }]) => {
    const first = valid.length / batch;
    return [name, { data, valid: Uint8Array.from(valid, (_, row) => (row < first ? 0 : 1)) }];
  });
  return {
    ...random,
    lossMask: random.lossMask && predictingRows(configuration, random),
    actionValid: Uint8Array.from({ length: batch * horizon }, (_, i) => (i < horizon ? 0 : 1)),
    rowTargets: Object.fromEntries(targets),
    rowValid: Object.fromEntries(rowValid),
  };
}

/** 1 for the rows of the backbone that predict a real token of a target. */
function predictingRows(configuration: ModelConfiguration, batch: TrainingBatch): Uint8Array {
  const running = trainingBlocks(configuration);
  const mask = new Uint8Array(batch.lossMask!.length);
  for (const block of configuration.blocks.filter(({ input }) => input === 'target')) {
    const { valid } = batch.ids[sourceOf(block)];
    if (blocksBefore(configuration, block).length === 0) continue;
    rowsBefore(configuration, batch, running, block.name).forEach((row, i) => {
      if (valid[i]) mask[row] = 1;
    });
  }
  return mask;
}
