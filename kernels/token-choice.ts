import { emptyTensor, gridFor, loadKernel, type Tensor } from '../engine/index.ts';
import { expectDtype, expectShape, sharedDevice } from './operand.ts';

const kernel = await loadKernel(new URL('./token-choice.wgsl', import.meta.url));

/** In place of an id, where no id is allowed or no allowed one has a logit that is a number. */
export const NO_TOKEN = 0xffffffff;

/** Ids that may be chosen: these, or all of the vocabulary; null for none. */
export type AllowedIds = Iterable<number> | 'all' | null;

/** The bits of `chooseTokens`, [rows, ceil(vocabulary / 32)], of the ids that each row allows. Throws for an id beyond the vocabulary. */
export function allowedBits(rows: readonly AllowedIds[], vocabulary: number): Uint32Array<ArrayBuffer> {
  const words = Math.ceil(vocabulary / 32);
  const bits = new Uint32Array(rows.length * words);
  rows.forEach((ids, row) => {
    // Often many rows allow the same list, of all text.
    const alike = rows.indexOf(ids);
    if (alike < row) bits.copyWithin(row * words, alike * words, (alike + 1) * words);
    else if (ids === 'all') bits.fill(NO_TOKEN, row * words, (row + 1) * words);
    else
      for (const id of ids ?? []) {
        if (!(id >= 0 && id < vocabulary)) throw new Error(`allowedBits: id ${id}; the vocabulary has ${vocabulary}`);
        bits[row * words + (id >>> 5)] |= 1 << (id & 31);
      }
  });
  return bits;
}

/**
 * The likeliest of the ids that each row allows, of several the lowest; with `draws`, uniform numbers [rows] in [0, 1), an id drawn
 * by the softmax of logits / temperature over the allowed ones. Without a tape.
 *
 * logits [rows, vocabulary] f32, allowed the tensor of `allowedBits` -> [rows] u32, NO_TOKEN where none can be chosen.
 */
export function chooseTokens(
  logits: Tensor,
  allowed: Tensor,
  sampling?: { readonly draws: Tensor; readonly temperature: number },
): Tensor {
  const op = 'chooseTokens';
  expectShape(op, 'logits', logits, [null, null]);
  const [rows, width] = logits.shape;
  const words = Math.ceil(width / 32);
  expectDtype(op, 'logits', logits, 'f32');
  expectShape(op, 'allowed', allowed, [rows, words]);
  expectDtype(op, 'allowed', allowed, 'u32');
  if (sampling) {
    expectShape(op, 'draws', sampling.draws, [rows]);
    if (!(sampling.temperature > 0)) throw new Error(`${op}: temperature ${sampling.temperature}; expected above 0`);
  }
  const device = sharedDevice(op, logits, allowed, ...(sampling ? [sampling.draws] : []));
  const choice = emptyTensor(device, [rows], 'u32', op);
  device.dispatch({
    kernel,
    entry: sampling ? 'draw' : 'likeliest',
    // A barrier costs a software adapter as much as 200 multiplications for each of the workgroup's subgroups.
    parameters: { THREADS: device.software ? 8 : 256 },
    bindings: { logits, allowed, choice, ...(sampling && { u: sampling.draws }) },
    uniform: { rows, width, words, inverseTemperature: 1 / (sampling?.temperature ?? 1) },
    workgroups: gridFor(rows, 1),
    flops: sampling ? 5 * logits.size : 0, // comparisons are no arithmetic
  });
  return choice;
}
