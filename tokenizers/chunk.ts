import type { ChunkGrammar } from './grammar.ts';

/** The shape of a chunk: `horizon` control steps of `dimension` numbers. */
export interface ChunkShape {
  readonly horizon: number;
  readonly dimension: number;
}

/** A chunk of future actions, already normalised so that most values lie in [-1, 1]. */
export interface ActionChunk extends ChunkShape {
  /** [horizon, dimension], row-major. */
  readonly data: Float32Array;
}

/** What the action tokenizers share: a chunk in, ids 0 .. vocabularySize - 1 out, and back. */
export interface ActionTokenizer {
  readonly vocabularySize: number;
  encode(chunk: ActionChunk): Int32Array;
  /** [horizon, dimension]. Throws where the ids do not spell a chunk of that shape. */
  decode(ids: ArrayLike<number>, shape: ChunkShape): Float32Array;
  /** Which ids may follow which, so that any choice spells a chunk of that shape. */
  grammar(shape: ChunkShape): ChunkGrammar;
  /** Its settings, for `actionTokenizerFromJson`. */
  toJSON(): object;
}

/** Control steps of a chunk at most, and numbers of a step: what lies above is taken for a mistake, not allocated. */
const LARGEST = 4096;

/** Throws in `caller`'s name unless both sizes are positive integers, not above 4096. */
export function checkShape(shape: ChunkShape, caller: string): void {
  for (const name of ['horizon', 'dimension'] as const) {
    const size = shape[name];
    if (!Number.isInteger(size) || size < 1 || size > LARGEST) {
      throw new Error(`${caller}: ${name} must be a positive integer up to ${LARGEST}, got ${size}`);
    }
  }
}

/** Throws in `caller`'s name unless the data fill the shape and every value is finite. */
export function checkChunk(chunk: ActionChunk, caller: string): void {
  checkShape(chunk, caller);
  const { data, horizon, dimension } = chunk;
  if (data.length !== horizon * dimension) {
    throw new Error(
      `${caller}: data holds ${data.length} values, but horizon ${horizon} x dimension ${dimension} needs ${horizon * dimension}`,
    );
  }
  for (let index = 0; index < data.length; index++) {
    if (!Number.isFinite(data[index])) {
      const step = Math.floor(index / dimension);
      throw new Error(
        `${caller}: the value at step ${step}, dimension ${index % dimension} is ${data[index]}; remove or repair such steps before tokenizing`,
      );
    }
  }
}
