import type { ActionChunk, ActionTokenizer, ChunkGrammar, ChunkShape, Clamping } from './action-tokenizer.ts';
import { checkChunk, checkShape, quote } from './action-tokenizer.ts';

export interface StrideTokenizerJson {
  readonly type: 'stride';
  readonly stride: number;
  readonly inner: object;
}

/**
 * Encodes control steps 0, k, 2k, ... of a chunk by another tokenizer: with bins and k = 5, these are the "sub-sampling
 * tokens" of knowledge insulation (arXiv 2505.23705, section 6; we assume that the first step is kept). The paper uses
 * them as a training target only; decoding interpolates linearly between the kept steps and holds the last one.
 */
export class StrideTokenizer implements ActionTokenizer {
  constructor(
    readonly inner: ActionTokenizer,
    readonly stride = 5,
  ) {
    if (!Number.isInteger(stride) || stride < 1)
      throw new Error(`StrideTokenizer: stride must be a positive integer, got ${quote(stride)}`);
  }

  get vocabularySize(): number {
    return this.inner.vocabularySize;
  }

  /** The inner tokenizer's ids of [ceil(horizon / stride), dimension]. */
  encode(chunk: ActionChunk): Int32Array {
    return this.inner.encode(this.subsampled(chunk));
  }

  /** Counts what the inner tokenizer does, of the kept steps. */
  clamping(chunk: ActionChunk): Clamping {
    return this.inner.clamping(this.subsampled(chunk));
  }

  /** [horizon, dimension]. Throws as the inner tokenizer does. */
  decode(ids: ArrayLike<number>, shape: ChunkShape): Float32Array {
    const kept = this.kept(shape);
    const rows = this.inner.decode(ids, kept);
    return Float32Array.from({ length: shape.horizon * shape.dimension }, (_, index) => {
      const d = index % shape.dimension;
      const place = (index - d) / shape.dimension / this.stride;
      const row = Math.floor(place);
      const [before, after] = [row, Math.min(row + 1, kept.horizon - 1)].map((r) => rows[r * shape.dimension + d]);
      return before + (after - before) * (place - row);
    });
  }

  grammar(shape: ChunkShape): ChunkGrammar {
    return this.inner.grammar(this.kept(shape));
  }

  toJSON(): StrideTokenizerJson {
    return { type: 'stride', stride: this.stride, inner: this.inner.toJSON() };
  }

  private subsampled(chunk: ActionChunk): ActionChunk {
    checkChunk(chunk, 'StrideTokenizer.encode');
    const kept = this.kept(chunk);
    const data = new Float32Array(kept.horizon * kept.dimension);
    for (let row = 0; row < kept.horizon; row++) {
      const from = row * this.stride * kept.dimension;
      data.set(chunk.data.subarray(from, from + kept.dimension), row * kept.dimension);
    }
    return { ...kept, data };
  }

  private kept(shape: ChunkShape): ChunkShape {
    checkShape(shape, 'StrideTokenizer');
    return { horizon: Math.ceil(shape.horizon / this.stride), dimension: shape.dimension };
  }
}
