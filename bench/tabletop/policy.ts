import type { ActOptions } from '../../model/policy/acting.ts';
import type { Policy } from '../../model/policy/policy.ts';
import type { WorldPolicy } from './evaluation.ts';
import { CAMERA } from './world.ts';

/** Euler steps of a flow: ten succeed no more often. */
const EULER_STEPS = 5;

/** A trained policy as a policy of the tabletop world. Every call draws noise of its own; a second run draws the same. */
export function tabletopPolicy(policy: Policy, seed = 0, onSaid?: ActOptions['onSaid']): WorldPolicy {
  let calls = 0;
  return (observations, _, options) => {
    const seen = observations.map(({ image, state, instruction }) => ({
      images: { [CAMERA]: image },
      state,
      instruction,
    }));
    const sample = calls;
    calls += 1;
    return policy.act(seen, { seed, sample, steps: EULER_STEPS, onSaid, ...options });
  };
}
