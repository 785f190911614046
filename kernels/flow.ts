import { emptyTensor, loadKernel, type Random, type Tensor } from '../engine/index.ts';
import { scale } from './elementwise.ts';
import { expectDtype, expectLike, expectShape, recordOne, sharedDevice } from './operand.ts';
import { forEachItem } from './streaming.ts';

const kernel = await loadKernel(new URL('./flow.wgsl', import.meta.url));

/**
 * A point on the straight path from actions (t = 0) to noise (t = 1), and the path's velocity.
 *
 * actions, noise [B, ...], time [B] -> noisy = t noise + (1 - t) actions and target = noise - actions, both of the shape of
 * actions, f32. All operands are data: one that wants a gradient is refused.
 */
export function flowInterpolate(actions: Tensor, noise: Tensor, time: Tensor): { noisy: Tensor; target: Tensor } {
  const op = 'flowInterpolate';
  for (const [argument, operand] of Object.entries({ actions, noise, time })) {
    expectDtype(op, argument, operand, 'f32');
    if (operand.wantsGradient)
      throw new Error(`${op}: ${argument} wants a gradient, which does not pass here; give data`);
  }
  if (actions.shape.length === 0) throw new Error(`${op}: actions is a scalar; expected [batch, ...]`);
  expectShape(op, 'noise', noise, actions.shape);
  expectShape(op, 'time', time, [actions.shape[0]]);
  const device = sharedDevice(op, actions, noise, time);
  const noisy = emptyTensor(device, actions.shape, 'f32', op);
  const target = emptyTensor(device, actions.shape, 'f32', op);
  const elements = actions.size;
  forEachItem(device, kernel, 'interpolate', elements, {
    bindings: { actions, noise, time, noisy, target_: target },
    uniform: { elements, perSample: elements / actions.shape[0], dt: 0 },
    flops: 5 * elements,
  });
  return { noisy, target };
}

/**
 * One step of Euler's method: x + dt * velocity. From noise to actions in n steps dt is -1 / n, at the times 1 - i / n.
 *
 * x, velocity of one shape, f32; gradients reach both.
 */
export function eulerStep(x: Tensor, velocity: Tensor, dt: number): Tensor {
  const op = 'eulerStep';
  expectDtype(op, 'x', x, 'f32');
  expectLike(op, 'velocity', velocity, 'f32', x.shape);
  const device = sharedDevice(op, x, velocity);
  const next = emptyTensor(device, x.shape, 'f32', op);
  forEachItem(device, kernel, 'euler', x.size, {
    bindings: { x, velocity, next },
    uniform: { elements: x.size, perSample: x.size, dt },
    flops: 2 * x.size,
  });
  recordOne(op, [x, velocity], next, (dNext, [, wantsVelocity]) => [dNext, wantsVelocity ? scale(dNext, dt) : null]);
  return next;
}

/**
 * phi(t): for each time the sines of 2 pi t / period, then the cosines, over width / 2 periods in geometric progression.
 *
 * [n, width] in f32; angles are float64, because the shortest default period turns 250 times until t = 1 (openpi,
 * create_sinusoidal_pos_embedding). `width` is even and at least 4.
 */
export function timeEmbedding(
  times: ArrayLike<number>,
  width: number,
  { minimumPeriod = 4e-3, maximumPeriod = 4 }: { minimumPeriod?: number; maximumPeriod?: number } = {},
): Float32Array<ArrayBuffer> {
  if (!Number.isInteger(width) || width < 4 || width % 2 !== 0)
    throw new RangeError(`timeEmbedding: width ${width}; expected an even number from 4`);
  const half = width / 2;
  const embedding = new Float32Array(times.length * width);
  for (let i = 0; i < half; i++) {
    const period = minimumPeriod * (maximumPeriod / minimumPeriod) ** (i / (half - 1));
    for (let n = 0; n < times.length; n++) {
      const angle = 2 * Math.PI * (times[n] / period);
      embedding[n * width + i] = Math.sin(angle);
      embedding[n * width + half + i] = Math.cos(angle);
    }
  }
  return embedding;
}

/**
 * Training times t = 0.001 + 0.999 U^(2/3), that is 0.001 + 0.999 Beta(1.5, 1), more of them near the noise (openpi).
 *
 * Numbers `start` ... `start + n - 1` of the stream; rounded to f32, so that the host's phi(t) and the device's path agree on t.
 */
export function sampleTimes(random: Random, n: number, start = 0): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: n }, (_, i) => 0.001 + 0.999 * random.uniform(start + i) ** (2 / 3));
}
