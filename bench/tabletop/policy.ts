import type { Policy } from '../../model/policy/policy.ts';
import type { WorldPolicy } from './evaluation.ts';
import type { Film } from './film.ts';
import { CAMERA } from './world.ts';

/** A trained policy as a policy of the tabletop world. Every call draws noise of its own; a second run draws the same. */
export function tabletopPolicy(policy: Policy, seed = 0, onSaid?: Film['onSaid']): WorldPolicy {
  let calls = 0;
  return (observations) => {
    const seen = observations.map(({ image, state, instruction }) => ({
      images: { [CAMERA]: image },
      state,
      instruction,
    }));
    const options = { seed, sample: calls++, onSaid };
    return policy.act(seen, options);
  };
}
