/** Chunks to begin with, and chunks to which FAST is fitted: all made of formulas and a fixed seed, so that a link gives the same ids. */
import { randomStream } from '../../../engine/index.ts';
import type { ActionChunk } from '../../../tokenizers/index.ts';

export const shape = { horizon: 16, dimension: 3 } as const;
const { horizon, dimension } = shape;

type Curve = (time: number, dimension: number) => number;

/** From 0 to 1 with the least jerk: how arms move from rest to rest. */
const reach = (time: number) => {
  const t = Math.min(1, Math.max(0, time));
  return t ** 3 * (10 + t * (6 * t - 15));
};

const noise = randomStream(1, 0, 0);

export const presets: Readonly<Record<'reach' | 'step' | 'sine' | 'noise', Curve>> = {
  reach: (time, d) => [1.4 * reach(time) - 0.7, 0.5 - 0.9 * reach(1.3 * time), time < 0.75 ? -1 : 1][d],
  step: (time, d) => (time < (d + 1) / 4 ? -0.5 : 0.5),
  sine: (time, d) => 0.8 * Math.sin(2 * Math.PI * (d + 1) * time),
  noise: (time, d) => 2 * noise.uniform(Math.round(time * (horizon - 1)) * dimension + d) - 1,
};

/** The values of a curve over the chunk, [horizon, dimension], as the page's address holds them: with two decimals. */
export function valuesOf(curve: Curve): number[] {
  return Array.from({ length: horizon * dimension }, (_, i) =>
    rounded(curve(Math.floor(i / dimension) / (horizon - 1), i % dimension)),
  );
}

export const rounded = (value: number) => Math.round(100 * Math.min(1, Math.max(-1, value))) / 100 + 0;

export function chunkOf(values: readonly number[]): ActionChunk {
  return { ...shape, data: Float32Array.from(values) };
}

/** Like demonstrations: two dimensions reach with a slight tremble, and the last, a gripper, opens or closes once in half of them. */
export function smoothChunks(count: number): ActionChunk[] {
  return Array.from({ length: count }, (_, index) => {
    const stream = randomStream(2, index, 0);
    let drawn = 0;
    const between = (low: number, high: number) => low + (high - low) * stream.uniform(drawn++);
    const curves = Array.from({ length: dimension - 1 }, () => {
      const [from, to, begin, speed] = [between(-1, 1), between(-1, 1), between(-0.5, 0.5), between(0.7, 2)];
      const [height, rate, phase] = [between(0, 0.06), between(1, 4), between(0, 2 * Math.PI)];
      return (time: number) =>
        from + (to - from) * reach(speed * (time - begin)) + height * Math.sin(2 * Math.PI * rate * time + phase);
    });
    const [hand, moment] = [between(0, 1) < 0.5 ? -1 : 1, between(0, 2)];
    return chunkOf(valuesOf((time, d) => curves[d]?.(time) ?? (time < moment ? hand : -hand)));
  });
}
