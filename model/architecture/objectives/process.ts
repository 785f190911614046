/** The ways from noise to actions that a model can learn: flow matching, and diffusion. */
import { InputError } from '../../../engine/files/errors.ts';
import type { Random, Tensor } from '../../../engine/index.ts';
import { eulerStep, flowInterpolate, reshape, sampleTimes, scale, timeEmbedding } from '../../../kernels/index.ts';
import { expectLength, floats, type Inputs, type InputTensors, inputNamed } from '../inputs.ts';

/** Chunks with their noise, all [chunks, horizon, actionDimension], and their times [chunks]. */
interface Noised {
  readonly actions: Float32Array;
  readonly noise: Float32Array;
  readonly time: ArrayLike<number>;
}

/** A way from noise to actions. Times are in (0, 1]: a chunk at time 1 is noise, and the nearer to 0, the closer it is to its actions. */
export interface Process {
  /** The quantity that a model predicts; it also names the prediction among the tensors of a loss. */
  readonly predicts: 'velocity' | 'noise';
  /** The name of a sampling step. */
  readonly step: string;
  /** Training times of examples `first` to `first + count - 1`, rounded to f32. */
  drawTimes(random: Random, count: number, first: number): Float32Array;
  /** The embedding of times: [times.length, width]. */
  embed(times: ArrayLike<number>, width: number): Float32Array<ArrayBuffer>;
  /** Inputs of the named objective for chunks of this shape, from which `noise` makes noisy chunks; one of them is the noise. */
  inputs(name: string, noised: Noised, shape: readonly number[]): Inputs;
  /** The noisy chunks, and the target of the prediction, both of the chunks' shape. */
  noise(name: string, inputs: InputTensors): { noisy: Tensor; target: Tensor };
  /**
   * The times at which the model predicts, one for each of `steps` sampling steps.
   *
   * @throws InputError if it cannot sample in this number of steps
   */
  samplingTimes(steps: number): number[];
  /** The chunks x after sampling step `index` of `steps`, from a model's prediction at its time. */
  advance(x: Tensor, prediction: Tensor, index: number, steps: number): Tensor;
  /** The error of the best constant prediction for one element, from its noise, its action and the mean action; the mean noise is 0. */
  constantError(noise: number, action: number, meanAction: number): number;
}

/**
 * Flow matching on straight paths (Lipman et al. 2023, arXiv 2210.02747; the direction of time is openpi's): noisy = t noise +
 * (1 - t) actions, the target is the velocity noise - actions, and Euler's method integrates it from t = 1 back to 0.
 */
const flow: Process = {
  predicts: 'velocity',
  step: 'Euler step',
  drawTimes: sampleTimes,
  embed: timeEmbedding,
  inputs: (name, { actions, noise, time }, shape) => ({
    [`${name}/noise`]: floats(noise, shape),
    [`${name}/time`]: floats(Float32Array.from(time), [shape[0]]),
    [`${name}/actions`]: floats(actions, shape),
  }),
  noise(name, inputs) {
    const [actions, noise, time] = ['actions', 'noise', 'time'].map((own) => inputNamed(inputs, `${name}/${own}`));
    if (time.size === actions.shape[0]) return flowInterpolate(actions, noise, time);
    // Every action has a time of its own.
    const byAction = (t: Tensor) => reshape(t, [time.size, t.size / time.size]);
    const { noisy, target } = flowInterpolate(byAction(actions), byAction(noise), time);
    return { noisy: reshape(noisy, actions.shape), target: reshape(target, actions.shape) };
  },
  samplingTimes: (steps) => Array.from({ length: steps }, (_, i) => 1 - i / steps),
  advance: (x, velocity, _, steps) => eulerStep(x, velocity, -1 / steps),
  constantError: (noise, action, meanAction) => noise - action + meanAction,
};

/** The number of noise levels, as in HybridVLA and Diffusion Policy. OpenVLA-OFT has 50. */
export const LEVELS = 100;
const LARGEST_BETA = 0.999;

/**
 * alphaBar of each level: the squared-cosine schedule (Nichol and Dhariwal 2021, arXiv 2102.09672). With
 * f(u) = cos(pi / 2 (u + 0.008) / 1.008)^2 the variances are beta_k = min(0.999, 1 - f((k + 1) / LEVELS) / f(k / LEVELS)), and
 * alphaBar_k is the product of 1 - beta up to level k.
 */
export const alphaBars: readonly number[] = (() => {
  const f = (u: number) => Math.cos((((u + 0.008) / 1.008) * Math.PI) / 2) ** 2;
  let product = 1;
  return Array.from({ length: LEVELS }, (_, k) => {
    product *= 1 - Math.min(LARGEST_BETA, 1 - f((k + 1) / LEVELS) / f(k / LEVELS));
    return product;
  });
})();

/** The level k of time (k + 1) / LEVELS. */
function levelAt(time: number): number {
  const level = Math.round(time * LEVELS) - 1;
  if (!(level >= 0 && level < LEVELS && Math.abs(time * LEVELS - level - 1) < 1e-3))
    throw new InputError(
      `diffusion has no level at time ${time}; expected a whole number from 1 to ${LEVELS} / ${LEVELS}`,
    );
  return level;
}

/** The level of a sampling step. DDIM's levels go down to 0 in equal strides, as in HybridVLA and the scheduler of OpenVLA-OFT. */
const samplingLevel = (index: number, steps: number) => Math.floor(LEVELS / steps) * (steps - 1 - index);

/**
 * Diffusion (Ho et al. 2020, arXiv 2006.11239): at level k, noisy = sqrt(alphaBar_k) actions + sqrt(1 - alphaBar_k) noise, the target is
 * the noise, and DDIM goes back (Song et al. 2021, arXiv 2010.02502, eta = 0): with a = alphaBar of this step's level and b = that of the
 * next step's, 1 after the last, x becomes sqrt(b) (x - sqrt(1 - a) noise) / sqrt(a) + sqrt(1 - b) noise. The estimate of the actions,
 * (x - sqrt(1 - a) noise) / sqrt(a), is not clipped, as in HybridVLA.
 */
const diffusion: Process = {
  predicts: 'noise',
  step: 'DDIM step',
  drawTimes: (random, count, first) =>
    Float32Array.from({ length: count }, (_, i) => (random.integer(first + i, LEVELS) + 1) / LEVELS),
  // The sines and cosines of Vaswani et al. 2017, base 10000, of the level's number (OpenVLA-OFT, action_heads.py).
  // HybridVLA has 256 of them, cosines first.
  embed: (times, width) =>
    timeEmbedding(Array.from(times, levelAt), width, { minimumPeriod: 2 * Math.PI, maximumPeriod: 2e4 * Math.PI }),
  inputs(name, { actions, noise, time }, shape) {
    expectLength(`${name}/actions`, actions, noise.length, shape);
    expectLength(`${name}/time`, time, shape[0]);
    const each = noise.length / shape[0];
    const levels = Array.from(time, (own) => alphaBars[levelAt(own)]);
    const noisy = noise.map((own, i) => {
      const alphaBar = levels[Math.floor(i / each)];
      return Math.sqrt(alphaBar) * actions[i] + Math.sqrt(1 - alphaBar) * own;
    });
    return { [`${name}/noisy`]: floats(noisy, shape), [`${name}/noise`]: floats(noise, shape) };
  },
  noise: (name, inputs) => ({
    noisy: inputNamed(inputs, `${name}/noisy`),
    target: inputNamed(inputs, `${name}/noise`),
  }),
  samplingTimes(steps) {
    // A single step would be at level 0, the one of least noise, and x is pure noise.
    if (!(steps >= 2 && steps <= LEVELS))
      throw new InputError(`diffusion cannot sample in ${steps} steps; expected 2 to ${LEVELS}`);
    return Array.from({ length: steps }, (_, i) => (samplingLevel(i, steps) + 1) / LEVELS);
  },
  advance(x, noise, index, steps) {
    const alphaBar = alphaBars[samplingLevel(index, steps)];
    const next = index === steps - 1 ? 1 : alphaBars[samplingLevel(index + 1, steps)];
    const kept = Math.sqrt(next / alphaBar);
    return eulerStep(scale(x, kept), noise, Math.sqrt(1 - next) - kept * Math.sqrt(1 - alphaBar));
  },
  constantError: (noise) => noise,
};

export const processes = { flow, diffusion } as const;
