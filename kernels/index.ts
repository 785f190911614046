export { gelu, relu, sigmoid, swish, tanh } from './activation.ts';
export * from './adamw.ts';
export type { Moment, MomentStorage } from './adamw-moments.ts';
export * from './adaptive-rms-norm.ts';
export * from './attention.ts';
export * from './attention-cost.ts';
export * from './attention-expression.ts';
export * from './attention-masks.ts';
export * from './attention-plan.ts';
export * from './attention-table.ts';
export * from './attention-tiles.ts';
export {
  type AttentionEntry,
  type AttentionSizes,
  attentionEntries,
  attentionVariant,
  attentionVariants,
  useAttentionVariants,
  type VariantChoice,
  type VariantKey,
} from './attention-variants.ts';
export * from './block-linear.ts';
export * from './cast.ts';
export * from './chosen-variants.ts';
export * from './elementwise.ts';
export * from './embedding.ts';
export type { Activation } from './epilogue.ts';
export * from './flow.ts';
export * from './gated-mlp.ts';
export * from './gradient-norms.ts';
export * from './layer-norm.ts';
export * from './linear.ts';
export * from './linear-cross-entropy.ts';
export * from './losses.ts';
export * from './matmul.ts';
export {
  type MatmulChoice,
  type MatmulKey,
  type MatmulSize,
  matmulSizes,
  matmulVariant,
  matmulVariants,
  useMatmulVariants,
} from './matmul-variants.ts';
export * from './pad.ts';
export * from './patch-embedding.ts';
export * from './random.ts';
export * from './reduce.ts';
export * from './reshape.ts';
export * from './rms-norm.ts';
export * from './rotary.ts';
export * from './softmax.ts';
export * from './token-cache.ts';
export * from './tokens.ts';
