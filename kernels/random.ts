import { elementCount, emptyTensor, loadKernel, type Shape, type Tensor } from '../engine/index.ts';
import { expectLike } from './operand.ts';
import { forEachItem } from './streaming.ts';

const kernel = await loadKernel(new URL('./random.wgsl', import.meta.url));
/** Integer operations of four numbers, about 48 a round. */
const OPERATIONS = 480;

type Address = Readonly<Record<'seed' | 'step' | 'stream', number>>;

/**
 * The numbers [4], u32, by which `randomUniform` is told which of the engine's `randomStream(seed, step, stream)` to draw: data, so
 * that a captured step draws others at every run.
 */
export function randomAddress({ seed, step, stream }: Address): Uint32Array<ArrayBuffer> {
  if (!Number.isSafeInteger(seed) || seed < 0)
    throw new RangeError(`randomAddress: seed ${seed}; expected a whole number from 0 to 2^53 - 1`);
  if (!Number.isInteger(step) || step < 0 || step >= 2 ** 32)
    throw new RangeError(`randomAddress: step ${step}; expected a whole number from 0 to 2^32 - 1`);
  return Uint32Array.of(seed % 2 ** 32, Math.floor(seed / 2 ** 32), step, stream);
}

/**
 * Uniform numbers in [0, 1), f32: element i is the host's `randomStream(seed, step, stream).uniform(i)`, to the last bit.
 *
 * address [4] u32, from `randomAddress`.
 */
export function randomUniform(shape: Shape, address: Tensor): Tensor {
  expectLike('randomUniform', 'address', address, 'u32', [4]);
  const { device } = address;
  const groups = Math.ceil(elementCount(shape) / 4);
  const u = emptyTensor(device, shape, 'f32', 'randomUniform');
  const work = { bindings: { address, u }, uniform: { groups }, flops: OPERATIONS * groups };
  forEachItem(device, kernel, 'draw', groups, work);
  return u;
}
