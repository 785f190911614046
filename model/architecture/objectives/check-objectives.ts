/** Objectives that cannot run are refused. */
import { quote } from '../../../engine/files/errors.ts';
import { blocksBefore, type ModelConfiguration, timeBlock } from '../configuration.ts';
import { trunkObstacle } from '../heads/trunk.ts';
import { readBy } from '../reach.ts';
import { headObstacle } from './regression.ts';
import { rowCount, rowWidth } from './rows.ts';
import {
  type ClassificationSettings,
  type DenoisingHeadSettings,
  type DenoisingSettings,
  maximumDelayOf,
  type ObjectiveSettings,
  type RegressionSettings,
} from './settings.ts';

/** The objectives that take noise and times from the batch. */
const denoising: readonly ObjectiveSettings['kind'][] = ['flow', 'diffusion', 'denoisingHead'];

/** Why the objectives of a configuration, all of whose blocks and edges are known, cannot run; null if they can. */
export function objectivesComplaint(configuration: ModelConfiguration): string | null {
  const { objectives } = configuration;
  for (const objective of objectives) {
    const complaint = objectiveComplaint(configuration, objective);
    if (complaint !== null) return complaint;
  }
  const [first, second] = objectives.filter(({ kind }) => denoising.includes(kind));
  return second
    ? `objectives ${quote(first.name)} and ${quote(second.name)} both denoise the actions; a batch has one noise and one time for each chunk`
    : null;
}

function objectiveComplaint(configuration: ModelConfiguration, objective: ObjectiveSettings): string | null {
  const what = `objective ${quote(objective.name)}`;
  switch (objective.kind) {
    case 'nextToken':
      return targetsComplaint(configuration, what);
    case 'flow':
    case 'diffusion':
      return denoisingComplaint(configuration, objective, what);
    default:
      return headComplaint(configuration, objective, what);
  }
}

function denoisingComplaint(
  configuration: ModelConfiguration,
  objective: DenoisingSettings,
  what: string,
): string | null {
  const { blocks, horizon } = configuration;
  if (blocks.find(({ name }) => name === objective.block)?.input !== 'noisyActions')
    return `${what} reads block ${quote(objective.block)}, which holds no noisy actions`;
  const delay = maximumDelayOf(objective);
  if (!Number.isInteger(delay) || delay < 0 || delay >= horizon)
    return `${what} has a maximum delay of ${delay} actions; expected a whole number below the ${horizon} of a chunk`;
  const time = timeBlock(configuration);
  if (delay > 0 && time)
    return `${what} has a maximum delay, for which actions have times of their own, and block ${quote(time.name)} is one time for all`;
  return null;
}

function headComplaint(
  configuration: ModelConfiguration,
  objective: RegressionSettings | ClassificationSettings | DenoisingHeadSettings,
  what: string,
): string | null {
  const { blocks, vision, depth, horizon } = configuration;
  const { kind, rows } = objective;
  const regression = kind === 'regression' ? objective : null;
  const ofActions = kind === 'denoisingHead' || (regression !== null && regression.dimension === undefined);
  const obstacle = regression && headObstacle(regression, configuration);
  if (obstacle) return `${what} ${obstacle}`;
  if ('tower' in rows) {
    if (ofActions)
      return `${what} predicts actions, and reads a vision tower; only rows of a block are one for each action`;
    if (!Object.hasOwn(vision?.towers ?? {}, rows.tower))
      return `${what} reads vision tower ${quote(rows.tower)}, and there is none`;
    if (!blocks.some(({ input }) => input === 'images'))
      return `${what} reads vision tower ${quote(rows.tower)}, and no block holds images`;
    return null;
  }
  const block = blocks.find(({ name }) => name === rows.block);
  if (!block) return `${what} reads block ${quote(rows.block)}; there are ${blocks.map(({ name }) => name).join(', ')}`;
  if ((block.repeats ?? 1) !== 1)
    return `${what} reads block ${quote(rows.block)}, which is repeated; only a flow reads copies`;
  if ((rows.layer ?? 0) > depth)
    return `${what} reads the rows that enter layer ${rows.layer}; there are ${depth} layers`;
  if (kind === 'denoisingHead') {
    const { trunk, width = 4 } = objective;
    const features = rowCount(configuration, rows) * rowWidth(configuration, rows).width;
    const ofTrunk = trunk && trunkObstacle(trunk, features);
    if (ofTrunk) return `${what} ${ofTrunk}`;
    if (width % 2 !== 0) return `the width of ${what} is ${width}; a time embedding needs an even number from 4`;
  }
  if (!regression) return null;
  const { before, head, rowsPerStep = 1 } = regression;
  if (before && blocksBefore(configuration, block).length === 0)
    return `${what} reads the rows before those of block ${quote(rows.block)}, which comes after no block of its expert`;
  if (block.length % rowsPerStep !== 0)
    return `${what} reads ${rowsPerStep} rows side by side, and block ${quote(rows.block)} has ${block.length}`;
  const needed = horizon * rowsPerStep;
  if (ofActions && !(head && 'trunk' in head) && block.length !== needed)
    return `${what} predicts ${horizon} actions from ${needed} rows, and block ${quote(rows.block)} has ${block.length}`;
  return null;
}

/** A row that is to predict a token must not see it. */
function targetsComplaint(configuration: ModelConfiguration, what: string): string | null {
  const targets = configuration.blocks.filter(({ input }) => input === 'target');
  if (targets.length === 0) return `${what} predicts tokens, and no block holds a target`;
  for (const target of targets) {
    const { name } = target;
    const others = configuration.edges.filter(({ query, key }) => query !== name || key !== name);
    const own = configuration.edges.find((edge) => !others.includes(edge));
    if (own?.edge.mask === 'full')
      return `block ${quote(name)} sees all of itself, the tokens that it is to predict included; its own edge must be causal`;
    const before = blocksBefore(configuration, target).map((block) => block.name);
    if (before.length === 0)
      return `block ${quote(name)} comes after no block of the backbone, so nothing predicts its first token`;
    const reader = [name, ...before].find((block) => readBy({ ...configuration, edges: others }, block).has(name));
    if (reader !== undefined)
      return `block ${quote(reader)} is to predict tokens of ${quote(name)}, and sees them by way of other blocks`;
  }
  return null;
}
