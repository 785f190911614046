/** The work of a product on each of its sums before it stores the output: the function `finish` of matmul.wgsl. */
import type { Tensor } from '../engine/index.ts';

/** The activations in activation.ts that products know. */
export type Activation = 'gelu' | 'swish';

/** Arithmetic operations of an activation and of its slope. */
export const activationFlops: Readonly<Record<Activation, readonly [value: number, slope: number]>> = {
  gelu: [17, 34],
  swish: [4, 10],
};

export interface Epilogue {
  /** The body of `finish`, in WGSL. */
  readonly finish: string;
  /** The tensors that it reads and writes, by the names in matmul.wgsl: in the places of the output, but for the bias. */
  readonly bindings: Readonly<Record<string, Tensor>>;
  /** Arithmetic operations for an output. */
  readonly flops: number;
}

interface Ending {
  /** Added to every row, [columns]; stored like b. */
  readonly bias?: Tensor | null;
  readonly activation?: Activation | null;
  /** Takes the argument of the activation, for backward. */
  readonly keepInner?: Tensor | null;
  /** Added last; stored like the output. */
  readonly residual?: Tensor | null;
}

/** residual + activation(sum + bias); null where none of them is there. */
export function endingWith({ bias, activation, keepInner, residual }: Ending): Epilogue | null {
  if (!bias && !activation && !residual) return null;
  const inner = bias ? 'unpackB(bias[group]) + sum' : 'sum';
  const keep = keepInner ? 'keepInner[at] = packKept(z); ' : '';
  const value = activation ? `${activation}(z)` : 'z';
  return {
    finish: `let z = ${inner}; ${keep}return ${residual ? 'unpack(residual[at]) + ' : ''}${value};`,
    bindings: { ...(bias && { bias }), ...(keepInner && { keepInner }), ...(residual && { residual }) },
    flops: (bias ? 1 : 0) + (activation ? activationFlops[activation][0] : 0) + (residual ? 1 : 0),
  };
}

/** Backward of an activation, for sums that are the gradient of its value. */
export function throughActivation(activation: Activation, inner: Tensor): Epilogue {
  return {
    finish: `return sum * ${activation}Slope(unpackKept(inner[at]));`,
    bindings: { inner },
    flops: activationFlops[activation][1] + 1,
  };
}

/** The output holds a part of the sums already; f32. */
export const accumulating: Epilogue = { finish: 'return output[at] + sum;', bindings: {}, flops: 1 };
