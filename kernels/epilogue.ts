/** The work of a product on each of its sums before it stores the output: alternatives of the functions in matmul.wgsl. */
import type { Parameters, Tensor } from '../engine/index.ts';
import { activationFlops } from './activation.ts';

/** The activations in activation.ts that products know. */
export type Activation = 'gelu' | 'swish';

export interface Epilogue {
  /** The alternatives of withBias, activated, activationSlope, withResidual, keep and epilogue. */
  readonly parameters: Parameters;
  /** The tensors that it reads and writes, by the names in matmul.wgsl: in the places of the output, but for the bias. */
  readonly bindings: Readonly<Record<string, Tensor>>;
  /** Arithmetic operations for an output. */
  readonly flops: number;
}

interface EpilogueOptions {
  /** Added to every row, [columns] f32. */
  readonly bias?: Tensor | null;
  readonly activation?: Activation | null;
  /** Takes the argument of the activation, for backward. */
  readonly preActivation?: Tensor | null;
  /** Added last; stored like the output. */
  readonly residual?: Tensor | null;
}

/** residual + activation(sum + bias); null where none of them is there. */
export function epilogueOf({ bias, activation, preActivation, residual }: EpilogueOptions): Epilogue | null {
  if (!bias && !activation && !residual) return null;
  return {
    parameters: {
      ...(bias && { withBias: 'bias' }),
      ...(activation && { activated: activation }),
      ...(preActivation && { keep: 'preActivation' }),
      ...(residual && { withResidual: 'residual' }),
    },
    bindings: { ...(bias && { bias }), ...(preActivation && { preActivation }), ...(residual && { residual }) },
    flops: (bias ? 1 : 0) + (activation ? activationFlops[activation][0] : 0) + (residual ? 1 : 0),
  };
}

/** Backward of an activation, for sums that are the gradient of its value. */
export function throughActivation(activation: Activation, forwardPreActivation: Tensor): Epilogue {
  return {
    parameters: { epilogue: 'activationBackward', activationSlope: activation },
    bindings: { forwardPreActivation },
    flops: activationFlops[activation][1],
  };
}

/** The output holds a part of the sums already; f32. */
export const accumulating: Epilogue = { parameters: { withResidual: 'accumulated' }, bindings: {}, flops: 1 };
