/** Activations, sums and products by element, the flow's path, storage. */
import { decodeBfloat16, decodeFloat16, encodeBfloat16, encodeFloat16 } from '../../engine/files/half.ts';
import { randomStream } from '../../engine/random.ts';
import { make, type Numbers } from './numbers.ts';

export const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));

export const activations = {
  gelu: (x: number) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  swish: (x: number) => x * sigmoid(x),
  tanh: Math.tanh,
  sigmoid,
  relu: (x: number) => Math.max(x, 0),
};

/** fn(a, b) by element; b repeats where it is shorter. */
export const pairwise = (a: Numbers, b: Numbers, fn: (a: number, b: number) => number): Float64Array =>
  make(a.length, (i) => fn(a[i], b[i % b.length]));

export const add = (a: Numbers, b: Numbers): Float64Array => pairwise(a, b, (x, y) => x + y);

/** A point of the straight path from actions (time 0) to noise (time 1), and its velocity; a time for each sample. */
export function flowInterpolate(actions: Numbers, noise: Numbers, time: Numbers) {
  const at = (i: number) => time[Math.floor((i * time.length) / actions.length)];
  return {
    noisy: make(actions.length, (i) => at(i) * noise[i] + (1 - at(i)) * actions[i]),
    target: pairwise(noise, actions, (w, a) => w - a),
  };
}

/** The nearest numbers in another storage; what is larger than f16 holds becomes its largest number. */
export function cast(x: Numbers, dtype: 'f32' | 'f16' | 'bf16'): Float32Array {
  const numbers = Float32Array.from(x);
  if (dtype === 'f32') return numbers;
  if (dtype === 'bf16') return decodeBfloat16(encodeBfloat16(numbers));
  return decodeFloat16(encodeFloat16(numbers.map((value) => Math.min(Math.max(value, -65504), 65504))));
}

/** The uniform numbers of the counter-based generator, bit for bit. */
export function randomUniform(count: number, address: { seed: number; step: number; stream: number }): Float32Array {
  const random = randomStream(address.seed, address.step, address.stream);
  return Float32Array.from({ length: count }, (_, i) => random.uniform(i));
}
