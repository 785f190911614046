import type { ActOptions } from '../../model/policy/acting.ts';
import type { Policy } from '../../model/policy/policy.ts';
import type { WorldPolicy } from './evaluation.ts';
import { CAMERA, type WorldObservation } from './world.ts';

/** Euler steps of a flow: ten succeed no more often. */
const EULER_STEPS = 5;

/**
 * A trained policy as a policy of the tabletop world, for the episodes of one evaluation. Every call draws noise of its own; a second run
 * draws the same.
 */
export function tabletopPolicy(policy: Policy, seed = 0, onSaid?: ActOptions['onSaid']): WorldPolicy {
  const session = policy.session();
  let calls = 0;
  const seen = ({ image, state, instruction }: WorldObservation) => ({
    images: { [CAMERA]: image },
    state,
    instruction,
  });
  const act: WorldPolicy = (observations, _, options) => {
    const sample = calls;
    calls += 1;
    return session.act(observations.map(seen), { seed, sample, steps: EULER_STEPS, onSaid, ...options });
  };
  if (policy.model.configuration.history) act.see = (index, observation) => session.see(index, seen(observation));
  return act;
}
