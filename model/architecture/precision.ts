/**
 * The number format of a model's weights, and of the activations of its transformers: with bf16 weights, the rows that enter a tower or an
 * expert are rounded to bf16, and what it makes of them is bf16 up to its last norm. Heads, losses and gradients are f32.
 */
import { elementCount } from '../../engine/index.ts';
import type { ModelParameter } from './layers.ts';

export const precisions = ['f32', 'bf16'] as const;
export type Precision = (typeof precisions)[number];

/**
 * The parameters with their storage. In bf16 matrices are bf16: those of products, patches and embeddings. Vectors (norms, biases, gates)
 * stay f32, and so do adapters, and matrices whose rows are not whole groups of four, which products would widen to f32.
 */
export function withPrecision(parameters: readonly ModelParameter[], precision: Precision): ModelParameter[] {
  if (precision === 'f32') return [...parameters];
  return parameters.map((parameter) => {
    const { shape, adapter } = parameter;
    const isMatrix = !adapter && shape.length > 1 && (elementCount(shape) / shape[0]) % 4 === 0;
    return isMatrix ? { ...parameter, dtype: precision } : parameter;
  });
}
