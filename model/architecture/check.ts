/** Refuses configurations that cannot run, with the reason, when the model is made. */
import { InputError, quote } from '../../engine/files/errors.ts';
import {
  type BlockSettings,
  blockNamed,
  hasKeys,
  type ModelConfiguration,
  noisyBlock,
  sourceOf,
  tokensPerImage,
  windowOf,
} from './configuration.ts';
import { HEAD_DIMENSION_LIMIT, isHeadDimension, lowRankParts, type ModelParameter } from './layers.ts';
import { MOST_TOKENS } from './limits.ts';
import { memoryComplaint } from './memory-check.ts';
import { objectivesComplaint } from './objectives/check-objectives.ts';
import { readBy } from './reach.ts';
import { isCopiedWhole } from './sequence.ts';

/** Whether a block holds ids or numbers of the example, which it names by its source. */
const isGiven = ({ input }: BlockSettings): boolean =>
  input === 'prompt' || input === 'target' || input === 'state' || input === 'numbers';

/** @throws InputError that says what cannot run, and why */
export function expectRunnable(configuration: ModelConfiguration): void {
  const { blocks, objectives } = configuration;
  refuse(
    sizesComplaint(configuration) ??
      lengthComplaint(configuration) ??
      namesComplaint(configuration) ??
      duplicate('blocks', blocks) ??
      duplicate('objectives', objectives) ??
      visionComplaint(configuration) ??
      (objectives.length === 0 ? 'it has no objective, and cannot be trained' : null) ??
      noisyComplaint(configuration) ??
      timeComplaint(configuration) ??
      historyComplaint(configuration) ??
      firstComplaint(blocks, (block) => blockComplaint(configuration, block)) ??
      edgesComplaint(configuration) ??
      loraComplaint(configuration) ??
      memoryComplaint(configuration) ??
      objectivesComplaint(configuration),
  );
}

/** @throws InputError if there is a complaint */
export function refuse(complaint: string | null): void {
  if (complaint !== null) throw new InputError(`this model cannot run: ${complaint}`);
}

/** The complaint that two of these have one name; null if none have. */
export function duplicate(what: string, named: readonly { readonly name: string }[]): string | null {
  const known = new Set<string>();
  const twice = named.map(({ name }) => name).find((name) => known.size === known.add(name).size);
  return twice === undefined ? null : `two ${what} are named ${quote(twice)}`;
}

function firstComplaint<T>(all: readonly T[], complaintOf: (own: T) => string | null): string | null {
  for (const own of all) {
    const complaint = complaintOf(own);
    if (complaint !== null) return complaint;
  }
  return null;
}

function sizesComplaint({ heads, kvHeads, headDimension, experts }: ModelConfiguration): string | null {
  if (heads % kvHeads !== 0) return `${heads} heads cannot share ${kvHeads} kvHeads evenly`;
  const complaint = headComplaint('headDimension', headDimension);
  if (complaint) return complaint;
  if (Object.keys(experts)[0] !== 'backbone') return "the first expert is not 'backbone', which embeds tokens";
  if (experts.backbone.adaptive)
    return "the norms of 'backbone' cannot be adaptive: the flow time would condition the prompt";
  return null;
}

/** What every object of JavaScript has under a name would be taken for what a record holds under it. */
function namesComplaint({ blocks, objectives, experts, vision }: ModelConfiguration): string | null {
  const named = [...blocks, ...objectives].flatMap((own) => [own.name, 'source' in own ? (own.source ?? '') : '']);
  const wrong = [...named, ...Object.keys(experts), ...Object.keys(vision?.towers ?? {})].find((name) => name in {});
  return wrong === undefined ? null : `${quote(wrong)} is no name that it can use`;
}

function lengthComplaint(configuration: ModelConfiguration): string | null {
  const rows = configuration.blocks.reduce((sum, { length, repeats = 1 }) => sum + length * repeats, 0);
  const tokens = windowOf(configuration) * rows;
  return tokens <= MOST_TOKENS ? null : `an example of it has ${tokens} tokens; there can be ${MOST_TOKENS} at most`;
}

const headComplaint = (what: string, dimension: number): string | null =>
  isHeadDimension(dimension) ? null : `${what} is ${dimension}; expected a multiple of 4 up to ${HEAD_DIMENSION_LIMIT}`;

function visionComplaint({ vision, blocks, experts }: ModelConfiguration): string | null {
  const [images, second] = blocks.filter(({ input }) => input === 'images');
  if (second) return 'it has two blocks of images; all cameras share one';
  if (!vision) return images ? `block ${quote(images.name)} holds images, and there is no vision tower` : null;
  const { towers, resampler, imageHeight, imageWidth, patch, cameras } = vision;
  const names = Object.keys(towers);
  if (names.length === 0) return 'vision has no tower';
  const ofTower = firstComplaint(Object.entries(towers), ([name, { width, heads }]) => {
    if (width % heads !== 0)
      return `the width of vision tower ${quote(name)} is ${width}, not a multiple of its ${heads} heads`;
    const complaint = headComplaint(`the head dimension of vision tower ${quote(name)}`, width / heads);
    if (complaint) return complaint;
    return Object.hasOwn(experts, name)
      ? `a vision tower and an expert are both named ${quote(name)}; it is their group of parameters`
      : null;
  });
  if (ofTower) return ofTower;
  if ((names.length > 1 || resampler) && [...names, ...Object.keys(experts)].includes('projector'))
    return 'a vision tower or an expert is named "projector", which is the group of a resampler and of the projection of several towers';
  if (imageHeight % patch !== 0 || imageWidth % patch !== 0)
    return `images of ${imageWidth} x ${imageHeight} pixels cannot be cut into patches of ${patch}`;
  if (resampler) {
    if (!images) return 'vision has a resampler, and no block holds images';
    const complaint =
      headComplaint('the head dimension of the resampler', resampler.headDimension) ??
      firstComplaint(Object.entries(resampler), ([name, size]) =>
        isPositive(size) ? null : `the resampler has ${size} ${name}; expected a positive integer`,
      );
    if (complaint) return complaint;
  }
  const tokens = cameras * tokensPerImage(vision);
  return images && images.length !== tokens
    ? `block ${quote(images.name)} has ${images.length} rows, and its images give ${tokens}`
    : null;
}

const isPositive = (count: number): boolean => Number.isInteger(count) && count > 0;

function noisyComplaint({ blocks, objectives }: ModelConfiguration): string | null {
  const [noisy, second] = blocks.filter(({ input }) => input === 'noisyActions');
  if (second) return 'it has two blocks of noisy actions; a model has one flow time';
  if (noisy && !objectives.some(({ kind }) => kind === 'flow' || kind === 'diffusion'))
    return `block ${quote(noisy.name)} holds noisy actions, and no flow makes them`;
  return null;
}

function historyComplaint(configuration: ModelConfiguration): string | null {
  const { history, blocks } = configuration;
  if (!history) return null;
  const { window, interleaved } = history;
  if (!isPositive(window)) return `history has a window of ${window}; expected a positive integer`;
  const target = blocks.find(({ input }) => input === 'target');
  if (target)
    return `block ${quote(target.name)} holds a target, which acting would have to decode at every control step of the history: leave out one of them`;
  const noisy = noisyBlock(configuration);
  if (noisy && interleaved)
    return `history is interleaved, so that later control steps would see block ${quote(noisy.name)}, whose noisy actions acting has for the last step alone`;
  return null;
}

function timeComplaint(configuration: ModelConfiguration): string | null {
  const { blocks, experts, edges } = configuration;
  const [time, second] = blocks.filter(({ input }) => input === 'time');
  if (!time) return null;
  const what = `block ${quote(time.name)}`;
  if (second) return 'it has two blocks of the flow time, which is one token';
  if (time.length !== 1) return `${what} has ${time.length} rows; the flow time is one token`;
  const noisy = noisyBlock(configuration);
  if (!noisy) return `${what} holds a flow time, and no block holds noisy actions`;
  const { name, weights, repeats = 1 } = noisy;
  if (time.weights !== weights)
    return `${what} runs through ${quote(time.weights)}, and the noisy actions of its time through ${quote(weights)}`;
  if (experts[weights]?.adaptive)
    return `${what} holds the flow time, which also conditions the adaptive norms of ${quote(weights)}: choose one of both`;
  if ((time.repeats ?? 1) !== repeats)
    return `${what} has ${time.repeats ?? 1} repeats, and ${quote(name)} has ${repeats}: each copy has a time of its own`;
  if (!edges.some(({ query, key, edge }) => query === name && key === time.name && edge.mask !== 'none'))
    return `block ${quote(name)} does not see its flow time in block ${quote(time.name)}`;
  return null;
}

function blockComplaint(configuration: ModelConfiguration, block: BlockSettings): string | null {
  const { experts, blocks, horizon, stateDimension } = configuration;
  const { name, weights, input, length, after, repeats = 1, dimension = 0 } = block;
  const what = `block ${quote(name)}`;
  if (!Object.hasOwn(experts, weights))
    return `${what} runs through ${quote(weights)}; the experts are ${Object.keys(experts).join(', ')}`;
  if ((input === 'images' || input === 'prompt' || input === 'target') && weights !== 'backbone')
    return `${what} holds ${input}, which only the backbone embeds`;
  const { adaptive, width } = experts[weights];
  if (adaptive && !blocks.some((other) => other.input === 'noisyActions' && other.weights === weights))
    return `the norms of ${quote(weights)} are adaptive, and no noisy actions run through it that tell the flow time`;
  const twin = isGiven(block) && blocks.find((other) => isGiven(other) && sourceOf(other) === sourceOf(block));
  if (twin && twin.length !== length)
    return `blocks ${quote(twin.name)} and ${quote(name)} are made from ${quote(sourceOf(block))}, and have ${twin.length} and ${length} rows`;
  const unknown = after.find((before) => before === name || !blocks.some((other) => other.name === before));
  if (unknown !== undefined) return `${what} comes after ${quote(unknown)}, which is no other block`;
  if (input === 'noisyActions') {
    if (length !== horizon) return `${what} has ${length} rows of noisy actions, and a chunk has ${horizon}`;
    if (width < 4 || width % 2 !== 0)
      return `the width of ${quote(weights)} is ${width}; a flow time needs an even number from 4`;
  }
  if (input === 'state' && !(stateDimension > 0)) return `${what} holds the state, and stateDimension is 0`;
  if (input === 'numbers' && !(dimension > 0)) return `${what} holds numbers, and has no dimension`;
  if (!isPositive(repeats)) return `${what} has ${repeats} repeats; expected a positive integer`;
  return repeats === 1 ? null : repeatsComplaint(configuration, block, what);
}

function repeatsComplaint(configuration: ModelConfiguration, block: BlockSettings, what: string): string | null {
  const { blocks, experts } = configuration;
  const { name, weights, input, repeats } = block;
  if (input === 'learned' || input === 'zeros')
    return `${what} is repeated; only noisy actions, the state and numbers have copies`;
  const own = blocks.filter((other) => other.weights === weights);
  const first = blocks.indexOf(own[0]);
  const alone = own.find((other, i) => other.repeats !== repeats || blocks[first + i] !== other);
  const { adaptive } = experts[weights];
  const ofNoise = (input === 'noisyActions' || input === 'time') && !adaptive && !isCopiedWhole(configuration, block);
  if (alone && !ofNoise)
    return `${what} is repeated ${input === 'noisyActions' ? 'through adaptive norms, which condition each copy by its own time' : 'with the noisy actions'}, but ${quote(alone.name)} of the same expert is not repeated with it, as its neighbour`;
  if (!own.some((other) => other.input === 'noisyActions'))
    return `${what} is repeated; only noisy actions differ between copies`;
  const copied = blocks.filter((other) => other.repeats === repeats).map((other) => other.name);
  const between = [...readBy(configuration, name)].find(
    (other) => !copied.includes(other) && readBy(configuration, other).has(name),
  );
  return between === undefined
    ? null
    : `${what} is repeated, and reads block ${quote(between)}, which sees its first copy alone`;
}

function edgesComplaint(configuration: ModelConfiguration): string | null {
  const names = configuration.blocks.map(({ name }) => name);
  const known = new Set<string>();
  return firstComplaint(configuration.edges, ({ query, key, edge }) => {
    const unknown = [query, key].find((name) => !names.includes(name));
    if (unknown !== undefined) return `an edge names block ${quote(unknown)}; there are ${names.join(', ')}`;
    if (edge.mask === 'causal' && query !== key)
      return `${quote(query)} reads ${quote(key)} by a causal edge; causal is for a block and itself`;
    if (edge.mask !== 'none' && !hasKeys(blockNamed(configuration, key)))
      return `${quote(query)} reads ${quote(key)}, which has queries only (keys: false)`;
    const pair = JSON.stringify([query, key]);
    if (known.has(pair)) return `two edges lead from ${quote(query)} to ${quote(key)}`;
    known.add(pair);
    return null;
  });
}

function loraComplaint({ lora, experts }: ModelConfiguration): string | null {
  if (!lora) return null;
  const { rank, alpha = rank, experts: adapted } = lora;
  if (!isPositive(rank)) return `lora has rank ${rank}; expected a positive integer`;
  if (!(alpha > 0 && Number.isFinite(alpha))) return `lora has alpha ${alpha}; expected a number above 0`;
  const known = Object.keys(experts);
  const wrong = adapted.find((name, i) => !known.includes(name) || adapted.indexOf(name) !== i);
  if (wrong !== undefined && known.includes(wrong)) return `lora names expert ${quote(wrong)} twice`;
  if (wrong !== undefined) return `lora names ${quote(wrong)}; the experts are ${known.join(', ')}`;
  return adapted.length === 0 ? 'lora names no expert' : null;
}

/** The complaint that a rank is above the smallest side of the adapted matrices; null if it is not. */
export function rankComplaint(adapters: readonly ModelParameter[], rank: number): string | null {
  const [tightest] = adapters
    .flatMap(({ name, shape: [, inputs] }, i) => {
      const parts = lowRankParts(name);
      return parts ? [{ matrix: parts.matrix, sides: [adapters[i + 1].shape[0], inputs] }] : [];
    })
    .sort((a, b) => Math.min(...a.sides) - Math.min(...b.sides));
  if (!tightest) return null;
  const { matrix, sides } = tightest;
  const most = Math.min(...sides);
  return rank <= most ? null : `${matrix} is [${sides.join(', ')}]: the rank is at most ${most}`;
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
