/**
 * Real-time chunking: a new chunk continues the one that is executed while it is computed. There are two ways.
 *
 *   guided   sampling of any flow is guided to the previous actions (Black et al. 2025, arXiv 2506.07339; as in LeRobot, modeling_rtc.py)
 *   trained  the model has learned to continue clean first actions, which are pasted in (Black et al. 2025, arXiv 2512.05964)
 */
import { counted, InputError } from '../../../engine/files/errors.ts';
import { type Device, type Tensor, tensor } from '../../../engine/index.ts';
import { add, eulerStep, multiply, scale, subtract } from '../../../kernels/index.ts';

/** How the weights of the previous actions fall from 1 to 0. */
export type PrefixSchedule = 'linear' | 'exponential' | 'ones' | 'zeros';

/** The rest of the chunks that are executed while the next ones are computed, in normalised actions. */
export interface PreviousChunks {
  /** For each example [actions left, dimension]. The first action is that of the control step of the observation. */
  readonly chunks: readonly Float32Array[];
  /** The number of these actions that will have been executed when the next chunk is there. */
  readonly delay: number;
  /** The number of actions that guidance reaches; 10 by default, and at most those that are left. */
  readonly executionHorizon?: number;
  /** 'linear' by default. */
  readonly schedule?: PrefixSchedule;
}

/** LeRobot's bound. */
const LARGEST_GUIDANCE = 10;

/** Weights [horizon] of the actions of a chunk: 1 for the first `delay`, 0 from index `end` on, and between them by the schedule (LeRobot). */
export function prefixWeights(schedule: PrefixSchedule, delay: number, end: number, horizon: number): Float32Array {
  const start = Math.min(delay, end);
  return Float32Array.from({ length: horizon }, (_, i) => {
    if (i < start) return 1;
    if (i >= end || schedule === 'zeros') return 0;
    const linear = schedule === 'ones' ? 1 : 1 - (i - start + 1) / (end - start + 1);
    return schedule === 'exponential' ? (linear * Math.expm1(linear)) / (Math.E - 1) : linear;
  });
}

/** The weight g of guidance: min(10, (1 - s) / s * ((1 - s)^2 + s^2) / (1 - s)^2) with s = 1 - time, the progress from noise to actions. */
export function guidanceWeight(time: number): number {
  const progress = 1 - time;
  return Math.min(LARGEST_GUIDANCE, (time / progress) * ((time ** 2 + progress ** 2) / time ** 2));
}

/**
 * Makes chunks that are being sampled continue the previous ones. All tensors are [chunks, horizon, actionDimension]. `maximumDelay` is
 * that of training: above 0, previous actions are pasted in; at 0, sampling is guided to them.
 *
 * @throws InputError if the previous chunks or the delay do not fit
 */
export function continuationOf(
  device: Device,
  { chunks, delay, executionHorizon = 10, schedule = 'linear' }: PreviousChunks,
  shape: readonly [count: number, horizon: number, dimension: number],
  maximumDelay: number,
) {
  const [count, horizon, dimension] = shape;
  const left = chunks[0].length / dimension;
  const expect = (fits: boolean, complaint: string) => {
    if (!fits) throw new InputError(`real-time chunking: ${complaint}`);
  };
  expect(
    left <= horizon && chunks.every(({ length }) => length === chunks[0].length),
    `every previous chunk has the same number of actions left, up to ${horizon}`,
  );
  expect(
    Number.isInteger(delay) && delay >= 0 && delay <= left,
    `the delay is ${counted(delay, 'control step')}, and ${left} actions are left for them`,
  );
  expect(
    maximumDelay === 0 || delay <= maximumDelay,
    `the delay is ${counted(delay, 'control step')}; this policy was trained with at most ${maximumDelay}`,
  );
  const trained = maximumDelay > 0;
  const clean = trained ? delay : 0;
  const ofActions = prefixWeights(schedule, delay, trained ? delay : Math.min(executionHorizon, left), horizon);
  const size = horizon * dimension;
  const given = new Float32Array(count * size);
  // With history, an example may have several chunks, of which the last is that of the newest control step.
  const each = count / chunks.length;
  expect(Number.isInteger(each), `there are ${chunks.length} previous chunks for ${count} new ones`);
  for (const [example, own] of chunks.entries()) given.set(own, ((example + 1) * each - 1) * size);
  const ofElements = given.map((_, i) => ofActions[Math.floor((i % size) / dimension)]);
  // If sampling is guided, the previous actions and their weights; otherwise the clean actions, and a weight of 1 for all others.
  const data = trained
    ? { previous: given.map((own, i) => ofElements[i] * own), weights: ofElements.map((own) => 1 - own) }
    : { previous: given, weights: ofElements };
  const [previous, weights] = [data.previous, data.weights].map((own) => tensor(device, own, shape));
  return {
    /** The number of first actions of every chunk that are previous ones, at time 0 in every sampling step; 0 if sampling is guided. */
    clean,
    /** Where sampling begins: the noise, with the clean actions in their place. */
    begin: (noise: Float32Array): Float32Array =>
      clean > 0 ? noise.map((own, i) => data.weights[i] * own + data.previous[i]) : noise,
    /** The chunks x with the clean actions in their place. */
    paste: (x: Tensor): Tensor => (clean > 0 ? add(multiply(x, weights), previous) : x),
    /**
     * The velocity v of chunks x at a time t, guided to the previous actions: v - g W (previous - (x - t v)). x - t v estimates the clean
     * actions. The published method multiplies the error by the Jacobian of this estimate; here that is the identity, as in LeRobot.
     */
    guide(x: Tensor, velocity: Tensor, time: number): Tensor {
      if (trained) return velocity;
      const error = multiply(subtract(previous, eulerStep(x, velocity, -time)), weights);
      return subtract(velocity, scale(error, guidanceWeight(time)));
    },
    [Symbol.dispose]() {
      previous.dispose();
      weights.dispose();
    },
  };
}
