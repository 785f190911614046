import { promptText } from './prompts.ts';
import { trainByteLevelMerges } from './tokenizer-json.ts';

/** The language of the built-in world: it generates the instructions, and the default vocabulary is trained on it. */
export const worldLanguage = {
  colours: ['red', 'green', 'blue', 'yellow', 'purple', 'orange', 'white', 'black'],
  objects: ['cube', 'ball', 'cylinder', 'block'],
  places: ['bin'],
  /** {object} is "the COLOUR OBJECT", {place} is "the COLOUR PLACE". */
  templates: [
    'put {object} in {place}',
    'put {object} into {place}',
    'place {object} in {place}',
    'place {object} into {place}',
    'move {object} to {place}',
    'push {object} to {place}',
    'bring {object} to {place}',
    'drop {object} into {place}',
    'lift {object}',
    'pick up {object}',
    'pick up {object} and put it in {place}',
  ],
} as const;

/** Every instruction of the built-in world, in a fixed order. */
export function worldInstructions(): string[] {
  const { colours, objects, places, templates } = worldLanguage;
  const phrases = (nouns: readonly string[]) =>
    colours.flatMap((colour) => nouns.map((noun) => `the ${colour} ${noun}`));
  const instructions = templates.flatMap((template) =>
    phrases(objects).flatMap((object) =>
      phrases(places).map((place) => template.replace('{object}', object).replace('{place}', place)),
    ),
  );
  return [...new Set(instructions)];
}

/** Prompts of every form, with every instruction and every bin of a state of 256 bins. */
function worldPrompts(): string[] {
  let bin = 0;
  const state = () => Array.from({ length: 4 }, () => bin++ % 256);
  return worldInstructions().flatMap((instruction) => [
    promptText({ instruction, state: state() }),
    promptText({ instruction }),
    promptText({ state: state() }),
  ]);
}

/**
 * Learns the merges of the default vocabulary of at most 640 ids from the world's prompts. default-merges.ts stores
 * them, because learning takes about half a second; after a change of the language, `npx tsx
 * tokenizers/default-merges-node.ts` writes them again (checkpoints keep the vocabulary that they were trained with).
 */
export function trainDefaultMerges(): string[] {
  return trainByteLevelMerges(worldPrompts(), 640);
}
