import { promptText } from './prompts.ts';
import { trainByteLevelMerges } from './tokenizer-json.ts';

/** The words of the built-in world, from which its instructions are made and the default vocabulary is trained. */
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

/** Prompts of every form, with every instruction and, in turn, every bin of a state of 256 bins. */
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
 * The merges of the default vocabulary: all that the world's prompts give, within 640 ids. They are written down, since learning
 * them takes about half a second; after a change of the language `npx tsx tokenizers/default-merges-node.ts` writes them anew
 * (checkpoints keep the vocabulary that they were trained with).
 */
export function trainDefaultMerges(): string[] {
  return trainByteLevelMerges(worldPrompts(), 640);
}
