import type { ActionTokenizer, ChunkShape } from './action-tokenizer.ts';
import { FastTokenizer } from './fast.ts';
import { StringActionTokenizer } from './string.ts';

/**
 * Decodes ids that end before the chunk does: [horizon, dimension]. The numbers that are missing are those of the tokenizer's own
 * repair (FAST: coefficients of zero; strings: the last value is held), or about zero.
 */
export function decodeBeginning(tokenizer: ActionTokenizer, ids: Int32Array, shape: ChunkShape): Float32Array {
  if (tokenizer instanceof FastTokenizer) return Float32Array.from(tokenizer.decodeRelaxed(ids, shape).data);
  if (tokenizer instanceof StringActionTokenizer) return Float32Array.from(tokenizer.decodeLenient(ids, shape).data);
  // One id stands for one number: the ids of zeros complete the chunk.
  const whole = tokenizer.encode({ ...shape, data: new Float32Array(shape.horizon * shape.dimension) });
  whole.set(ids.subarray(0, whole.length));
  return tokenizer.decode(whole, shape);
}
