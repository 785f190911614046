import { type DataType, emptyTensor, loadKernel, type Parameters, record, type Tensor } from '../engine/index.ts';
import { expectDtype, storage } from './operand.ts';
import { streaming } from './streaming.ts';

const kernel = await loadKernel(new URL('./cast.wgsl', import.meta.url));
const THREADS = 64;
export type FloatType = Exclude<DataType, 'u32'>;

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
    parameters: { THREADS, ...reading(x.dtype), ...writing(dtype) },
    bindings: { x, y },
    uniform: fields,
    workgroups,
  });
  record('cast', [x], [y], ([dy]) => [dy]);
  return y;
}

function reading(dtype: DataType): Parameters {
  if (dtype === 'f32') return {};
  const unpack = String(storage(dtype).unpack).replace('Word', 'Source');
  return { Source: 'alias Source = vec2u;', unpack };
}

function writing(dtype: FloatType): Parameters {
  if (dtype === 'f32') return {};
  const nearest = dtype === 'f16' ? 'nearestFloat16' : 'nearestBfloat16';
  return {
    Target: 'alias Target = vec2u;',
    pack: `fn pack(value: vec4f) -> Target { return pairs(${nearest}(value)); }`,
  };
}
