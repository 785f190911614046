import { emptyTensor, loadKernel, type Shape, type Tensor, tensor } from '../engine/index.ts';
import { expectDtype, expectLike } from './operand.ts';
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
  const u = emptyTensor(address.device, shape, 'f32', 'randomUniform');
  draw(u, address, { first: 0, centre: 0, unit: 2 ** -24 });
  return u;
}

/** The elements that a counter of groups of four in one word reaches. */
const MOST_ELEMENTS = 2 ** 34;

/**
 * Overwrites a tensor with uniform numbers in [-bound, bound), whose standard deviation is bound / sqrt(3): element i is
 * (floor(word i / 2^8) - 2^23) * f32(bound / 2^23), rounded to f32 and then to the tensor's f32, f16 or bf16, with word i that of the
 * host's `randomStream(seed, step, stream)`. In f16 and bf16, numbers beside a bound may be rounded to it, or just beyond it. Inside a step, without a tape, and not beyond the tensor: what follows its last group of four stays.
 *
 * The tensor is given in its `pieces`, one after another, which get the numbers that it would get whole: 2^34 elements at most, and in
 * all pieces but the last a multiple of four.
 */
export function fillUniform(pieces: readonly Tensor[], address: Address, bound: number): void {
  const [{ device }] = pieces;
  const place = tensor(device, randomAddress(address), [4], { dtype: 'u32' });
  const unit = Math.fround(bound / 2 ** 23);
  let first = 0;
  for (const piece of pieces) {
    expectDtype('fillUniform', 'piece', piece, 'f32', 'f16', 'bf16');
    if (first % 4 !== 0 || first + piece.size > MOST_ELEMENTS)
      throw new RangeError(
        `fillUniform: '${piece.name}' begins at element ${first} and has ${piece.size}; a piece begins at a multiple of 4 and ends before ${MOST_ELEMENTS}`,
      );
    draw(piece, place, { first: first / 4, centre: 2 ** 23, unit });
    first += piece.size;
  }
}

function draw(u: Tensor, address: Tensor, numbers: Readonly<Record<'first' | 'centre' | 'unit', number>>): void {
  const groups = Math.ceil(u.size / 4);
  forEachItem(u.device, kernel, 'draw', groups, {
    ...(u.dtype !== 'f32' && { parameters: { Target: u.dtype, pack: u.dtype } }),
    bindings: { address, u },
    uniform: { size: u.size, ...numbers },
    flops: OPERATIONS * groups,
  });
}
