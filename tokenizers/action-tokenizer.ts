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
  /** Throws where the data do not fill the shape and at NaN or infinity; values beyond what ids can say are clamped. */
  encode(chunk: ActionChunk): Int32Array;
  /** [horizon, dimension]. Throws where the ids do not spell a chunk of that shape. */
  decode(ids: ArrayLike<number>, shape: ChunkShape): Float32Array;
  /** Which ids may follow which, so that any choice spells a chunk of that shape. */
  grammar(shape: ChunkShape): ChunkGrammar;
  /** Its settings, for `actionTokenizerFromJson`. */
  toJSON(): object;
}

/**
 * What a model may write next, so that whatever it chooses decodes to a chunk. A state is how far the chunk is written, in
 * the tokenizer's own count (coefficients, characters, numbers); writing begins at 0 and from every state below `complete`
 * at least one id leads on:
 *
 *   for (let state = 0; state !== grammar.complete; state = grammar.next(state, id)) id = the best of grammar.allowed(state)
 */
export interface ChunkGrammar {
  /** The state in which the chunk is whole. */
  readonly complete: number;
  /** Action ids that may come next; none exactly where the chunk is complete. */
  allowed(state: number): Int32Array;
  /** The state behind `id`. Throws where it is not allowed. */
  next(state: number, id: number): number;
}

/**
 * A grammar that counts.
 *
 * @param allowed ids that may come next in a state below `complete`
 * @param width how far an id that is allowed brings the chunk
 */
export function chunkGrammar(
  complete: number,
  allowed: (state: number) => Int32Array,
  width: (id: number) => number,
): ChunkGrammar {
  const none = new Int32Array(0);
  const open = (state: number) => (state < complete ? allowed(state) : none);
  return {
    complete,
    allowed: open,
    next(state, id) {
      if (!open(state).includes(id)) throw new Error(`action id ${id} may not follow in state ${state} of ${complete}`);
      return state + width(id);
    },
  };
}

/** Whether a value is an id of a vocabulary; above 2^22 it is taken for damage, since tables are made by the largest. */
export const isId = (value: unknown): value is number =>
  Number.isInteger(value) && (value as number) >= 0 && (value as number) < 2 ** 22;

/** A value of somebody else's JSON as a short piece of an error's line. */
export function quote(value: unknown): string {
  if (typeof value === 'number') return String(value);
  try {
    return (JSON.stringify(value) ?? 'nothing').slice(0, 100);
  } catch {
    return 'a value nested too deeply'; // JSON.stringify is recursive, JSON.parse is not
  }
}

/** Control steps of a chunk at most, and numbers of a step: what lies above is taken for a mistake, not allocated. */
const LARGEST = 4096;

/** Throws in `caller`'s name unless both sizes are positive integers, not above 4096. */
export function checkShape(shape: ChunkShape, caller: string): void {
  for (const name of ['horizon', 'dimension'] as const) {
    const size = shape[name];
    if (!Number.isInteger(size) || size < 1 || size > LARGEST) {
      throw new Error(`${caller}: ${name} must be a positive integer up to ${LARGEST}, got ${quote(size)}`);
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
