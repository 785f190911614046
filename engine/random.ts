import { InputError } from './files/errors.ts';

/**
 * Counter-based random numbers: Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as
 * 1, 2, 3" (SC 2011). A number is a pure function of (seed, step, stream, index), so any of them can be had alone, in
 * any order, on the host or on a device, with the same bits.
 *
 * Layout, which a kernel that draws the same numbers must follow:
 *   key     = (seed mod 2^32, floor(seed / 2^32))
 *   counter = (block mod 2^32, floor(block / 2^32), step, stream), block = floor(index / 4)
 *   word `index` is output number `index mod 4` of that block.
 */

/** Independent sequences of one seed. The numbers are part of what a checkpoint relies on: add, never renumber. */
export const streams = {
  initialisation: 0,
  noise: 1,
  time: 2,
  shuffle: 3,
  paraphrase: 4,
  split: 5,
  rounding: 6,
  sampling: 7,
  world: 8,
  augmentation: 9,
  places: 10,
  delay: 11,
  tokens: 12,
  parameterRounding: 13,
} as const;

const MULTIPLIER_0 = 0xd2511f53;
const MULTIPLIER_1 = 0xcd9e8d57;
const WEYL_0 = 0x9e3779b9;
const WEYL_1 = 0xbb67ae85;
const ROUNDS = 10;
const TWO_32 = 4294967296;

/** Upper 32 bits of the 64-bit product of two unsigned 32-bit integers. */
function multiplyHigh(a: number, b: number): number {
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  const carry = aLow * bHigh + (middle & 0xffff);
  return aHigh * bHigh + (middle >>> 16) + (carry >>> 16);
}

function philoxInto(out: Uint32Array, key: readonly number[], counter: readonly number[]): void {
  let [k0, k1] = key;
  let [c0, c1, c2, c3] = counter;
  for (let round = 0; round < ROUNDS; round++) {
    const high0 = multiplyHigh(MULTIPLIER_0, c0);
    const low0 = Math.imul(MULTIPLIER_0, c0);
    const high1 = multiplyHigh(MULTIPLIER_1, c2);
    const low1 = Math.imul(MULTIPLIER_1, c2);
    c0 = high1 ^ c1 ^ k0;
    c1 = low1;
    c2 = high0 ^ c3 ^ k1;
    c3 = low0;
    k0 = (k0 + WEYL_0) | 0;
    k1 = (k1 + WEYL_1) | 0;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

/** One block of Philox4x32-10: four unsigned 32-bit integers for a key and a counter of unsigned 32-bit integers. */
export function philox(
  key: readonly [number, number],
  counter: readonly [number, number, number, number],
): [number, number, number, number] {
  const out = new Uint32Array(4);
  philoxInto(out, key, counter);
  return [out[0], out[1], out[2], out[3]];
}

/** The numbers of one (seed, step, stream), each had by its index (a whole number from 0). */
export class Random {
  readonly #key: readonly [number, number];
  readonly #counter: [number, number, number, number];
  readonly #block = new Uint32Array(4);
  #blockIndex = -1;

  constructor(seed: number, step: number, stream: number) {
    if (!Number.isSafeInteger(seed) || seed < 0)
      throw new InputError(`seed ${seed}: a seed is a whole number from 0 to 2^53 - 1`);
    for (const [what, value] of Object.entries({ step, stream }))
      if (!Number.isInteger(value) || value < 0 || value >= TWO_32)
        throw new RangeError(`random ${what} ${value} is not a whole number from 0 to 2^32 - 1`);
    this.#key = [seed >>> 0, Math.floor(seed / TWO_32)];
    this.#counter = [0, 0, step, stream];
  }

  uint32(index: number): number {
    const block = Math.floor(index / 4);
    if (block !== this.#blockIndex) {
      this.#counter[0] = block >>> 0;
      this.#counter[1] = Math.floor(block / TWO_32);
      philoxInto(this.#block, this.#key, this.#counter);
      this.#blockIndex = block;
    }
    return this.#block[index - 4 * block];
  }

  /** Uniform in [0, 1): the upper 24 bits of word `index`, so that a float32 holds it exactly. */
  uniform(index: number): number {
    return (this.uint32(index) >>> 8) / 16777216;
  }

  /**
   * Standard normal, by Box and Muller (1958) in float64: words 2p and 2p + 1 give numbers 2p (cosine) and 2p + 1
   * (sine). Host only: logarithm and cosine have no fixed bits in WGSL.
   */
  normal(index: number): number {
    const first = index - (index % 2);
    const radius = Math.sqrt(-2 * Math.log((this.uint32(first) + 0.5) / TWO_32));
    const angle = 2 * Math.PI * (this.uint32(first + 1) / TWO_32);
    return radius * (index === first ? Math.cos(angle) : Math.sin(angle));
  }

  /**
   * A whole number from 0 to below - 1, by multiply-high of word `index`; `below` at most 2^32. No value is more
   * likely than another by more than one part in 2^32 / below.
   */
  integer(index: number, below: number): number {
    if (!Number.isInteger(below) || below < 1 || below > TWO_32)
      throw new RangeError(`random integer below ${below}: the bound is a whole number from 1 to 2^32`);
    return below === TWO_32 ? this.uint32(index) : multiplyHigh(this.uint32(index), below);
  }

  /** Fills `out` with standard normals of the indices `start`, `start` + 1, ... and returns it. */
  fillNormal(out: Float32Array, start = 0): Float32Array {
    for (let i = 0; i < out.length; i++) out[i] = this.normal(start + i);
    return out;
  }

  /** A permutation of 0 ... n - 1 (Fisher and Yates, from the end; uses words 0 ... n - 1). */
  permutation(n: number): Uint32Array {
    const order = new Uint32Array(n);
    for (let i = 0; i < n; i++) order[i] = i;
    for (let i = n - 1; i > 0; i--) {
      const j = this.integer(i, i + 1);
      const moved = order[i];
      order[i] = order[j];
      order[j] = moved;
    }
    return order;
  }
}

/** The numbers of (seed, step, stream): `randomStream(seed, step, streams.noise).fillNormal(noise)`. */
export function randomStream(seed: number, step: number, stream: number): Random {
  return new Random(seed, step, stream);
}
