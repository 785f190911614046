import type { Device } from '../engine/index.ts';
import { attentionChoices, useAttentionVariants, type VariantChoice } from './attention-variants.ts';
import { type MatmulChoice, matmulChoices, useMatmulVariants } from './matmul-variants.ts';

/** Variants in place of the shipped ones, of all kernels that have any: a run gives the same bits with the same ones. */
export interface ChosenVariants {
  readonly attention: readonly VariantChoice[];
  readonly matmul: readonly MatmulChoice[];
}

export function chosenVariants(device: Device): ChosenVariants {
  return { attention: attentionChoices(device), matmul: matmulChoices(device) };
}

/** @throws Error naming the first choice that this device cannot run; nothing has changed then */
export function useVariants(device: Device, { attention, matmul }: ChosenVariants): void {
  const before = matmulChoices(device);
  useMatmulVariants(device, matmul);
  try {
    useAttentionVariants(device, attention);
  } catch (error) {
    useMatmulVariants(device, before);
    throw error;
  }
}
