import { emptyTensor, type FloatType, loadKernel, type Tensor } from '../engine/index.ts';
import { expectDtype, recordOne } from './operand.ts';
import { streaming } from './streaming.ts';

const kernel = await loadKernel(new URL('./cast.wgsl', import.meta.url));
const THREADS = 64;

export type { FloatType };

/**
 * x [...] in another storage, rounded to nearest with ties to even; beyond 65504 f16 is clamped. The same tensor where x has that
 * storage already. The gradient passes unrounded, as f32.
 */
export function cast(x: Tensor, dtype: FloatType): Tensor {
  expectDtype('cast', 'x', x, 'f32', 'f16', 'bf16');
  if (x.dtype === dtype) return x;
  const y = emptyTensor(x.device, x.shape, dtype, 'cast');
  const { fields, workgroups } = streaming(x.device, Math.ceil(x.size / 4), THREADS);
  x.device.dispatch({
    kernel,
    entry: 'forward',
    parameters: {
      THREADS,
      ...(x.dtype !== 'f32' && { Source: x.dtype, unpack: x.dtype }),
      ...(dtype !== 'f32' && { Target: dtype, pack: dtype }),
    },
    bindings: { x, y },
    uniform: fields,
    workgroups,
  });
  recordOne('cast', [x], y, (dy) => [dy]);
  return y;
}
