/** The blocks that run when a model acts: those that are decoded first, those that run once, and reasons why a model cannot act. */
import { quote } from '../../../engine/files/errors.ts';
import { type BlockSettings, blocksBefore, type ModelConfiguration, noisyBlock, timeBlock } from '../configuration.ts';
import { readBy } from '../reach.ts';
import type { Objective } from './objective.ts';

/** The named blocks and all that they read, in the order of tokens. */
export function blocksRun(configuration: ModelConfiguration, names: readonly string[]): BlockSettings[] {
  const run = new Set(names.flatMap((name) => [name, ...readBy(configuration, name)]));
  return configuration.blocks.filter(({ name }) => run.has(name));
}

/** The blocks that decoding of a target runs before it. */
export function prefixOf(configuration: ModelConfiguration, target: BlockSettings): string[] {
  const before = blocksBefore(configuration, target).map(({ name }) => name);
  const run = blocksRun(configuration, [target.name, ...before]);
  return run.map(({ name }) => name).filter((name) => name !== target.name);
}

/**
 * The targets that are decoded before these blocks run: those that they read, and those that their positions come after; each after the
 * ones that it needs itself. Without a token loss all targets are given.
 */
export function targetsBefore(configuration: ModelConfiguration, names: readonly string[]): BlockSettings[] {
  if (!configuration.objectives.some(({ kind }) => kind === 'nextToken')) return [];
  const [begun, ordered] = [new Set<BlockSettings>(), new Set<BlockSettings>()];
  const visit = (target: BlockSettings) => {
    if (begun.has(target)) return;
    begun.add(target);
    for (const other of neededFor(configuration, target)) visit(other);
    ordered.add(target);
  };
  for (const target of targetsOf(configuration, names)) visit(target);
  return [...ordered];
}

/** The targets among these blocks and all that they read, and those that the positions of one come after. */
function targetsOf(configuration: ModelConfiguration, names: readonly string[]): BlockSettings[] {
  const run = blocksRun(configuration, names);
  const counted = new Set(run.flatMap(({ after }) => after));
  return configuration.blocks.filter(
    (block) => block.input === 'target' && (run.includes(block) || counted.has(block.name)),
  );
}

/** The targets that decoding of a target needs first; itself where that cannot be. */
function neededFor(configuration: ModelConfiguration, target: BlockSettings): BlockSettings[] {
  const counted = configuration.blocks.filter(({ name, input }) => input === 'target' && target.after.includes(name));
  return [...new Set([...targetsOf(configuration, prefixOf(configuration, target)), ...counted])];
}

/**
 * The blocks that a sampling step runs: `suffix` in every step, because it sees the noisy actions or the flow time, `prefix` once.
 */
export function samplingBlocks(configuration: ModelConfiguration, block: BlockSettings) {
  const changing = changingBlocks(configuration);
  const run = blocksRun(configuration, [block.name]).map(({ name }) => name);
  return { prefix: run.filter((name) => !changing.has(name)), suffix: run.filter((name) => changing.has(name)) };
}

/** Why these blocks cannot run without a flow; null if they can. */
export function flowNeeded(configuration: ModelConfiguration, names: readonly string[]): string | null {
  const changing = changingBlocks(configuration);
  const found = blocksRun(configuration, names).find(({ name }) => changing.has(name));
  return found ? `it reads block ${quote(found.name)}, which changes with the noisy actions or their flow time` : null;
}

/** Why one of these targets cannot be decoded; null if all can. */
export function notDecodable(configuration: ModelConfiguration, targets: readonly BlockSettings[]): string | null {
  for (const target of targets) {
    const first = neededFor(configuration, target).map(({ name }) => name);
    const reason = targetsBefore(configuration, first).includes(target)
      ? 'a block that it reads comes after its tokens'
      : flowNeeded(configuration, prefixOf(configuration, target));
    if (reason) return `target ${quote(target.name)} cannot be decoded: ${reason}`;
  }
  return null;
}

/** The part of an objective that says whether it can act, by a chunk of actions for which these blocks run. */
export function chunkMaker(
  configuration: ModelConfiguration,
  makes: readonly string[],
  obstacle: string | null = null,
): Pick<Objective, 'makes' | 'obstacle' | 'acts'> {
  const own = obstacle ?? notDecodable(configuration, targetsBefore(configuration, makes));
  return { makes, obstacle: own, acts: own === null ? 'chunk' : undefined };
}

/** The blocks that see the noisy actions or the flow time, directly or through others. */
function changingBlocks(configuration: ModelConfiguration): ReadonlySet<string> {
  const noisy = noisyBlock(configuration);
  if (!noisy) return new Set();
  const { blocks, experts } = configuration;
  const { adaptive } = experts[noisy.weights];
  const time = timeBlock(configuration);
  const source = (block: BlockSettings) =>
    block === noisy || block === time || (adaptive && block.weights === noisy.weights);
  const sources = new Set(blocks.filter(source).map(({ name }) => name));
  const changes = (name: string) =>
    sources.has(name) || [...readBy(configuration, name)].some((own) => sources.has(own));
  return new Set(blocks.map(({ name }) => name).filter(changes));
}
