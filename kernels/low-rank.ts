import type { Tensor } from '../engine/index.ts';
import { gelu, swish } from './activation.ts';
import { cast, type FloatType } from './cast.ts';
import { add, scale } from './elementwise.ts';
import type { Activation } from './epilogue.ts';
import { type LinearOptions, linear } from './linear.ts';

/** The two thin matrices beside a matrix [out, in]. */
export interface LowRank {
  /** A [rank, in] */
  readonly down: Tensor;
  /** B [out, rank] */
  readonly up: Tensor;
  /** A factor on their product; default 1. */
  readonly scale?: number;
}

const activated: Readonly<Record<Activation, (x: Tensor) => Tensor>> = { gelu, swish };

/**
 * A linear map whose matrix is W + scale B A (LoRA: Hu et al. 2021, arXiv 2106.09685), without that matrix:
 *
 *   output = residual + activation(x W^T + bias + scale (x A^T) B^T)
 *
 * x [..., in], weight W [out, in], bias [out] as in `linear`, which it is made of -> [..., out]. Backward, d = dOutput times the
 * activation's derivative gives
 *
 *   dA = scale (d B)^T x     dB = scale d^T (x A^T)     dx = d W + scale (d B) A
 *
 * A frozen W gets no gradient, and so costs no product for one. All terms before the activation, or all if there is none, are added in
 * f32 and rounded once to the storage of the result: rounded by itself, a product of thin matrices that is small beside the others would
 * be lost. Throws when the shapes do not fit.
 */
export function lowRank(
  x: Tensor,
  weight: Tensor,
  { down, up, scale: factor = 1 }: LowRank,
  bias?: Tensor | null,
  { activation, residual, ...options }: LinearOptions = {},
): Tensor {
  const thin = linear(x, down, null, { dtype: 'f32' });
  const scaled = factor === 1 ? thin : scale(thin, factor);
  const dtype = options.dtype ?? (x.dtype as FloatType);
  const first = residual && !activation ? cast(residual, 'f32') : null;
  const product = linear(scaled, up, null, { ...(first && { residual: first }), dtype: 'f32' });
  const whole = linear(x, weight, bias, { residual: product, dtype: 'f32' });
  // Backward of an activation reads its argument, which takes half of the memory in half the precision.
  const sum = cast(whole, dtype);
  const active = activation ? activated[activation](sum) : sum;
  const output = activation && residual ? add(active, residual) : active;
  // Without a tape nothing reads them again.
  if (!sum.recorded) {
    const between = new Set([thin, scaled, product, whole, sum, active, ...(first ? [first] : [])]);
    for (const own of between)
      if (own !== output && own !== residual) x.device.currentStep('lowRank').release(own.buffer);
  }
  return output;
}
