import { InputError } from '../../engine/files/errors.ts';
import type { Dataset } from '../data/dataset.ts';
import { stateAt } from '../data/parts.ts';
import { eachLoaded, type Sample } from '../data/sampler.ts';

type Robot = Pick<Dataset, 'name' | 'actionDimension' | 'stateDimension' | 'actionNames'>;

/**
 * Whether each action dimension is made relative to the state dimension of the same index at the chunk's start (openpi, transforms.py). All
 * are but the last, which is taken for the gripper, and those that are named as grippers.
 *
 * @throws InputError if the state has fewer dimensions than the actions
 */
export function deltaDimensions({ name, actionDimension, stateDimension, actionNames = [] }: Robot): boolean[] {
  const [count, known] = [actionDimension, stateDimension];
  if (known < count) {
    const many = `${count} action dimensions and ${known} of the state, which is subtracted by number`;
    throw new InputError(`--delta: "${name}" has ${known === 0 ? 'no state to subtract' : many}; leave it out`);
  }
  return Array.from({ length: count }, (_, i) => i < count - 1 && !/grip/i.test(actionNames[i] ?? ''));
}

/** A mixture of robots in which the dimensions of `deltaDimensions` are relative. */
export function withDeltas(dataset: Dataset): Dataset {
  const robots = Object.entries(dataset.robots ?? {}).map(([name, map]) => {
    const sizes = { actionDimension: map.actions.length, stateDimension: map.state.length };
    const relative = deltaDimensions({ name, ...sizes, actionNames: map.actions.map((slot) => slot.name) });
    return [name, { ...map, actions: map.actions.map((slot, i) => ({ ...slot, relative: relative[i] })) }] as const;
  });
  return { ...dataset, robots: Object.fromEntries(robots) };
}

/**
 * A warning if the actions look like differences already, null if they look absolute. They look like differences if more than half of the
 * relative dimensions that move correlate better with the change of the state over the control step than with the state after it, and
 * have a larger standard deviation after the state is subtracted. `samples` are of one robot, with more than one step of an episode.
 */
export async function deltaWarning(
  name: string,
  samples: readonly Sample[],
  relative: readonly boolean[],
): Promise<string | null> {
  const columns = relative.map(() => ({ action: [] as number[], state: [] as number[], next: [] as number[] }));
  for await (const { part, step } of eachLoaded(samples)) {
    const { episode, to } = part;
    const [state, next] = [stateAt(episode, step), step + 1 < to ? stateAt(episode, step + 1) : null];
    if (!state || !next) continue;
    for (const [d, own] of columns.entries()) {
      own.action.push(episode.actions[step * relative.length + d]);
      own.state.push(state[d]);
      own.next.push(next[d]);
    }
  }
  const minus = (a: number[], b: number[]) => a.map((value, i) => value - b[i]);
  const moving = columns.flatMap(({ action, state, next }, d) => {
    const change = minus(next, state);
    if (!relative[d] || [action, state, change].some((values) => standardDeviation(values) === 0)) return [];
    const wider = standardDeviation(minus(action, state)) / standardDeviation(action);
    return [{ change: correlation(action, change), next: correlation(action, next), wider }];
  });
  const deltas = moving.filter(({ change, next, wider }) => Math.abs(change) > Math.abs(next) && wider >= 1);
  if (2 * deltas.length <= moving.length) return null;
  const median = (values: number[]) => values.sort((a, b) => a - b)[values.length >> 1].toFixed(2);
  return (
    `--delta: the actions of "${name}" look like differences already: in ${deltas.length} of ${moving.length} dimensions that move they ` +
    `follow the change of the state (correlation ${median(deltas.map(({ change }) => change))}) rather than the next state ` +
    `(${median(deltas.map(({ next }) => next))}), and minus the state they spread ${median(deltas.map(({ wider }) => wider))} times as wide; ` +
    'leave it out unless they are absolute'
  );
}

const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;

function covariance(a: readonly number[], b: readonly number[]): number {
  const [meanA, meanB] = [mean(a), mean(b)];
  return mean(a.map((value, i) => (value - meanA) * (b[i] - meanB)));
}

const standardDeviation = (values: readonly number[]) => Math.sqrt(covariance(values, values));

const correlation = (a: readonly number[], b: readonly number[]) =>
  covariance(a, b) / (standardDeviation(a) * standardDeviation(b) || 1);
