import { Demonstrator } from '../../bench/tabletop/demonstrator.ts';
import type { WorldPolicy } from '../../bench/tabletop/evaluation.ts';
import type { TabletopWorld } from '../../bench/tabletop/world.ts';

/** The scripted demonstrator as a policy: an upper bound, as it reads the state of the world. For `executeSteps: 1`. */
export function demonstratorPolicy(): WorldPolicy {
  const demonstrators = new Map<TabletopWorld, Demonstrator>();
  return async (_, worlds) =>
    worlds.map((world) => {
      const demonstrator = demonstrators.get(world) ?? new Demonstrator(world);
      demonstrators.set(world, demonstrator);
      return demonstrator.action();
    });
}
