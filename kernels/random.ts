import {
  type Device,
  elementCount,
  emptyTensor,
  gridFor,
  loadKernel,
  type Shape,
  type Tensor,
} from '../engine/index.ts';

const kernel = await loadKernel(new URL('./random.wgsl', import.meta.url));
const THREADS = 64;
/** Integer operations of four numbers, about 35 a round. */
const OPERATIONS = 350;

/** Which numbers of the counter-based generator: see randomStream of the engine. */
export interface RandomAddress {
  /** A whole number from 0 to 2^53 - 1. */
  seed: number;
  /** A whole number from 0 to 2^32 - 1. */
  step: number;
  /** One of the engine's `streams`. */
  stream: number;
}

/** Uniform numbers in [0, 1), f32: element i is the host's `randomStream(seed, step, stream).uniform(i)`, to the last bit. */
export function randomUniform(device: Device, shape: Shape, { seed, step, stream }: RandomAddress): Tensor {
  if (!Number.isSafeInteger(seed) || seed < 0)
    throw new RangeError(`randomUniform: seed ${seed}; expected a whole number from 0 to 2^53 - 1`);
  const groups = Math.ceil(elementCount(shape) / 4);
  const u = emptyTensor(device, shape, 'f32', 'randomUniform');
  device.dispatch({
    kernel,
    entry: 'draw',
    parameters: { THREADS },
    bindings: { u },
    uniform: { groups, seedLow: seed % 2 ** 32, seedHigh: Math.floor(seed / 2 ** 32), step, stream },
    workgroups: gridFor(groups, THREADS),
    flops: OPERATIONS * groups,
  });
  return u;
}
