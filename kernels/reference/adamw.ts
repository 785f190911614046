/** AdamW, the norms that clip its gradients, and the rounding of its moments. */
import { type Numbers, sum } from './numbers.ts';

/** A parameter with its two moments. */
export type AdamWState = Readonly<Record<'value' | 'first' | 'second', Float64Array>>;
export type AdamWSettings = Readonly<Record<'beta1' | 'beta2' | 'epsilon' | 'weightDecay', number>>;

/** Update number `step`, from 1, of a parameter: m and v become moving means of g and g^2, and the value moves by their unbiased ratio. */
export function adamw(state: AdamWState, gradient: Numbers, settings: AdamWSettings, step: number, rate: number): void {
  const { value, first: m, second: v } = state;
  const { beta1, beta2, epsilon, weightDecay } = settings;
  for (let i = 0; i < value.length; i++) {
    m[i] = beta1 * m[i] + (1 - beta1) * gradient[i];
    v[i] = beta2 * v[i] + (1 - beta2) * gradient[i] ** 2;
    const ratio = m[i] / (1 - beta1 ** step) / (Math.sqrt(v[i] / (1 - beta2 ** step)) + epsilon);
    value[i] -= rate * (ratio + weightDecay * value[i]);
  }
}

/** The exponential moving average of a value, one update on. */
export const movingAverage = (average: Numbers, value: Numbers, decay: number): Float64Array<ArrayBuffer> =>
  Float64Array.from(average, (own, i) => decay * own + (1 - decay) * value[i]);

export const gradientNorm = (gradients: readonly Numbers[]): number =>
  Math.sqrt(sum(gradients.length, (g) => sum(gradients[g].length, (i) => gradients[g][i] ** 2)));

/** A first moment (shift 0) or a second (shift 16) in bfloat16: rounded up if its last 16 bits and 16 random ones carry. */
export function roundedMoment(moment: Float32Array, random: (i: number) => number, shift: 0 | 16): Float32Array {
  const words = new Uint32Array(moment.slice().buffer);
  const sums = words.map((word, i) => ((word + ((random(i) >>> shift) & 0xffff)) & 0xffff0000) >>> 0);
  return new Float32Array(sums.buffer);
}
