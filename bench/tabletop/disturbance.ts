import { randomStream, streams } from '../../engine/random.ts';
import { draws } from './scene.ts';

/** The share of a step's disturbance that persists in the next step: a push lasts about half a second and is no shaking. */
const PERSISTENCE = 0.8;

/**
 * Slowly changing pushes against the gripper, along x, y and z; `size` is their root mean square, in metres. The function pushes the
 * action [4] of control step `step`, and is called once for every step, in order.
 */
export function disturbance(seed: number, size: number): (action: Float32Array, step: number) => Float32Array {
  const random = randomStream(seed, draws.disturbance, streams.world);
  const push = [0, 0, 0];
  return (action, step) => {
    push.forEach((before, i) => {
      // A uniform number of variance 1, scaled so that the push keeps the variance that was asked for.
      const fresh = Math.sqrt(12) * (random.uniform(step * 3 + i) - 0.5);
      push[i] = PERSISTENCE * before + Math.sqrt(1 - PERSISTENCE * PERSISTENCE) * size * fresh;
    });
    return action.map((value, i) => value + (push[i] ?? 0));
  };
}
