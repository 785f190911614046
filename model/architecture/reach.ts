/** The parameter groups that the gradient of a loss reaches, by the attention table alone. */
import { type Edge, full } from '../../kernels/index.ts';
import {
  type BlockSettings,
  type HistorySettings,
  hasKeys,
  projectorGroup,
  stepsInSequence,
  type VisionParts,
} from './configuration.ts';

/** Blocks with the parameters that they run through, and the attention between them. */
export interface AttendingBlocks {
  readonly blocks: readonly (Pick<BlockSettings, 'name' | 'weights' | 'keys' | 'memory'> & {
    readonly input: string;
  })[];
  readonly edges: readonly { readonly query: string; readonly key: string; readonly edge: Edge }[];
  readonly history?: HistorySettings;
  readonly vision: VisionParts | null;
}

/** The blocks that a block attends to, and those that they attend to, and so on; itself if it is among them. */
export function readBy(model: Reading, name: string): ReadonlySet<string> {
  const direct = edgesOf(model).filter(({ query, edge }) => query === name && edge.mask !== 'none');
  return blocksReached(
    model,
    direct.map(({ key }) => key),
    () => true,
  );
}

type Reading = Pick<AttendingBlocks, 'blocks' | 'edges' | 'history'>;

/** The edges of the table; in interleaved history every block also sees all that has keys, of the control steps before. */
function edgesOf({ blocks, edges, history }: Reading): AttendingBlocks['edges'] {
  if (stepsInSequence({ history }) === 1) return edges;
  const keys = blocks.filter(hasKeys);
  const earlier = blocks.flatMap(({ name: query }) => keys.map(({ name: key }) => ({ query, key, edge: full })));
  return [...edges, ...earlier];
}

/**
 * The groups that a loss on the named blocks or vision towers sends gradient to: the weights of these blocks, and of every block that
 * the gradient comes to along attention that does not stop it. Any other group has gradients of exactly zero.
 */
export function groupsReached(model: AttendingBlocks, lossBlocks: readonly string[]): ReadonlySet<string> {
  return groupsOf(
    model,
    blocksReached(model, lossBlocks, ({ keyGradient, valueGradient }) => keyGradient > 0 || valueGradient > 0),
  );
}

/** The groups that it sends no gradient to, each with the reason. */
export function groupsNotReached(
  model: AttendingBlocks,
  lossBlocks: readonly string[],
): { group: string; reason: string }[] {
  const reached = groupsReached(model, lossBlocks);
  const read = groupsOf(
    model,
    blocksReached(model, lossBlocks, () => true),
  );
  const all = groupsOf(model, new Set(model.blocks.map(({ name }) => name)));
  return [...all]
    .filter((group) => !reached.has(group))
    .map((group) => ({
      group,
      reason: read.has(group) ? 'cut by the table' : `not read by ${lossBlocks.join(', ')}`,
    }));
}

/** The given blocks and all that they attend to, directly or through others, along edges that pass. */
function blocksReached(model: Reading, from: readonly string[], passes: (edge: Edge) => boolean): ReadonlySet<string> {
  const edges = edgesOf(model);
  const reached = new Set(from);
  // A set is walked in the order of insertion, so that this loop also visits the blocks it adds.
  for (const block of reached)
    for (const { query, key, edge } of edges)
      if (query === block && edge.mask !== 'none' && passes(edge)) reached.add(key);
  return reached;
}

function groupsOf({ blocks, vision }: AttendingBlocks, names: ReadonlySet<string>): ReadonlySet<string> {
  const own = blocks.filter(({ name }) => names.has(name));
  const towers = Object.keys(vision?.towers ?? {});
  const ofBlocks = own.flatMap((block) => [
    ...(block.input === 'images' && vision ? [...towers, projectorGroup(vision)] : []),
    ...(block.memory ? [] : [block.weights]),
  ]);
  return new Set([...towers.filter((name) => names.has(name)), ...ofBlocks]);
}
