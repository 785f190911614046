import type { Random } from '../../engine/random.ts';

/**
 * Every number below `size` once an epoch, in an order that the epoch's random numbers decide. The returned function gives the epoch
 * and the number of a place from 0; it keeps the order of one epoch.
 */
export function shuffledEpochs(
  size: number,
  randomOf: (epoch: number) => Random,
): (place: number) => { epoch: number; number: number } {
  let current = -1;
  let order: Uint32Array = new Uint32Array(0);
  return (place) => {
    const epoch = Math.floor(place / size);
    if (epoch !== current) [current, order] = [epoch, randomOf(epoch).permutation(size)];
    return { epoch, number: order[place - epoch * size] };
  };
}
