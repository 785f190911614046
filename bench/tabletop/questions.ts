/** Questions about pictures of the built-in world, with PaliGemma's prompts; places are location tokens. */
import { locationStepFor } from '../../model/policy/subtask.ts';
import type { PackedQuestion } from '../../model/training/packs.ts';
import { fillTemplate, LOCATIONS, nearestLocation, placesText, worldLanguage } from '../../tokenizers/index.ts';
import { IMAGE_SIZE } from './camera.ts';
import { type SeenThing, type Truth, thingsOf } from './frames.ts';
import { colours, isHeldOut, type SceneSettings, shapes } from './scene.ts';

export interface WorldQuestion {
  readonly kind: QuestionKind;
  /** An instruction for the kind 'task', which is asked for the places that it names. */
  readonly prompt: string;
  readonly answer: string;
  /** The things that it names, those that are acted on first. */
  readonly named: readonly SeenThing[];
}

interface Asked {
  readonly settings: SceneSettings;
  readonly objects: readonly SeenThing[];
  readonly fixtures: readonly SeenThing[];
  /** A whole number from 0 to below. */
  draw(below: number): number;
}

const LOCATION_STEP = locationStepFor(IMAGE_SIZE);
/** The farthest from a thing that is asked about by its place, on each axis, in pixels. */
const OFF_CENTRE = 2.5;
/** Two things whose places differ by less across the picture, in pixels, are not compared. */
const APART = 2;

function placeText(place: SeenThing['place'], ...offset: number[]): string {
  const rounded = place.map((share, i) => nearestLocation(share + (offset[i] ?? 0), LOCATION_STEP) / (LOCATIONS - 1));
  return placesText([{ coordinates: rounded, label: '' }]);
}

const from = <T>(all: readonly T[], { draw }: Asked): T => all[draw(all.length)];
const withArticle = (name: string) => `${/^[aeiou]/.test(name) ? 'an' : 'a'} ${name}`;
/** The things that share this word with no other of them. */
const alone = (things: readonly SeenThing[], word: 'colour' | 'noun') =>
  things.filter((thing) => things.every((other) => other === thing || other[word] !== thing[word]));

/** A thing's name; in scenes with synonyms, in every fourth question another word for it. */
function called({ colour, noun, name }: SeenThing, { settings, draw }: Asked): string {
  return settings.variation === 'rich' && draw(4) === 0 ? `${colour} ${worldLanguage.synonyms[noun]}` : name;
}

/** Any pair of colour and shape that training may have. */
function anyPair({ settings, draw }: Asked): string {
  const [of, shaped] = settings.variation === 'rich' ? [8, 5] : [4, 3];
  const pairs = colours.slice(0, of).flatMap((colour) => shapes.slice(0, shaped).map((shape) => `${colour} ${shape}`));
  const trained = pairs.filter((pair) => !isHeldOut(pair));
  return trained[draw(trained.length)];
}

/** Every kind of question. A kind that a frame gives no cause for asks how many objects there are. */
const kinds = {
  caption: ({ objects, fixtures }) => {
    const names = [objects, fixtures].map((things) => things.map(({ name }) => withArticle(name)));
    const [near, far] = names.map((own) =>
      [own.slice(0, -1).join(', '), ...own.slice(-1)].filter(Boolean).join(' and '),
    );
    return { prompt: 'caption en', answer: near === '' ? far : `${near} in front of ${far}`, named: [] };
  },
  count: ({ objects }) => ({
    prompt: 'answer en how many objects are on the table?',
    answer: String(objects.length),
    named: [],
  }),
  existence: (asked) => {
    const { objects, draw } = asked;
    const name = objects.length > 0 && draw(2) === 0 ? from(objects, asked).name : anyPair(asked);
    const found = objects.filter((object) => object.name === name);
    return { prompt: `answer en is there a ${name}?`, answer: found.length > 0 ? 'yes' : 'no', named: found };
  },
  shape: (asked) => {
    const candidates = alone(asked.objects, 'colour');
    if (candidates.length === 0) return null;
    const object = from(candidates, asked);
    return { prompt: `answer en what is the ${object.colour} object?`, answer: object.noun, named: [object] };
  },
  colour: (asked) => {
    const candidates = alone(asked.objects, 'noun');
    if (candidates.length === 0) return null;
    const object = from(candidates, asked);
    return { prompt: `answer en what colour is the ${object.noun}?`, answer: object.colour, named: [object] };
  },
  side: ({ fixtures, draw }) => {
    if (fixtures.length < 2) return null;
    const side = draw(2);
    const { noun, colour } = fixtures[side];
    const prompt = `answer en which ${noun} is on the ${['left', 'right'][side]}?`;
    return { prompt, answer: colour, named: [fixtures[side]] };
  },
  relation: (asked) => {
    const { objects, draw } = asked;
    if (objects.length < 2) return null;
    const [one, other] = [draw(objects.length), 1 + draw(objects.length - 1)];
    const named = [objects[one], objects[(one + other) % objects.length]];
    const [left, right] = named.map(({ place }) => place[1] * IMAGE_SIZE);
    if (Math.abs(left - right) < APART) return null;
    const side = draw(2);
    const prompt = `answer en is the ${called(named[0], asked)} to the ${['left', 'right'][side]} of the ${called(named[1], asked)}?`;
    return { prompt, answer: left < right === (side === 0) ? 'yes' : 'no', named };
  },
  point: (asked) => {
    const thing = from([...asked.objects, ...asked.objects, ...asked.fixtures], asked);
    return { prompt: `point to the ${called(thing, asked)}`, answer: placeText(thing.place), named: [thing] };
  },
  at: (asked) => {
    const thing = from([...asked.objects, ...asked.fixtures], asked);
    const offset = () => ((asked.draw(1001) / 500 - 1) * OFF_CENTRE) / IMAGE_SIZE;
    return { prompt: `what is at${placeText(thing.place, offset(), offset())}`, answer: thing.name, named: [thing] };
  },
  task: (asked) => {
    const { settings, objects, fixtures } = asked;
    const { trained, heldOut } = worldLanguage.templates[settings.task];
    const plain = settings.variation === 'words' ? heldOut : trained.slice(0, 3);
    const templates = settings.variation === 'rich' ? trained : plain;
    if (settings.task === 'place' && objects.length === 0) return null;
    const named = [...(settings.task === 'place' ? [from(objects, asked)] : []), from(fixtures, asked)];
    const [fixture, object] = named.map((thing) => called(thing, asked)).reverse();
    const prompt = fillTemplate(from(templates, asked), { object, fixture });
    return { prompt, answer: named.map(({ place }) => placeText(place)).join(''), named };
  },
} as const satisfies Record<string, (asked: Asked) => Omit<WorldQuestion, 'kind'> | null>;

export type QuestionKind = keyof typeof kinds;
export const questionKinds = Object.keys(kinds) as QuestionKind[];

/** A question of this kind about a frame, chosen by `draw`. `things` are the frame's, where they are known already. */
export function questionAbout(
  frame: Truth,
  kind: QuestionKind,
  draw: Asked['draw'],
  things = thingsOf(frame),
): WorldQuestion {
  const asked = { settings: frame.settings, ...things, draw };
  const question = kinds[kind](asked);
  return question ? { ...question, kind } : { ...kinds.count(asked), kind: 'count' };
}

/** The question as a model is asked it. */
export function askedOf({ kind, prompt, answer }: WorldQuestion, { state }: Truth): PackedQuestion {
  return kind === 'task'
    ? { kind, prompt, answer, state, request: 'subtask' }
    : { kind, prompt, answer, request: 'answer' };
}
