import { byteCharacters } from './gpt2.ts';
import type { TextTokenizer } from './text.ts';

/** A mapping of the ids 0 .. size - 1 of an action tokenizer (or of locations, or of state bins) into a model's vocabulary. */
export interface ActionIds {
  readonly size: number;
  /** Number of ids of the whole vocabulary, text and actions: the rows of the embedding. */
  readonly vocabularySize: number;
  isAction(id: number): boolean;
  /** Action ids -> ids of the vocabulary. Throws on an unknown action id. */
  toVocabulary(actionIds: ArrayLike<number>): Int32Array;
  /** Ids of the vocabulary -> action ids. Throws on an id that is not an action id. */
  toActions(ids: ArrayLike<number>): Int32Array;
}

/**
 * Consecutive ranges of ids after the text, for locations, state bins and actions. All have the size of the whole
 * vocabulary as their vocabulary size: `rangesAfterText(640, { location: 1024, state: 256, action: 2048 })`.
 */
export function rangesAfterText<Name extends string>(
  textSize: number,
  sizes: Readonly<Record<Name, number>>,
): Record<Name, ActionIds> {
  const entries = Object.entries<number>(sizes);
  for (const [name, size] of [['textSize', textSize], ...entries] as const) checkCount(name, size, 'rangesAfterText');
  const vocabularySize = entries.reduce((sum, [, size]) => sum + size, textSize);
  let first = textSize;
  const ranges = entries.map(([name, size]) => {
    const own = range(size, vocabularySize, first, 1);
    first += size;
    return [name, own];
  });
  return Object.fromEntries(ranges);
}

/**
 * `size` action ids in place of the last ids of a text vocabulary but for `skip`, backwards: id = vocabularySize - 1 - skip -
 * action id. The replaced tokens are lost: openpi's mapping replaces PaliGemma's `<loc>` tokens.
 */
export function actionIdsFromEnd({
  vocabularySize,
  size,
  skip = 0,
}: Readonly<Record<'vocabularySize' | 'size', number>> & { readonly skip?: number }): ActionIds {
  for (const [name, value] of Object.entries({ vocabularySize, size, skip }))
    checkCount(name, value, 'actionIdsFromEnd');
  if (skip + size > vocabularySize)
    throw new Error(
      `actionIdsFromEnd: ${size} action ids before the last ${skip} do not fit a vocabulary of ${vocabularySize}`,
    );
  return range(size, vocabularySize, vocabularySize - 1 - skip, -1);
}

/** The mappings of public systems, for `actionIdsFromEnd`. */
export const publicMappings = {
  /** FAST in PaliGemma [openpi tokenizer.py]: in place of the 1,024 `<loc>` and earlier tokens, before 128 `<seg>`. */
  openpi: { vocabularySize: 257_152, skip: 128 },
  /** Bins in Llama 2 [openvla action_tokenizer.py]: the last 256. */
  openVla: { vocabularySize: 32_000, skip: 0 },
  /** Bins in any vocabulary [robovlms action_tokenizer.py]: before the special tokens and 10 more. */
  roboVlms: (vocabularySize: number, specialTokens: number) => ({ vocabularySize, skip: specialTokens + 10 }),
} as const;

/** Maps action id i to the text vocabulary's id of pieces[i], so that string actions share digits with text answers. */
export function idsOfPieces(text: TextTokenizer, pieces: Iterable<string>): ActionIds {
  const ids = Array.from(pieces, (piece) => {
    const bytes = Array.from(new TextEncoder().encode(piece), (byte) => byteCharacters[byte]).join('');
    const id = [piece, bytes, piece.replaceAll(' ', '▁')]
      .map((token) => text.idOf(token))
      .find((own) => own !== undefined);
    if (id === undefined) throw new Error(`idsOfPieces: the text vocabulary has no piece ${JSON.stringify(piece)}`);
    return id;
  });
  const inverse = (id: number) => ids.indexOf(id);
  return mapping(ids.length, text.vocabularySize, (id) => ids[id], inverse, 'those of the given pieces');
}

function checkCount(name: string, value: number, caller: string): void {
  if (!Number.isInteger(value) || value < 0) throw new Error(`${caller}: ${name} must be a count, got ${value}`);
}

/** Action id 0 is `first`, the others follow it upwards or downwards. */
function range(size: number, vocabularySize: number, first: number, direction: 1 | -1): ActionIds {
  const [low, high] = [first, first + direction * (size - 1)].sort((a, b) => a - b);
  const inverse = (id: number) => (id - first) * direction;
  return mapping(size, vocabularySize, (id) => first + direction * id, inverse, `those are ${low} to ${high}`);
}

/** @param inverse the action id of a vocabulary id, or a number outside 0 .. size - 1 if it has none */
function mapping(
  size: number,
  vocabularySize: number,
  map: (id: number) => number,
  inverse: (id: number) => number,
  which: string,
): ActionIds {
  const isAction = (id: number) => Number.isInteger(id) && inverse(id) >= 0 && inverse(id) < size;
  return {
    size,
    vocabularySize,
    isAction,
    toVocabulary: (ids) =>
      Int32Array.from(ids, (id, index) => {
        if (!Number.isInteger(id) || id < 0 || id >= size)
          throw new Error(`action id ${id} at position ${index} is unknown; action ids are 0 to ${size - 1}`);
        return map(id);
      }),
    toActions: (ids) =>
      Int32Array.from(ids, (id, index) => {
        if (!isAction(id)) throw new Error(`id ${id} at position ${index} is no action id; ${which}`);
        return inverse(id);
      }),
  };
}
