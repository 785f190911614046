/** An operation as a task to measure: forward, backward, or both. */
import { backward, type Device, type Tensor, withoutTape } from '../../engine/index.ts';
import type { Task } from './measure.ts';

export const directions = ['forward', 'backward', 'both'] as const;
export type Direction = (typeof directions)[number];

/** The task of a direction; `forward` runs once before the timing, which also uploads what it needs. */
export function taskOf(
  device: Device,
  direction: Direction,
  forward: () => Tensor,
  gradient: Tensor,
  choose: () => void,
): Task {
  return {
    prepare() {
      choose();
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
