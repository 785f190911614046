import type { Tensor } from '../engine/index.ts';
import { gelu, swish } from './activation.ts';
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
 * A frozen W gets no gradient, and so costs no product for one. x A^T is f32 whatever the storage of x. Throws when the shapes do not fit.
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
  const whole = linear(x, weight, bias, { ...options, ...(!activation && { residual }) });
  const dtype = options.dtype ?? (whole.dtype as LinearOptions['dtype']);
  const sum = linear(scaled, up, null, { residual: whole, dtype });
  const output = activation ? activated[activation](sum) : sum;
  const between = [thin, scaled, whole, ...(activation ? [sum] : [])];
  // Without a tape nothing reads them again.
  if (!sum.recorded) for (const { buffer } of between) x.device.currentStep('lowRank').release(buffer);
  return activation && residual ? add(output, residual) : output;
}
