import { promptText } from './prompts.ts';
import { trainByteLevelMerges } from './tokenizer-json.ts';

/** Instructions of a task; in them {object} is "the COLOUR OBJECT" and {fixture} "the COLOUR FIXTURE". */
interface Templates {
  /** Those of training; the first three are those of the simple world. */
  readonly trained: readonly string[];
  /** Those that no training sees. */
  readonly heldOut: readonly string[];
}

/** The language of the built-in world: its instructions and questions, on which the default vocabulary is trained. */
export const worldLanguage = {
  colours: ['red', 'green', 'blue', 'yellow', 'purple', 'orange', 'white', 'black'],
  objects: ['cube', 'ball', 'cylinder', 'block', 'cross'],
  fixtures: ['bin', 'button', 'drawer'],
  /** Other words for objects and fixtures. */
  synonyms: {
    cube: 'die',
    ball: 'sphere',
    cylinder: 'can',
    block: 'brick',
    cross: 'plus',
    bin: 'container',
    button: 'switch',
    drawer: 'tray',
  },
  templates: {
    place: {
      trained: [
        'put {object} in {fixture}',
        'place {object} into {fixture}',
        'move {object} to {fixture}',
        'put {object} into {fixture}',
        'place {object} in {fixture}',
        'bring {object} to {fixture}',
        'pick up {object} and put it in {fixture}',
      ],
      heldOut: ['drop {object} into {fixture}', 'transfer {object} to {fixture}', 'lift {object} over to {fixture}'],
    },
    press: {
      trained: ['press {fixture}', 'push {fixture}', 'press down on {fixture}'],
      heldOut: ['hit {fixture}', 'push down {fixture}'],
    },
    open: {
      trained: ['open {fixture}', 'pull {fixture} open', 'slide {fixture} open'],
      heldOut: ['open up {fixture}', 'pull out {fixture}'],
    },
  } satisfies Record<string, Templates>,
} as const;

export type WorldTask = keyof typeof worldLanguage.templates;

/** Fills a template; `object` and `fixture` are names such as "red cube". */
export function fillTemplate(template: string, { object, fixture }: { object?: string; fixture: string }): string {
  return template.replace('{object}', `the ${object}`).replace('{fixture}', `the ${fixture}`);
}

/** Every instruction of the built-in world without synonyms, in a fixed order. */
export function worldInstructions(): string[] {
  const { colours, objects, templates } = worldLanguage;
  const names = (nouns: readonly string[]) => colours.flatMap((colour) => nouns.map((noun) => `${colour} ${noun}`));
  const fixtures = { place: ['bin'], press: ['button'], open: ['drawer'] };
  const all = (Object.keys(fixtures) as WorldTask[]).flatMap((task) =>
    [...templates[task].trained, ...templates[task].heldOut].flatMap((template) =>
      (template.includes('{object}') ? names(objects) : [undefined]).flatMap((object) =>
        names(fixtures[task]).map((fixture) => fillTemplate(template, { object, fixture })),
      ),
    ),
  );
  return [...new Set(all)];
}

/** Prompts of every form, with every instruction and every bin of a state of 256 bins, and the words of questions and answers. */
function worldPrompts(): string[] {
  let bin = 0;
  const state = () => Array.from({ length: 4 }, () => bin++ % 256);
  const prompts = worldInstructions().flatMap((instruction) => [
    promptText({ instruction, state: state() }),
    promptText({ instruction }),
    promptText({ state: state() }).replace('Action:', 'Subtask:'),
  ]);
  const { colours, objects, fixtures, synonyms } = worldLanguage;
  const words = [...objects, ...fixtures, ...Object.values(synonyms)].flatMap((noun) => [
    `point to the ${noun}`,
    `answer en what colour is the ${noun}?`,
    `answer en is there a red ${noun}?`,
    `answer en is the ${noun} to the left of the ${noun}?`,
    `answer en is the ${noun} to the right of the ${noun}?`,
    `answer en which ${noun} is on the left?`,
    `answer en which ${noun} is on the right?`,
    'answer en what is the red object?',
    'answer en how many objects are on the table?',
    'what is at ',
    `caption en a ${noun}, an ${noun} and a ${noun} in front of a ${noun}`,
  ]);
  const answers = [...colours, ...objects, ...fixtures, 'yes', 'no'];
  return [
    ...prompts,
    ...Array<string[]>(WORDS_REPEATED)
      .fill([...words, ...answers])
      .flat(),
  ];
}

/** How often the words of questions count beside the instructions, so that each becomes one token. */
const WORDS_REPEATED = 8;
const VOCABULARY = 768;

/**
 * Learns the merges of the default vocabulary from the world's prompts. default-merges.ts stores them; after a change of
 * the language, `npx tsx tokenizers/default-merges-node.ts` writes them again (checkpoints keep their own vocabulary).
 */
export function trainDefaultMerges(): string[] {
  return trainByteLevelMerges(worldPrompts(), VOCABULARY);
}
