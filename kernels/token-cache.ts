import { elementCount, loadKernel, type Tensor } from '../engine/index.ts';
import { expectDtype, expectShape, sharedDevice } from './operand.ts';
import { forEachItem } from './streaming.ts';

const kernel = await loadKernel(new URL('./token-cache.wgsl', import.meta.url));

/**
 * cache[:, start : start + tokens] = rows, in place and without a tape: for keys and values at inference.
 *
 * rows [B, tokens, ...], cache [B, capacity, ...] with the same trailing axes and dtype (f32, f16 or bf16), a multiple of four elements to a token.
 */
export function writeTokens(cache: Tensor, rows: Tensor, start: number): void {
  const [batch, tokens, ...trailing] = rows.shape;
  expectShape('writeTokens', 'cache', cache, [batch, null, ...trailing]);
  expectDtype('writeTokens', 'cache', cache, 'f32', 'f16', 'bf16');
  expectDtype('writeTokens', 'rows', rows, cache.dtype);
  const capacity = cache.shape[1];
  if (start < 0 || start + tokens > capacity)
    throw new Error(`writeTokens: rows ${start} to ${start + tokens} of a cache of ${capacity}`);
  const width = elementCount(trailing);
  if (width % 4 !== 0) throw new Error(`writeTokens: ${width} elements to a token; expected a multiple of four`);
  const items = rows.size / 4;
  forEachItem(sharedDevice('writeTokens', cache, rows), kernel, 'write', items, {
    parameters: cache.dtype === 'f32' ? {} : { Word: cache.dtype },
    bindings: { rows, cache },
    uniform: { items, groups: width / 4, tokens, capacity, start },
    bytes: 2 * rows.byteLength,
  });
}
