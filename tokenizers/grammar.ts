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

/** @param width how far an id that is allowed brings the chunk */
export function chunkGrammar(
  complete: number,
  allowed: (state: number) => Int32Array,
  width: (id: number, state: number) => number,
): ChunkGrammar {
  const none = new Int32Array(0);
  const open = (state: number) => (state < complete ? allowed(state) : none);
  return {
    complete,
    allowed: open,
    next(state, id) {
      if (!open(state).includes(id)) throw new Error(`action id ${id} may not follow in state ${state} of ${complete}`);
      return state + width(id, state);
    },
  };
}
