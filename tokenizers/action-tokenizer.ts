/** The shape of a chunk: `horizon` control steps of `dimension` numbers. */
export interface ChunkShape {
  readonly horizon: number;
  readonly dimension: number;
}

/** A chunk of future actions, normalised so that most values lie in [-1, 1]. */
export interface ActionChunk extends ChunkShape {
  /** [horizon, dimension], row-major. */
  readonly data: Float32Array;
}

/** The kinds of action tokenizer; FAST is fitted to data, the others need none. */
export const actionTokenKinds = ['fast', 'bins', 'stride', 'string'] as const;
export type ActionTokenKind = (typeof actionTokenKinds)[number];

/** The number of clamped values among `total`. */
export interface Clamping {
  readonly clamped: number;
  readonly total: number;
}

export function countClamped(
  values: ArrayLike<number>,
  isClamped: (value: number, index: number) => boolean,
): Clamping {
  return { clamped: Array.from(values).filter(isClamped).length, total: values.length };
}

/** An action tokenizer encodes chunks as ids 0 .. vocabularySize - 1, and decodes them. */
export interface ActionTokenizer {
  readonly vocabularySize: number;
  /** Throws if the data do not fill the shape, or at NaN or infinity; values out of range are clamped. */
  encode(chunk: ActionChunk): Int32Array;
  /** How many of the numbers that `encode` writes are out of range, and clamped. Throws as `encode` does. */
  clamping(chunk: ActionChunk): Clamping;
  /** [horizon, dimension]. Throws if the ids do not encode a chunk of that shape. */
  decode(ids: ArrayLike<number>, shape: ChunkShape): Float32Array;
  /** The grammar of the id sequences that encode a chunk of that shape. */
  grammar(shape: ChunkShape): ChunkGrammar;
  /** Its settings, for `actionTokenizerFromJson`. */
  toJSON(): object;
}

/**
 * The ids that a model may generate next, so that every allowed sequence decodes to a chunk. A state counts the
 * generated part of the chunk in the tokenizer's own unit (coefficients, characters, numbers). Generation begins at
 * state 0, and every state below `complete` allows at least one id:
 *
 *   for (let state = 0; state !== grammar.complete; state = grammar.next(state, id)) id = the best of grammar.allowed(state)
 */
export interface ChunkGrammar {
  /** The state in which the chunk is complete. */
  readonly complete: number;
  /**
   * Action ids that may come next; none if and only if the chunk is complete. With `most`, only those after which so many ids, the
   * next one included, can complete the chunk; without such an id, all.
   */
  allowed(state: number, most?: number): Int32Array;
  /** The state after `id`. Throws if the id is not allowed. */
  next(state: number, id: number): number;
}

/**
 * Makes a grammar.
 *
 * @param allowed ids that may come next in a state below `complete`
 * @param width the number of units that an id adds to the state; one by default
 */
export function chunkGrammar(
  complete: number,
  allowed: (state: number) => Int32Array,
  width: (id: number) => number = () => 1,
): ChunkGrammar {
  const none = new Int32Array(0);
  const open = (state: number) => (state < complete ? allowed(state) : none);
  let fewest: Float64Array | null = null;
  /** For each state the fewest ids that complete the chunk; Infinity where none do. */
  const counted = () => {
    const counts = new Float64Array(complete + 1).fill(Number.POSITIVE_INFINITY);
    counts[complete] = 0;
    for (let state = complete - 1; state >= 0; state--)
      for (const id of allowed(state)) counts[state] = Math.min(counts[state], 1 + counts[state + width(id)]);
    return counts;
  };
  return {
    complete,
    allowed(state, most = complete) {
      const ids = open(state);
      // Every id adds a unit at least.
      if (complete - state <= most) return ids;
      fewest ??= counted();
      const fitting = ids.filter((id) => fewest![state + width(id)] < most);
      return fitting.length > 0 ? fitting : ids;
    },
    next(state, id) {
      if (!open(state).includes(id)) throw new Error(`action id ${id} may not follow in state ${state} of ${complete}`);
      return state + width(id);
    },
  };
}

/** Whether a value is an id. Ids from 2^22 on are refused as damage, because tables have the size of the largest id. */
export const isId = (value: unknown): value is number =>
  Number.isInteger(value) && (value as number) >= 0 && (value as number) < 2 ** 22;

export const unknownId = (id: number, position: number, size: number) =>
  new Error(`id ${id} at position ${position} is unknown; ids are 0 to ${size - 1}`);

/** A value from a JSON file for a message, truncated to 100 characters. */
export function quote(value: unknown): string {
  if (typeof value === 'number') return String(value);
  try {
    return (JSON.stringify(value) ?? 'nothing').slice(0, 100);
  } catch {
    return 'a value nested too deeply'; // JSON.stringify is recursive, JSON.parse is not
  }
}

/** The largest horizon and dimension; larger ones are refused as mistakes, not allocated. */
const LARGEST = 4096;

/** Throws in `caller`'s name unless both sizes are positive integers, not above 4096. */
export function checkShape(shape: ChunkShape, caller: string): void {
  for (const name of ['horizon', 'dimension'] as const) {
    const size = shape[name];
    if (!Number.isInteger(size) || size < 1 || size > LARGEST)
      throw new Error(`${caller}: ${name} must be a positive integer up to ${LARGEST}, got ${quote(size)}`);
  }
}

/** Throws in `caller`'s name unless the data fill the shape and every value is finite. */
export function checkChunk(chunk: ActionChunk, caller: string): void {
  checkShape(chunk, caller);
  const { data, horizon, dimension } = chunk;
  if (data.length !== horizon * dimension)
    throw new Error(
      `${caller}: data holds ${data.length} values, but horizon ${horizon} x dimension ${dimension} needs ${horizon * dimension}`,
    );
  const wrong = data.findIndex((value) => !Number.isFinite(value));
  if (wrong >= 0)
    throw new Error(
      `${caller}: the value at step ${Math.floor(wrong / dimension)}, dimension ${wrong % dimension} is ${data[wrong]}; remove or repair such steps before tokenizing`,
    );
}
