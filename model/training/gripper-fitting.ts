/** Whether the data have a gripper for a system that predicts one: the last action dimension, which takes two values. */
import type { Dataset, DatasetStatistics } from '../data/index.ts';
import type { EncodingSettings } from '../policy/encoding.ts';
import type { System } from '../systems/index.ts';

/**
 * A variable between two ends has at most the variance (high - mean) (mean - low), and that only if it takes no value between them
 * (Bhatia and Davis 2000). Commands of a gripper that now and then takes a control step to close have nearly that much.
 */
const TWO_VALUED = 0.7;

function isTwoValued({ actions: { mean, std, min, max } }: DatasetStatistics, dimension: number): boolean {
  const largest = (max[dimension] - mean[dimension]) * (mean[dimension] - min[dimension]);
  return largest > 0 && std[dimension] ** 2 >= TWO_VALUED * largest;
}

/** The system without the losses of a gripper if the data have none, and a note on what is taken for the gripper. */
export function withGripperOf(
  system: System,
  { name, actionDimension, actionNames }: Dataset,
  { statistics, robots }: Pick<EncodingSettings, 'statistics' | 'robots'>,
): { system: System; notes: string[] } {
  if (!system.objectives.some((own) => 'gripper' in own && own.gripper)) return { system, notes: [] };
  const last = actionDimension - 1;
  const own = Object.values(robots ?? {}).flatMap(({ slots, statistics }) => {
    const dimension = slots.actions.findIndex(({ slot }) => slot === last);
    return dimension < 0 ? [] : [isTwoValued(statistics, dimension)];
  });
  const are = statistics ? [isTwoValued(statistics, last)] : own;
  const named = `action dimension ${last}${actionNames?.[last] ? ` (${actionNames[last]})` : ''}`;
  if (are.length > 0 && are.every((isOne) => isOne))
    return { system, notes: [`${name}: ${named} is taken for a gripper, which is open or closed`] };
  return {
    system: {
      ...system,
      objectives: system.objectives.map((own) => {
        if (own.kind !== 'regression') return own;
        const { gripper: _, ...others } = own;
        return others;
      }),
    },
    notes: [`${name}: ${named} takes more than two values, so it is no gripper and is predicted as the others`],
  };
}
