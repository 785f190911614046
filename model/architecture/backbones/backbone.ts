/** The families of language models that a mixture can be built of. */

export interface Backbone {
  readonly name: string;
  /** The gain of RMSNorm: 1 + weight, or the weight itself. */
  readonly norm: { readonly gain: 'onePlus' | 'plain'; readonly epsilon: number };
  /** The activation of the gated MLP. */
  readonly activation: 'gelu' | 'swish';
  /** Rotary position embedding: its base, and the elements that are rotated together: i and i + D / 2, or 2i and 2i + 1. */
  readonly rotary: { readonly base: number; readonly layout: 'halves' | 'pairs' };
  /** Factor on token embeddings of this width. */
  embeddingScale(width: number): number;
  /** Logits are products with the token embeddings; otherwise with a matrix of their own. */
  readonly tied: boolean;
  /** Names of the parameters, as in the public checkpoints. */
  readonly names: {
    /** Prefix of an expert's layers and final norm. */
    expert(name: string): string;
    readonly embedding: string;
    readonly head: string;
    /** Prefix of a vision tower; the first tower has the checkpoints' own name. */
    tower(name: string, first: boolean): string;
    readonly resampler: string;
    readonly projector: string;
  };
}
