import type { Policy } from '../../model/policy/policy.ts';
import type { Policy as TabletopPolicy } from './evaluation.ts';
import { CAMERA } from './world.ts';

/** A trained policy as the tabletop world asks for it. Every call draws noise of its own; the same run draws the same. */
export function tabletopPolicy(policy: Policy, seed = 0): TabletopPolicy {
  let calls = 0;
  return (observations) => {
    const seen = observations.map(({ image, state, instruction }) => ({
      images: { [CAMERA]: image },
      state,
      instruction,
    }));
    const sample = calls;
    calls += 1;
    return policy.act(seen, { seed, sample });
  };
}
