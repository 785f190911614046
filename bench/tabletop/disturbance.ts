import { type Random, randomStream, streams } from '../../engine/random.ts';
import { draws } from './scene.ts';

/** The share of a step's disturbance that persists in the next step: a push lasts about half a second and is no shaking. */
const PERSISTENCE = 0.8;

/** Slowly changing pushes against the gripper, along x, y and z. */
export class Disturbance {
  readonly #push = [0, 0, 0];
  readonly #random: Random;

  /** `size`: root mean square of a push, in metres. */
  constructor(
    seed: number,
    private readonly size: number,
  ) {
    this.#random = randomStream(seed, draws.disturbance, streams.world);
  }

  /** The action [4] of control step `step`, pushed; called once for every step, in order. */
  push(action: Float32Array, step: number): Float32Array {
    this.#push.forEach((before, i) => {
      // A uniform number of variance 1, scaled so that the push keeps the variance that was asked for.
      const fresh = Math.sqrt(12) * (this.#random.uniform(step * 3 + i) - 0.5);
      this.#push[i] = PERSISTENCE * before + Math.sqrt(1 - PERSISTENCE * PERSISTENCE) * this.size * fresh;
    });
    return action.map((value, i) => value + (this.#push[i] ?? 0));
  }
}
