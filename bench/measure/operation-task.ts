/** An operation as a task to measure (forward, backward or both), and the numbers that it runs on. */
import { backward, type Device, type Tensor, withoutTape } from '../../engine/index.ts';
import type { Task } from './work.ts';

export const directions = ['forward', 'backward', 'both'] as const;
export type Direction = (typeof directions)[number];

/** The task of a direction. `choose` selects the variants; `forward` runs once before backward is timed and uploads its data. */
export function taskOf(
  device: Device,
  direction: Direction,
  forward: () => Tensor,
  gradient: Tensor,
  choose?: () => void,
): Task {
  return {
    prepare() {
      choose?.();
      if (direction === 'forward') {
        const silent = () => void withoutTape(device, forward);
        silent();
        return silent;
      }
      const output = forward();
      const back = (from: Tensor) => backward(from, { gradient });
      return direction === 'backward' ? () => back(output) : () => back(forward());
    },
  };
}

/** The length of the pattern that `waves` repeats. */
const PATTERN = 2 ** 16;

/** The same numbers at every call, of about unit variance, divided by the square root of `lastAxis` (at most 64). */
export function waves(count: number, seed = 0, lastAxis = 1): Float32Array {
  const scale = Math.SQRT2 / Math.sqrt(Math.min(lastAxis, 64));
  const pattern = Float32Array.from(
    { length: Math.min(count, PATTERN) },
    (_, i) => scale * Math.sin((i + 1) * (0.37 + seed) * 1.618),
  );
  const numbers = new Float32Array(count);
  for (let at = 0; at < count; at += PATTERN) numbers.set(pattern.subarray(0, Math.min(PATTERN, count - at)), at);
  return numbers;
}
