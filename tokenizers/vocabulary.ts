/** How the ids 0 .. size - 1 of an action tokenizer appear among the ids of a model's vocabulary. */
export interface ActionIds {
  /** Action ids. */
  readonly size: number;
  /** Ids of the whole vocabulary, text and actions: the rows of the embedding. */
  readonly vocabularySize: number;
  /** Whether an id of the vocabulary stands for an action id. */
  isAction(id: number): boolean;
  /** Action ids -> ids of the vocabulary. Throws on an action id that is not there. */
  toVocabulary(actionIds: ArrayLike<number>): Int32Array;
  /** Ids of the vocabulary -> action ids. Throws on an id that is no action id. */
  toActions(ids: ArrayLike<number>): Int32Array;
}

export interface OwnRange {
  /** Ids of the text tokenizer: 0 .. textSize - 1. */
  readonly textSize: number;
  /** Action ids. */
  readonly size: number;
  /** Where the action ids begin. Default: right behind the text. */
  readonly first?: number;
}

/** Action ids in a range of their own behind the text: id = first + action id. */
export function actionIdsAfterText({ textSize, size, first = textSize }: OwnRange): ActionIds {
  for (const [name, value] of Object.entries({ textSize, size, first })) checkCount(name, value, 'actionIdsAfterText');
  if (first < textSize) {
    throw new Error(
      `actionIdsAfterText: action ids from ${first} would overlap the ${textSize} text ids; begin at ${textSize} or later`,
    );
  }
  return actionIds(size, first + size, (id) => first + id);
}

export interface LastIds {
  /** Ids of the vocabulary, whose last ones are taken over. */
  readonly vocabularySize: number;
  /** Action ids. */
  readonly size: number;
  /** Ids at the very end that stay what they are. Default 0. */
  readonly skip?: number;
}

/**
 * Action ids over the last ids of a text vocabulary, backwards: id = vocabularySize - 1 - skip - action id. What those ids
 * meant before is lost. openpi puts FAST into PaliGemma with skip 128 (its last 128 are `<seg>`; the next 1024 are `<loc>`),
 * OpenVLA bins into Llama with skip 0, RoboVLMs with skip = 10 + its number of special tokens.
 */
export function actionIdsFromEnd({ vocabularySize, size, skip = 0 }: LastIds): ActionIds {
  for (const [name, value] of Object.entries({ vocabularySize, size, skip })) {
    checkCount(name, value, 'actionIdsFromEnd');
  }
  if (skip + size > vocabularySize) {
    throw new Error(
      `actionIdsFromEnd: ${size} action ids before the last ${skip} do not fit a vocabulary of ${vocabularySize}`,
    );
  }
  return actionIds(size, vocabularySize, (id) => vocabularySize - 1 - skip - id);
}

function checkCount(name: string, value: number, caller: string): void {
  if (!Number.isInteger(value) || value < 0) throw new Error(`${caller}: ${name} must be a count, got ${value}`);
}

/** `map` must run over consecutive ids, up or down. */
function actionIds(size: number, vocabularySize: number, map: (id: number) => number): ActionIds {
  const direction = map(1) - map(0);
  const inverse = (id: number) => (id - map(0)) * direction;
  const isAction = (id: number) => Number.isInteger(id) && inverse(id) >= 0 && inverse(id) < size;
  return {
    size,
    vocabularySize,
    isAction,
    toVocabulary: (ids) =>
      Int32Array.from(ids, (id, index) => {
        if (!Number.isInteger(id) || id < 0 || id >= size) {
          throw new Error(`action id ${id} at position ${index} is unknown; action ids are 0 to ${size - 1}`);
        }
        return map(id);
      }),
    toActions: (ids) =>
      Int32Array.from(ids, (id, index) => {
        if (!isAction(id)) {
          const [low, high] = [map(0), map(size - 1)].sort((a, b) => a - b);
          throw new Error(`id ${id} at position ${index} is no action id; those are ${low} to ${high}`);
        }
        return inverse(id);
      }),
  };
}
